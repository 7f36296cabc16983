"""A benchmark from a folder of pictures: disjoint parts, true pairs, the same again for the same seed."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isc_jobs.datasets.edits import edit
from isc_jobs.datasets.make import make_dataset
from isc_jobs.spec.errors import UsageError

PHOTOS = Path(__file__).parents[2] / "examples/photos"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photos in folders, a file that is none, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep/er").mkdir(parents=True)
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[:30]):
        shutil.copy(path, folder / "deep/er" / path.name if number % 3 else folder / path.name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("nor this")
    return folder


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    counts = make_dataset(photos, out, seed=0)
    assert counts == {"training_images": 12, "references": 15, "queries_phase1": 18, "queries_phase2": 21, "bad": 1}
    return out


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pictures_are_copied_unchanged_into_disjoint_parts(made: Path, photos: Path) -> None:
    sources = {id_: photos / name for id_, name in rows(made / "sources.csv")}
    assert len(set(sources.values())) == 27  # a tenth is only the origin of queries without a match
    for path in [*(made / "train_images").iterdir(), *(made / "reference_images").iterdir()]:
        assert path.read_bytes() == sources[path.stem].read_bytes()


def test_every_query_has_a_row_and_some_have_no_match(made: Path) -> None:
    references = {path.stem for path in (made / "reference_images").iterdir()}
    originals = []
    for phase, folder in (("phase1", "query_images"), ("phase2", "query_images_phase2")):
        truth = rows(made / f"ground_truth_{phase}.csv")
        assert {row[0] for row in truth} == {path.stem for path in (made / folder).iterdir()}
        named = {row[1] for row in truth}
        assert "" in named
        originals.append(named - {""})
        assert originals[-1] < references
    assert not originals[0] & originals[1]  # what is scored was never trained as a pair


def test_the_same_seed_makes_the_same_bytes_and_another_other_ones(made: Path, photos: Path, tmp_path: Path) -> None:
    make_dataset(photos, tmp_path / "same", seed=0)
    assert contents(tmp_path / "same") == contents(made)
    make_dataset(photos, tmp_path / "other", seed=1)
    assert contents(tmp_path / "other") != contents(made)


def test_a_finished_set_is_kept_and_another_folder_is_not_overwritten(
    made: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(made)
    assert make_dataset(photos, made, seed=0)["bad"] == 1
    assert "kept" in capsys.readouterr().out
    with pytest.raises(UsageError, match="not empty"):
        make_dataset(photos, made, seed=1)
    assert contents(made) == before
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        make_dataset(photos, tmp_path, seed=0)


def test_too_few_pictures_are_refused_with_their_number(photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(UsageError, match=r"holds 0 usable pictures \(0 bad\): at least 20"):
        make_dataset(few, tmp_path / "out", seed=0)
    for path in sorted((photos / "deep/er").iterdir())[:19]:
        shutil.copy(path, few)
    with pytest.raises(UsageError, match="holds 19 usable pictures"):
        make_dataset(few, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_edits_change_a_picture_and_repeat() -> None:
    image, other = (Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))[:2])
    for seed in range(40):
        edited = edit(image, other, seed)
        assert edited.mode == "RGB"
        assert max(edited.size) <= 512
        assert min(edited.size) >= 1
        again = edit(image, other, seed)
        np.testing.assert_array_equal(np.asarray(edited), np.asarray(again))
        assert edited.size != image.size or np.any(np.asarray(edited) != np.asarray(image))
