"""Shards are plain tars, the same to the bit every time, read at random by their index."""

import json
import multiprocessing
import tarfile
from pathlib import Path

import pytest

from isc_jobs.spec.errors import DataError
from isc_jobs.vision.shards import Picture, ShardSet, read_index, write_shard

PICTURES = [Picture(f"T{n:06d}", "jpg", bytes([n]) * (500 * n + 1), n + 1, 2 * n + 1) for n in range(7)]


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "shards").mkdir()
    names = ["shards/train-00000.tar", "shards/train-00001.tar", "shards/train-00002.tar"]
    for name, part in zip(names, (PICTURES[:3], [], PICTURES[3:]), strict=True):  # a shard may be all bad
        write_shard(tmp_path / name, part)
    (tmp_path / "manifest.json").write_text(json.dumps({"sets": {"train": {"shards": names, "count": 7}}}))
    return Folder(tmp_path)


def test_every_picture_is_read_back_by_position_and_ids_are_sorted(folder: Folder) -> None:
    images = ShardSet(folder, "train")
    assert len(images) == 7
    assert images.ids == sorted(picture.id for picture in PICTURES)
    assert [images.read(index) for index in (6, 0, 3, 2, 5, 1, 4)] == [PICTURES[i].data for i in (6, 0, 3, 2, 5, 1, 4)]


def test_positions_count_from_the_end_as_in_a_list_and_none_is_beyond(folder: Folder) -> None:
    images = ShardSet(folder, "train")
    assert [images.read(-n) for n in range(1, 8)] == [picture.data for picture in reversed(PICTURES)]
    for index in (7, -8):
        with pytest.raises(IndexError):
            images.read(index)


def test_a_set_that_the_data_lack_is_empty(folder: Folder) -> None:
    assert len(ShardSet(folder, "query_phase2")) == 0


def test_any_tar_reader_reads_a_shard_and_nothing_of_the_machine_is_in_it(folder: Folder) -> None:
    path = folder.path("shards/train-00000.tar")
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        contents = [tar.extractfile(member) for member in members]
        assert [file.read() for file in contents if file] == [picture.data for picture in PICTURES[:3]]
    assert [member.name for member in members] == ["T000000.jpg", "T000001.jpg", "T000002.jpg"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    again = folder.path("again.tar")
    write_shard(again, PICTURES[:3])
    assert again.read_bytes() == path.read_bytes()


def test_the_index_holds_offset_size_width_and_height(folder: Folder) -> None:
    rows = read_index(folder.path("shards/train-00002.csv"))
    data = folder.path("shards/train-00002.tar").read_bytes()
    assert [data[row.offset : row.offset + row.size] for row in rows] == [picture.data for picture in PICTURES[3:]]
    assert [(row.width, row.height) for row in rows] == [(4, 7), (5, 9), (6, 11), (7, 13)]


def _read_all(images: ShardSet) -> list[bytes]:
    return [images.read(index) for index in range(len(images))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_processes_read_what_their_parent_opened(folder: Folder, method: str) -> None:
    images = ShardSet(folder, "train")
    expected = _read_all(images)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_read_all, [images] * 4) == [expected] * 4


def test_a_cut_shard_and_a_wrong_index_are_refused(folder: Folder) -> None:
    images = ShardSet(folder, "train")
    path = folder.path("shards/train-00002.tar")
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match="ends early"):
        images.read(6)
    for content in ("id,member\na,b\n", "id,member,offset,size,width,height\na,b,x,1,1,1\n"):
        path.with_suffix(".csv").write_text(content)
        with pytest.raises(DataError, match="is no shard index"):
            ShardSet(folder, "train")
