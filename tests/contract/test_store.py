"""Both stores keep the port's promises; S3 is a real server."""

import os
import urllib.request
from pathlib import Path

import pytest
from stores import s3, store

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import Conflict, NotFound, ObjectInfo, Store, open_store
from isc_jobs.store.artifacts import open_artifact, prefix, publish, read_commit, upload_file, verify_commit
from isc_jobs.store.checkpoints import load_latest, prune, save_checkpoint
from isc_jobs.store.listing import fetch_listing, keep_listing, read_listing, source_digest, write_listing
from isc_jobs.store.source import open_source

__all__ = ["s3", "store"]
REF = InputRef(stage="s", key="k" * 64)


def test_what_is_put_can_be_got_listed_and_deleted(store: Store) -> None:
    store.put("a/b.txt", b"one")
    store.put("a/c", b"")
    assert store.get("a/b.txt")[0] == b"one"
    assert [(info.key, info.size) for info in store.list("a/")] == [("a/b.txt", 3), ("a/c", 0)]
    store.delete("a/b.txt")
    store.delete("a/b.txt")
    assert store.stat("a/b.txt") is None
    with pytest.raises(NotFound):
        store.get("a/b.txt")


def test_a_link_opens_in_a_browser_which_has_no_rights_of_its_own(store: Store) -> None:
    store.put("runs/mine/report.html", b"<p>page</p>")
    with urllib.request.urlopen(store.link("runs/mine/report.html", "text/html", 60)) as answer:
        assert (answer.read(), answer.headers.get_content_type()) == (b"<p>page</p>", "text/html")


def test_if_none_match_lets_the_first_writer_win(store: Store) -> None:
    store.put("x", b"first", if_none_match=True)
    with pytest.raises(Conflict):
        store.put("x", b"second", if_none_match=True)
    assert store.get("x")[0] == b"first"


def test_if_match_refuses_a_lost_update(store: Store) -> None:
    old = store.put("x", b"1")
    new = store.put("x", b"2", if_match=old)
    with pytest.raises(Conflict):
        store.put("x", b"3", if_match=old)
    assert store.get("x") == (b"2", new)


def test_a_large_file_goes_up_and_down(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 33)
    store.upload("large", path)
    store.download("large", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    with pytest.raises(NotFound):
        store.download("absent", tmp_path / "none")


@pytest.mark.parametrize("key", ["", "../x", "a//b", "/a", "a/../b", "a b"])
def test_a_key_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(UsageError):
        store.put(key, b"")


def test_an_output_is_finished_once_its_commit_is_there(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_bytes(b"data")
    assert read_commit(store, REF) is None
    with pytest.raises(DataError, match="run that stage first"):
        open_artifact(store, REF, tmp_path)
    first = publish(store, REF, folder, run="r", attempt=1, summary={}, provenance={}, seconds=1)
    again = publish(store, REF, folder, run="r", attempt=2, summary={}, provenance={}, seconds=1)
    assert again == first == read_commit(store, REF)
    assert open_artifact(store, REF, tmp_path / "cache").path("sub/file").read_bytes() == b"data"


def test_an_output_may_hold_files_that_were_uploaded_before(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a", "c"):
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "b").write_text("b")
    entry = upload_file(store, prefix(REF), "sub/b", tmp_path / "b")
    commit = publish(
        store, REF, tmp_path / "out", run="r", attempt=1, summary={}, provenance={}, seconds=1, uploaded=[entry]
    )
    assert [file.name for file in commit.files] == ["a", "c", "sub/b"]
    assert verify_commit(store, commit)
    assert open_artifact(store, REF, tmp_path / "cache").path("sub/b").read_text() == "b"


def test_damage_and_loss_are_noticed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "file").write_bytes(b"data")
    commit = publish(store, REF, folder, run="r", attempt=1, summary={}, provenance={}, seconds=1)
    assert verify_commit(store, commit)
    store.put(f"artifacts/s/{REF.key}/file", b"DATA")
    with pytest.raises(DataError, match="is damaged"):
        open_artifact(store, REF, tmp_path / "cache").path("file")
    store.delete(f"artifacts/s/{REF.key}/file")
    assert not verify_commit(store, commit)


def test_the_newest_whole_checkpoint_is_loaded(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    for step in (1, 2, 3):
        (folder / "state").write_bytes(b"%d" % step)
        save_checkpoint(store, "k", step, folder)
    store.put("checkpoints/k/step-000000003/state", b"damaged")
    assert load_latest(store, "k", tmp_path / "in") == 2
    assert (tmp_path / "in/state").read_bytes() == b"2"
    assert "step 3 is damaged" in caplog.text
    prune(store, "k", 1)
    assert {info.key.split("/")[2] for info in store.list("checkpoints/k/")} == {"step-000000003"}


def test_a_source_is_listed_and_read(store: Store, tmp_path: Path) -> None:
    store.put("set/train_images/a.jpg", b"1")
    source = open_source(f"{store.uri}/set")
    assert [info.key for info in source.list()] == ["train_images/a.jpg"]
    assert source.read("train_images/a.jpg") == b"1"
    before = source_digest(source, tmp_path / "listing")
    assert list(read_listing(tmp_path / "listing")) == list(source.list())
    store.put("set/train_images/b.jpg", b"2")
    assert source_digest(source, tmp_path / "listing") != before
    store.put("photos/c.jpg", b"3")
    with pytest.raises(UsageError, match="holds no folder train_images/ or reference_images/"):
        source_digest(open_source(f"{store.uri}/photos"), tmp_path / "listing")


def test_a_listing_is_kept_once_and_a_damaged_one_is_not_used(store: Store, tmp_path: Path) -> None:
    infos = [ObjectInfo("a/tab\t, line\n, \udcff and %", 3, '"etag"'), ObjectInfo("b", 0, "2")]
    path, again = tmp_path / "listing", tmp_path / "again"
    digest = write_listing(iter(infos), path)
    assert not fetch_listing(store, digest, again)
    keep_listing(store, digest, path)
    assert fetch_listing(store, digest, again)
    assert list(read_listing(again)) == infos
    write_listing(infos[:1], path)
    keep_listing(store, digest, path)  # there already, and not written again
    assert fetch_listing(store, digest, again)
    whole = again.read_bytes()
    for damaged in (path.read_bytes(), whole[:-9], whole[:30] + b"xx" + whole[32:], b"none"):
        store.put(f"listings/{digest}.tsv.gz", damaged)
        assert not fetch_listing(store, digest, again)


def test_a_wrong_address_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for uri in ("ftp://x", str(tmp_path / "file")):
        with pytest.raises(UsageError):
            open_store(uri)
    for uri in ("ftp://x", str(tmp_path / "absent")):
        with pytest.raises(UsageError):
            open_source(uri)
    with pytest.raises(UsageError, match="is empty"):
        source_digest(open_source(str(tmp_path / "empty")), tmp_path / "listing")
