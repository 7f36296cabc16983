"""Names and words of others on the pages: no element, attribute or style comes from them, and nothing could run."""

import base64
import csv
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isc_jobs.matching.found import Found, Threshold, write_found
from isc_jobs.matching.pictures import list_pictures
from isc_jobs.retrieval.metrics import Scores
from isc_jobs.retrieval.submission import Descriptors, Matches, write_descriptors
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages import evaluate
from isc_jobs.stages.runner import Context
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import publish
from isc_jobs.vision.shards import Picture, write_shard

HOSTILE = [
    "<script>document.title='ran'</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title></style><body onload=alert(1)>",
    "--><iframe srcdoc='<script>alert(1)<&#47;script>'>",
    "javascript:alert(1)",
    "{0.__class__.__init__.__globals__} {_POLICY} %s%n%(x)s ${x}",
    "&lt;b&gt; &#60;script&#62; &amp;",
    "}</style>*{background:url(http://192.0.2.1/)}",
    "gpj.\u202eexe \u2066a\u2069",
    "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "one\nv83  finished in 1.0 s\r\ntwo\u2028three",
    "=cmd|' /C calc'!A0",
    "a" * 5_000,
    os.fsdecode(b"no utf-8 \xff\xfe"),
]  # fmt: skip


class Outline(HTMLParser):
    """Elements with the names of their attributes, in order; values; text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", (data,)))


def picture() -> bytes:
    data = BytesIO()
    Image.new("RGB", (40, 30), "navy").save(data, "PNG")
    return data.getvalue()


def as_file(text: str) -> str:
    """As much of it as the name of a file can be."""
    return os.fsdecode(os.fsencode(text.replace("/", "\N{DIVISION SLASH}"))[:200]) + ".png"


def match_page(folder: Path, names: list[str], words: list[str]) -> tuple[Path, list[str]]:
    """The page of matches among files of these names, with these words as reasons of bad ones; and the ids."""
    (folder / "photos").mkdir(parents=True)
    for name in names:
        (folder / "photos" / name).write_bytes(picture())
    pictures = {found.id: found for found in list_pictures(folder / "photos").pictures}
    ids = list(pictures)
    found = Found(
        matches=Matches(ids, [*ids[1:], ids[0]], np.linspace(-0.1, -0.2, len(ids))),
        curve=Scores(0.75, 0.5, np.array([-0.1, -0.2]), np.array([1.0, 0.5]), np.array([0.5, 0.5]), 2),
        threshold=Threshold(-0.15, words[0], 1.0, 0.5, 1), pictures={"queries": pictures, "references": pictures},
        bad=[("queries", id_, word) for id_, word in zip(ids, words, strict=True)], model={"arch": words[0]},
    )  # fmt: skip
    list(write_found(folder / "m.csv", found, load_settings("isc21").matching))
    return folder / "m.html", ids


def report_page(folder: Path, ids: list[str], words: list[str]) -> Path:
    """The stage's report of a data set whose queries and references have these ids."""
    store = open_store(str(folder / "store"))
    words = [word.encode(errors="backslashreplace").decode() for word in words]  # as JSON can hold them
    provenance, inputs = dict(zip(words, reversed(words), strict=True)), {}

    def commit(stage: str) -> None:
        inputs[stage] = InputRef(stage=stage, key="0" * 64)
        publish(store, inputs[stage], folder / stage, run="r", attempt=1, summary={}, provenance=provenance, seconds=1)

    (folder / "download/shards").mkdir(parents=True)
    sets = {}
    for name in ("query_phase1", "reference"):
        shard = f"shards/{name}-00000.tar"
        write_shard(folder / "download" / shard, [Picture(id_, "png", picture(), 40, 30) for id_ in ids])
        sets[name] = {"shards": [shard], "count": len(ids)}
    (folder / "download/manifest.json").write_text(json.dumps({"sets": sets, "bad": len(words)}))
    with (folder / "download/bad_images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("key", "reason"), *zip(words, reversed(words), strict=True)])
    with (folder / "download/ground_truth_phase1.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query_id", "reference_id"), *zip(ids, [*ids[:3], *ids[4:], ids[3]], strict=True)])
    commit("download")
    (folder / "postprocess").mkdir()
    rows = np.eye(max(8, len(ids)), dtype=np.float32)[: len(ids)]
    write_descriptors(folder / "postprocess/v107_iso.h5", Descriptors(ids, rows), Descriptors(ids, rows))
    commit("postprocess")
    settings = {"evaluate": {"compare": [], "results_per_query": 10, "gallery": 20}, "queries": "phase1"}
    spec = StageSpec(program="evaluate", stage="evaluate", key="1" * 64, run="r", attempt=1, store=store.uri,
                     settings=settings, inputs=inputs, parameters={}, execution={})  # fmt: skip
    ctx = Context(spec, store, folder / "work")
    evaluate.body(ctx)
    return ctx.out / "report.html"


def pages(folder: Path, names: list[str], words: list[str]) -> list[Path]:
    ids = [name.removesuffix(".png").encode(errors="backslashreplace").decode()[:60] for name in names]
    ids = [re.sub(r"[\x00-\x1f]", "", id_) for id_ in ids]  # as an index of shards can hold them
    return [match_page(folder / "match", names, words)[0], report_page(folder / "report", ids, words)]


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Kept where ``HOSTILE_PAGES`` says, for a look with a browser."""
    folder = Path(os.environ.get("HOSTILE_PAGES") or tmp_path_factory.mktemp("hostile"))
    return pages(folder, [as_file(text) for text in HOSTILE], HOSTILE)


@pytest.mark.parametrize("which", [0, 1], ids=["match", "report"])
def test_hostile_names_make_the_same_elements_as_harmless_ones(
    hostile_pages: list[Path], tmp_path: Path, which: int
) -> None:
    """The order of names is that of the hostile ones, so that pages differ in nothing but text."""
    order = sorted(range(len(HOSTILE)), key=lambda place: as_file(HOSTILE[place]))
    harmless = [f"picture-{order.index(place):02d}" for place in range(len(HOSTILE))]
    tame = pages(tmp_path, [f"{name}.png" for name in harmless], harmless)
    hostile, expected = (Outline(page[which].read_text("utf-8")) for page in (hostile_pages, tame))
    assert hostile.elements == expected.elements
    assert len(hostile.elements) > 100
    differing = {name for (_, name, found), (_, _, wanted) in zip(hostile.values, expected.values, strict=True)
                 if found != wanted}  # fmt: skip
    assert differing <= {"alt", "aria-label"}


@pytest.mark.parametrize("which", [0, 1], ids=["match", "report"])
def test_nothing_on_a_page_runs_or_fetches_and_its_policy_says_so(hostile_pages: list[Path], which: int) -> None:
    html = hostile_pages[which].read_text("utf-8")
    outline = Outline(html)
    assert not {tag for tag, _ in outline.elements} & {"script", "iframe", "object", "embed", "link", "base", "form"}
    names = [name for _, attributes in outline.elements for name in attributes]
    assert not [name for name in names if name.startswith("on") or name in {"style", "href", "srcset", "srcdoc"}]
    assert all(value.startswith("data:image/jpeg;base64,") for _, name, value in outline.values if name == "src")
    [policy] = [value for tag, name, value in outline.values if tag == "meta" and "default-src" in value]
    [style] = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert html.index("Content-Security-Policy") < html.index("<style>")


@pytest.mark.parametrize("which", [0, 1], ids=["match", "report"])
def test_a_page_turns_no_direction_and_holds_no_control_characters(hostile_pages: list[Path], which: int) -> None:
    html = hostile_pages[which].read_text("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", html)
    text = "".join(Outline(html).text)
    for shown in ("<script>document.title='ran'</script>", r"gpj.\u202eexe", r"\x1b[31mred", "{0.__class__"):
        assert shown in text
    assert "a" * 5_000 in text


def test_ids_in_csv_files_are_the_names_byte_for_byte(tmp_path: Path) -> None:
    """Formulas of spreadsheets too: other programs look the files up by them."""
    names = [as_file(text) for text in (*HOSTILE, "+1+1", "@SUM(1)", "-2+3", "\tx")]
    _, ids = match_page(tmp_path, names, names)
    assert sorted(ids) == sorted(names)
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_id"] for row in rows] == ids
    assert all((tmp_path / "photos" / row["reference_id"]).is_file() for row in rows)
