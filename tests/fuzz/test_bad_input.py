"""Whatever comes in, a parser returns or says in a sentence what is wrong; see contract.py for all that it promises."""

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import mutators
import pytest
from contract import Broken, hold, watched
from corpus import CASES, Case
from targets import all_targets, find_target

_TRIES = int(os.environ.get("FUZZ_TRIES", "25"))  # damaged inputs of each target


@pytest.mark.parametrize("case", CASES, ids=[f"{case.target}: {case.name[:60]!a}" for case in CASES])
def test_a_bad_input_is_refused_in_a_sentence_or_passed_over(case: Case, tmp_path: Path) -> None:
    error = hold(find_target(case.target), case.make(), tmp_path / "work")
    assert (error and error.exit_code) == case.code, error
    assert case.said in str(error or "")


@pytest.mark.parametrize("name", list(all_targets()))
def test_a_small_valid_input_is_taken(name: str, tmp_path: Path) -> None:
    if name in {"lease", "names"}:
        pytest.skip("another controller holds the one, and the other's run is not there")
    target = find_target(name)
    seeds = target.seeds()
    taken = [hold(target, data, tmp_path / str(number)) is None for number, data in enumerate(seeds)]
    assert taken[0]
    assert sum(taken) >= len(taken) / 2


@pytest.mark.parametrize("name", list(all_targets()))
def test_damage_of_any_kind_breaks_no_promise(name: str, tmp_path: Path) -> None:
    target = find_target(name)
    rng, seeds = random.Random(name), target.seeds()
    for number in range(_TRIES):
        mutate = target.mutate if target.mutate is not None and rng.random() < 0.7 else mutators.of_bytes
        data = mutate(rng.choice(seeds), rng)
        try:
            hold(target, data, tmp_path / str(number))
        except BaseException:
            (tmp_path / "input").write_bytes(data)
            print(f"the input is {tmp_path / 'input'}")
            raise


def _write_beside(folder: Path) -> None:
    (folder.parent / "outside").write_bytes(b"")


def _write_beside_and_say_nothing(folder: Path) -> None:
    with contextlib.suppress(Broken):
        _write_beside(folder)


def _rename(folder: Path) -> None:
    folder.rename(folder.parent / "other")


def _start(_: Path) -> None:
    os.system("true")


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (_write_beside, "writes outside its folder: open"),
        (_write_beside_and_say_nothing, "writes outside its folder: open"),
        (_rename, "writes outside its folder: os.rename"),
        (_start, "starts something: os.system"),
    ],
)
def test_the_contract_sees_what_it_forbids(act: Callable[[Path], None], what: str, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(Broken, match=what), watched(folder):
        act(folder)
    assert list(tmp_path.iterdir()) == [folder]
