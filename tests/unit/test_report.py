"""The report: one self-contained page, everything escaped, readable in light and dark; the stage that writes it."""

import json
import re
from html.parser import HTMLParser
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isc_jobs.report.charts import Chart, Line, draw, smoothed, thinned, ticks
from isc_jobs.report.gallery import Result, choose_examples, data_uri, gallery
from isc_jobs.report.page import Section, page, table
from isc_jobs.report.sections import data_tables, duration, training_figure
from isc_jobs.retrieval import submission
from isc_jobs.retrieval.submission import Descriptors, write_descriptors
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages import evaluate
from isc_jobs.stages.runner import Context
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import publish
from isc_jobs.vision.shards import Picture, write_shard

EVIL = '"><script>alert(1)</script>'
VOID = {"meta", "img", "path", "polyline", "br"}


class Outline(HTMLParser):
    """Checks that tags are closed in order; collects addresses and images without words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.wordless = 0
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [value for name in ("src", "href") if (value := values.get(name))]
        self.wordless += tag == "img" and not values.get("alt")
        assert tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_lines_have_the_contrast_of_wcag_aa_in_light_and_dark() -> None:
    style = resources.files("isc_jobs.report").joinpath("style.css").read_text("utf-8")
    schemes = re.findall(r":root\{([^}]*)\}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", scheme))
        for ground in ("bg", "card", "mark"):
            for ink in ("fg", "soft", *(f"c{i}" for i in range(6))):
                light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.0123), (0.8, 1.37), (1, 48_000), (3, 3), (0, 0), (-2, 5)])
def test_ticks_are_round_few_and_cover_the_range(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    assert all(len(f"{value:g}") <= 6 for value in found)


def test_smoothing_keeps_a_constant_and_leaves_out_what_is_not_finite() -> None:
    assert smoothed([(0.0, 2.0), (1.0, float("nan")), (2.0, 2.0)]) == [(0.0, 2.0), (2.0, pytest.approx(2.0))]
    assert thinned([(float(i), 0.0) for i in range(5000)])[-1] == (4999.0, 0.0)


def test_a_chart_stays_inside_its_box_and_escapes_names() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in enumerate(rng.normal(size=1000))]
    html = draw(Chart(title=EVIL, x_name=EVIL, y_name=EVIL), [Line(EVIL, points), Line("b", [(3.0, 9.0)])])
    Outline(html)
    drawn = re.search(r'<polyline class="c0 " points="([^"]*)"', html)
    assert drawn is not None
    for pair in drawn[1].split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 500
        assert 0 <= y <= 230
    assert draw(Chart(title="t", x_name="x", y_name="y"), [Line("a", [])]) == ""


def test_everything_that_comes_from_files_is_escaped() -> None:
    image = Image.new("RGB", (400, 200), "teal")
    examples = choose_examples([Result(EVIL, EVIL, -1.0)], {(EVIL, "R2")}, 3)
    html = page(
        EVIL, [EVIL], [(EVIL, EVIL)],
        [Section(EVIL, EVIL, table(EVIL, (EVIL, EVIL), [(EVIL, EVIL)])),
         Section("g", "", gallery(examples.misses, lambda kind, id_: image)),
         Section("d", "", data_tables({"sets": {}, "bad": 1}, [{"key": EVIL, "reason": EVIL}], 1))],
    )  # fmt: skip
    outline = Outline(html)
    assert "<script" not in html
    assert outline.wordless == 0
    assert all(address.startswith("data:image/jpeg;base64,") for address in outline.addresses)


def test_the_gallery_shows_matches_misses_and_false_matches() -> None:
    ranked = [Result("Q1", "R1", -0.1), Result("Q2", "R9", -0.2), Result("Q2", "R2", -0.3), Result("Q4", "R1", -0.9)]
    examples = choose_examples(ranked, {("Q1", "R1"), ("Q2", "R2"), ("Q3", "R3")}, 5)
    assert [[shown.id for shown in e.pictures] for e in examples.matches] == [["Q1", "R1"]]
    assert [([shown.id for shown in e.pictures], e.note) for e in examples.misses] == [
        (["Q3", "R3"], "the right pair is not among the results"),
        (["Q2", "R2", "R9"], "the right pair is number 3 of all pairs"),
    ]
    assert [[shown.id for shown in e.pictures] for e in examples.false_matches] == [["Q2", "R9", "R2"], ["Q4", "R1"]]
    none = choose_examples(ranked, {("Q1", "R1")}, 0)
    assert (none.matches, none.misses, none.false_matches) == ([], [], [])


def test_pictures_are_small_and_durations_are_for_people() -> None:
    assert data_uri(Image.new("RGBA", (4000, 3000))).startswith("data:image/jpeg;base64,")
    assert [duration(s) for s in (0.21, 59.99, 200.4, 18_720)] == ["0.2 s", "60.0 s", "3 min 20 s", "5 h 12 min"]


HISTORY = (
    "step,epoch,loss,positive_loss,negative_loss,lr,seconds\n1,0,2,1,1,0.1,1\n2,0,nan,1,1,0.1,1\n3,0,1,.5,.5,0,1\n"
)


def test_a_training_with_a_loss_that_is_no_number_is_drawn() -> None:
    keys, *rows = [line.split(",") for line in HISTORY.splitlines()]
    html = training_figure("train-v83", [dict(zip(keys, row, strict=True)) for row in rows], 1)
    Outline(html)
    assert "nan" not in html


def commit(store: Store, folder: Path, stage: str) -> InputRef:
    ref = InputRef(stage=stage, key="0" * 64)
    publish(store, ref, folder, run="r", attempt=1, summary={}, provenance={"python": "3"}, seconds=1.0)
    return ref


def download_output(folder: Path, truth: str | None) -> Path:
    sets = {}
    for name, ids in (("query_phase1", ["Q0", "Q1"]), ("reference", ["R0", "R1", "R2"])):
        data = BytesIO()
        Image.new("RGB", (40, 30), "navy").save(data, "PNG")
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        write_shard(folder / f"shards/{name}-00000.tar", [Picture(id_, "png", data.getvalue(), 40, 30) for id_ in ids])
        sets[name] = {"shards": [f"shards/{name}-00000.tar"], "count": len(ids)}
    (folder / "manifest.json").write_text(json.dumps({"sets": sets, "bad": 0}))
    (folder / "bad_images.csv").write_text("key,reason\n")
    if truth is not None:
        (folder / "ground_truth_phase1.csv").write_text(f"query_id,reference_id\n{truth}")
    return folder


def descriptor_output(folder: Path, name: str) -> Path:
    folder.mkdir()
    rows = np.eye(3, dtype=np.float32)
    write_descriptors(folder / name, Descriptors(["Q0", "Q1"], rows[:2]), Descriptors(["R0", "R1", "R2"], rows))
    return folder


def evaluated(tmp_path: Path, truth: str | None, inputs: tuple[str, ...]) -> tuple[list[str], str]:
    """Names of the rows in scores.json, and the report."""
    store = open_store(str(tmp_path / "store"))
    refs = {"download": commit(store, download_output(tmp_path / "download", truth), "download")}
    for name in inputs:
        if name.startswith("train-"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "history.csv").write_text(HISTORY)
        else:
            descriptor_output(tmp_path / name, "v107_iso.h5" if name == "postprocess" else "descriptors.h5")
        refs[name] = commit(store, tmp_path / name, name)
    settings = {"evaluate": {"compare": [], "results_per_query": 10, "gallery": 2}, "queries": "phase1"}
    spec = StageSpec(program="evaluate", stage="evaluate", key="1" * 64, run="r", attempt=1, store=store.uri,
                     settings=settings, inputs=refs, parameters={}, execution={})  # fmt: skip
    ctx = Context(spec, store, tmp_path / "work")
    evaluate.body(ctx)
    rows = json.loads((ctx.out / "scores.json").read_text())["rows"]
    return [row["name"] for row in rows], (ctx.out / "report.html").read_text("utf-8")


def test_the_stage_scores_every_input_there_is(tmp_path: Path) -> None:
    inputs = ("train-v83", "extract-untrained", "extract", "postprocess")
    names, html = evaluated(tmp_path, "Q0,R0\nQ1,R2\n", inputs)
    assert names == ["untrained", "v107", "postprocess"]
    Outline(html)
    for text in ("v107 + postprocess", "<h2>Matches</h2>", "<h2>Misses</h2>", "<h2>False matches</h2>", "train-v83"):
        assert text in html
    assert not re.search(r"https?://|@import|url\(", html)


@pytest.mark.parametrize(("most", "uap"), [(3, 0.25), (500_000, 0.25 + 0.5 * 2 / 6)])
def test_the_matching_track_s_cap_holds_for_descriptors_without_a_file_of_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, uap: float
) -> None:
    """Q0 is R0 (true) and Q1 is R1 (false), both of score 0; the cap leaves one more, which is not Q1 and R2 (true)."""
    monkeypatch.setattr(submission, "MAX_ROWS", most)
    evaluated(tmp_path, "Q0,R0\nQ1,R2\n", ("extract",))
    rows = json.loads((tmp_path / "work/out/scores.json").read_text())["rows"]
    assert rows[0]["matching"]["uap"] == pytest.approx(uap, abs=1e-5)


def test_without_ground_truth_the_report_says_so(tmp_path: Path) -> None:
    names, html = evaluated(tmp_path, None, ("extract", "postprocess"))
    assert names == []
    assert "no ground truth for the queries of phase 1" in html
    assert "<h2>Scores</h2>" not in html
