"""make fuzz: damaged inputs for every parser, by coverage, for a given time.

Each target runs in a process of its own, which begins again where the input ended it. What breaks a promise is kept
under .demo/fuzz/<target>/found, one input a kind, with what happened beside it.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contract import Target

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "unit")]
_LARGEST = 1 << 18  # bytes of an input
_SPACE = 6 << 30  # address space of a target's process
_HANG_S = 30  # of processor time for one input, after which SIGPROF ends the process
_PATIENCE_S = 300
_TURN_S = 90.0  # of a target, before the next has its turn


def main() -> int:
    """Fuzz all targets, or those named; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="over all targets")
    parser.add_argument("--out", type=Path, default=Path(".demo/fuzz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", help="used within: a target in this process")
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if arguments.one:
        return _fuzz_here(arguments.one, arguments.seconds, out / arguments.one, arguments.seed)
    names = arguments.targets
    if not names:
        from targets import all_targets

        names = list(all_targets())
    turn = min(_TURN_S, arguments.seconds / len(names))
    end, number = time.monotonic() + arguments.seconds, arguments.seed
    while time.monotonic() < end:
        for name in names:
            _fuzz_apart(name, min(turn, max(1.0, end - time.monotonic())), out, number)
        number += 1
        print(_table(out, names), flush=True)
    return int(any(_found(out / name) for name in names))


def _fuzz_apart(name: str, seconds: float, out: Path, seed: int) -> None:
    """For its time, beginning again as often as an input ends the process."""
    end = time.monotonic() + seconds
    (out / name).mkdir(parents=True, exist_ok=True)
    while (left := end - time.monotonic()) > 1:
        command = [sys.executable, __file__, "--one", name, "--seconds", str(left), "--out", out, "--seed", str(seed)]
        with (out / name / "log.txt").open("ab") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
            try:
                process.wait(left + _PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.returncode:
            _keep_what_ended_it(out / name, process.returncode)
        seed += 1_000


def _keep_what_ended_it(folder: Path, code: int) -> None:
    last = folder / "last"
    if last.exists():
        _keep(folder, last.read_bytes(), f"the process ended with {code} (below 0: by that signal)", f"ended {code}")
        last.unlink()


def _fuzz_here(name: str, seconds: float, folder: Path, seed: int) -> int:
    """One target for its time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder.mkdir(parents=True, exist_ok=True)
    sys.setrecursionlimit(1000)
    try:
        import atheris
    except ModuleNotFoundError:
        atheris = None
    if atheris is not None:
        with atheris.instrument_imports(include=["isc_jobs", "yaml", "PIL"]):
            from targets import find_target

            target = find_target(name)
    else:
        from targets import find_target

        target = find_target(name)
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))
    once = _Once(target, folder, time.monotonic() + seconds)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        once(data)
    if atheris is None:
        _by_chance(once, target.seeds(), seed)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if target.mutate is not None and rng.random() < 0.7:
            return target.mutate(data, rng)[:most]
        return bytes(atheris.Mutate(data, most))

    options = [f"-max_len={_LARGEST}", f"-seed={seed + 1}", f"-timeout={_PATIENCE_S}",
               f"-artifact_prefix={folder}/", "-rss_limit_mb=0", "-print_final_stats=0",
               f"-max_total_time={int(seconds) + 1}", "-len_control=0"]  # fmt: skip
    atheris.Setup([__file__, *options, str(corpus)], once, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def _by_chance(once: "_Once", seeds: list[bytes], seed: int) -> None:
    """Without coverage: damage to the seeds until the time is over."""
    import mutators

    rng = random.Random(seed)
    while True:
        once((once.target.mutate or mutators.of_bytes)(rng.choice(seeds), rng)[:_LARGEST])


class _Once:
    """Runs a target on an input; counts, and keeps what breaks a promise. Ends the process when the time is over."""

    def __init__(self, target: "Target", folder: Path, end: float) -> None:
        self.target, self._folder, self._end = target, folder, end
        self._count, self._written, self._began = 0, 0.0, time.monotonic()
        self._work = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"isc-jobs-fuzz-{os.getpid()}"
        shutil.rmtree(self._work, ignore_errors=True)  # of a process of this number that was killed

    def __call__(self, data: bytes) -> None:
        from contract import hold

        (self._folder / "last").write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, _HANG_S)
        try:
            hold(self.target, data, self._work, timed=True)
        except BaseException as error:
            kind = f"{type(error).__name__} {_place(error)}"
            _keep(self._folder, data, "".join(traceback.format_exception(error)), kind)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            shutil.rmtree(self._work, ignore_errors=True)
        self._count += 1
        now = time.monotonic()
        if now - self._written > 2 or now > self._end:
            _tally(self._folder, self._count, now - max(self._written, self._began))
            self._count, self._written = 0, now
        if now > self._end:
            (self._folder / "last").unlink()
            sys.stdout.flush()
            os._exit(0)


def _place(error: BaseException) -> str:
    """Where it was raised, to tell kinds apart."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fuzz/" not in frame.filename]
    inner = [frame for frame in frames if "isc_jobs" in frame.filename] or frames
    first = str(error).split(":")[0][:20] if type(error).__name__ == "Broken" else ""
    return f"{inner[-1].filename.rpartition('/')[2]}:{inner[-1].name} {first}" if inner else first


def _keep(folder: Path, data: bytes, what: str, kind: str) -> None:
    """The smallest input of each kind."""
    place = folder / "found" / hashlib.sha256(kind.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    before = place / "input"
    if not before.exists() or before.stat().st_size > len(data):
        before.write_bytes(data)
        (place / "what.txt").write_text(f"{kind}\n{what}", "utf-8", errors="replace")


def _tally(folder: Path, count: int, seconds: float) -> None:
    path = folder / "tally.json"
    before = json.loads(path.read_text()) if path.exists() else {"executions": 0, "seconds": 0.0}
    path.write_text(
        json.dumps({"executions": before["executions"] + count, "seconds": round(before["seconds"] + seconds, 1)})
    )


def _found(folder: Path) -> list[Path]:
    return sorted((folder / "found").glob("*/what.txt")) if (folder / "found").is_dir() else []


def _table(out: Path, names: list[str]) -> str:
    lines = [f"{'target':<20}{'executions':>12}{'seconds':>9}{'findings':>10}"]
    for name in names:
        path = out / name / "tally.json"
        tally = json.loads(path.read_text()) if path.exists() else {"executions": 0, "seconds": 0}
        found = _found(out / name)
        lines.append(f"{name:<20}{tally['executions']:>12,}{tally['seconds']:>9.0f}{len(found):>10}")
        lines += [f"    {path.read_text('utf-8').partition(chr(10))[0]}  ({path.parent})" for path in found]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
