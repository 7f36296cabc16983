"""Pages as a real browser shows them: styled under their own policy, light and dark, wide and narrow."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from isc_jobs.report.life import life_page
from isc_jobs.report.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
BACKGROUND = {"light": (0xFA, 0xF9, 0xF7), "dark": (0x13, 0x15, 0x19)}
STATUS = {
    "run": "mine", "state": "running", "reason": "",
    "stages": [
        {"stage": "train-v83", "state": "running", "attempt": 1, "attempts": [], "where": "pod " + "a" * 90,
         "progress": {"step": 3, "total": 9, "rate": 0.5, "eta_s": 12.0, "line": "from step 0"}},
    ],
}  # fmt: skip
HISTORY = [
    {"step": str(step), "loss": str(1 / step), "positive_loss": ".1", "negative_loss": ".2", "lr": ".1"}
    for step in range(1, 40)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(life_page(STATUS, [], {"train-v83": HISTORY}, None), "utf-8")
    return path


def browse(file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={file.parent / 'profile'}", *options, file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_has_its_own_colours_and_lines_of_the_curves(file: Path, scheme: str, width: int) -> None:
    shot = file.parent / f"{scheme}-{width}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(file, f"--screenshot={shot}", f"--window-size={width},1600", "--hide-scrollbars", *dark)
    with Image.open(shot) as image:
        seen = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
        corners = [image.convert("RGB").getpixel((x, 5)) for x in (2, image.width - 3)]
    assert corners == [BACKGROUND[scheme]] * 2
    line = {"light": (0x94, 0x62, 0x00), "dark": (0xE2, 0xB3, 0x3C)}[scheme]
    assert line in seen


def test_nothing_is_refused_by_the_pages_own_policy_and_a_script_would_be(file: Path) -> None:
    def refused(path: Path) -> list[str]:
        said = browse(path, "--dump-dom", "--enable-logging=stderr").stderr
        return re.findall(r"Content Security Policy", said)

    assert refused(file) == []
    evil = file.parent / "evil.html"
    evil.write_text(page("t", [], [], []).replace("</main>", "<script>document.title='ran'</script></main>"))
    assert refused(evil)
    assert "<title>t</title>" in browse(evil, "--dump-dom").stdout
