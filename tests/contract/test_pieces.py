"""Pieces are shared, kept and taken over in either store."""

from pathlib import Path

import pytest
from stores import s3, store

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.stage import StageSpec
from isc_jobs.stages.pieces import Piece, Pieces
from isc_jobs.stages.runner import Context
from isc_jobs.store import Store

__all__ = ["s3", "store"]
NAMES = ["a-0", "a-1", "b-0"]


def pieces(
    store: Store,
    tmp_path: Path,
    part: int = 0,
    parts: int = 1,
    attempt: int = 1,
    *,
    final: bool = False,
    run: str = "r",
) -> Pieces:
    spec = StageSpec(
        program="extract", stage="s", key="k", run=run, attempt=attempt, store=store.uri, settings={}, inputs={},
        parameters={}, execution={},
    )  # fmt: skip
    work = tmp_path / f"work-{run}-{attempt}-{part}"
    return Pieces(Context(spec, store, work, part=part, parts=parts), NAMES, final=final)


def make(part: Pieces) -> None:
    for name in sorted(part.mine):
        part.path(f"f/{name}").write_text(name * 3)
        part.keep(name, [f"f/{name}"], {"of": name})


def contents(part: Pieces, found: list[Piece] | None) -> list[str]:
    assert found is not None
    assert [piece.result for piece in found] == [{"of": name} for name in NAMES]
    return [path.read_text() for piece in found for path in part.fetch(piece)]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_last_part_sees_all_pieces_in_order(store: Store, tmp_path: Path, parts: int) -> None:
    shared = [pieces(store, tmp_path, part, parts) for part in range(parts)]
    for part in shared[:-1]:
        if part.mine:
            assert part.all() is None
        make(part)
    make(shared[-1])
    assert contents(shared[-1], shared[-1].all()) == [name * 3 for name in NAMES]


def test_outputs_go_to_their_place_and_leave_this_machine(store: Store, tmp_path: Path) -> None:
    part = pieces(store, tmp_path, final=True)
    make(part)
    assert [info.key for info in store.list("artifacts/")] == [f"artifacts/s/k/f/{name}" for name in NAMES]
    assert [info.key for info in store.list("checkpoints/")] == [f"checkpoints/k/{name}.json" for name in NAMES]
    assert not part.path("f/a-0").exists()
    again = pieces(store, tmp_path, attempt=2, final=True)
    assert all(again.recall(name) for name in NAMES)
    assert not again.path("f/a-0").exists()
    found = again.all()
    assert found is not None
    assert [entry.name for piece in found for entry in piece.files] == [f"f/{name}" for name in NAMES]


def test_a_piece_counts_once_a_part_of_this_attempt_has_made_or_verified_it(store: Store, tmp_path: Path) -> None:
    make(pieces(store, tmp_path))
    first, second = (pieces(store, tmp_path, part, 2, attempt=2) for part in range(2))
    assert first.recall("a-0") is not None
    assert first.recall("b-0") is not None
    assert first.all() is None
    store.put("checkpoints/k/f/a-1", b"damaged")
    assert second.recall("a-1") is None
    make(second)
    assert contents(first, first.all()) == contents(second, second.all()) == [name * 3 for name in NAMES]


def test_damage_after_verification_is_an_error_of_whoever_fetches(store: Store, tmp_path: Path) -> None:
    first, second = (pieces(store, tmp_path, part, 2) for part in range(2))
    make(first)
    make(second)
    store.put("checkpoints/k/f/a-0", b"damaged")
    found = second.all()
    assert found is not None
    with pytest.raises(DataError, match="checkpoints/k/f/a-0: SHA-256 is"):
        second.fetch(found[0])


def test_two_runs_that_share_a_key_do_not_starve_each_other(store: Store, tmp_path: Path) -> None:
    runs = {run: [pieces(store, tmp_path, part, 2, run=run) for part in range(2)] for run in ("a", "b")}
    make(runs["a"][0])
    make(runs["b"][0])  # over a's markers
    make(runs["b"][1])
    make(runs["a"][1])
    for parts in runs.values():
        assert contents(parts[1], parts[1].all()) == [name * 3 for name in NAMES]
