"""The reference pages are those of this code; what pages point to is there."""

import re
from pathlib import Path

import pytest
import yaml
from commands import PHOTOS, isc_jobs
from reference import PAGES

from isc_jobs.spec.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_that_of_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == PAGES[name](), "run make docs"


def test_the_settings_page_has_every_section_and_no_python_in_its_types() -> None:
    page = (ROOT / "docs/settings.md").read_text("utf-8")
    assert [name for name in Settings.model_fields if f"\n## {name}\n" not in page] == []
    assert not re.search(r"typing|<class|\[int|NoneType", page)


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = re.findall(r"[\w-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == [path.name for path in DOCS]


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS], ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_profile_for_one_gpu_fits_it(tmp_path: Path) -> None:
    """As the page has it, by the page's own command."""
    page = (ROOT / "docs/own-data.md").read_text("utf-8")
    [profile] = re.findall(r"```yaml\n# mine.yaml\n(.*?)```", page, re.DOTALL)
    [line] = re.findall(r"^isc-jobs (estimate --profile mine.yaml .*)$", page, re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(profile)
    made = isc_jobs("dataset", "make", PHOTOS, "--out", tmp_path / "my-benchmark")
    assert made.returncode == 0, made.stderr
    for name in ("mine.yaml", "my-benchmark"):
        line = line.replace(name, str(tmp_path / name))
    said = isc_jobs(*line.split())
    assert said.returncode == 0, said.stderr
    assert "take more GPUs" not in said.stdout + said.stderr
    assert "train-v107" in said.stdout
