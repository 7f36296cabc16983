"""Many runs in one namespace at once: what each controller asks of the API server and of S3, its memory and CPU time.

Controllers are processes with the real loop, launcher, API server (KUBECONFIG) and S3 server (AWS_ENDPOINT_URL_S3).
Their pods ask for a node that is not there; a stub says in the pods' status that they run, and, when all runs have had
theirs running for a while, commits the stage and says that they have ended. To have 200 on a small machine they are
forked from one process that has imported all: their own memory is what is private to each. One of them besides is a
process of its own, as ``isc-jobs resume`` starts it.
"""

import argparse
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config
from load_stub import LAST, Load, Stub
from sent_requests import SentRequests, of_others, recurs, totals

from isc_jobs.commands.runs import cancel
from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.launchers import make_launcher, policy_of
from isc_jobs.controller.manifest import Manifest, ManifestFile
from isc_jobs.controller.request import pipeline_of
from isc_jobs.controller.run import Controller
from isc_jobs.controller.status import run_status
from isc_jobs.store import open_store
from isc_jobs.store.s3 import s3_client

WATCHED = "train-v83"  # the stage whose requests a minute count: all runs are in it at once
SETTLED_S = 20.0  # after which a stage's pods are quiet


def fork(act: Callable[[], None], said: Path) -> int:
    """Do it in a process of its own, which writes to ``said``; its id."""
    pid = os.fork()
    if pid:
        return pid
    with said.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    code = 1
    try:
        act()
        code = 0
    except Exception:  # noqa: BLE001 - nobody else would say it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def control(load: Load, number: int) -> None:
    """Be the controller of a run."""
    notes = SentRequests(load.namespace)
    asked = load.request(number)
    with notes.noting():
        store = open_store(load.store)
        code = Controller(store, asked, None, lambda fenced: make_launcher(fenced, asked), policy_of(asked)).run()
    load.write(f"run-{number}", {"code": code, "cpu": time.process_time(), "sent": notes.as_json()})


def show(load: Load, name: str, act: Callable[[], object]) -> None:
    """What a command asks, as of a user beside the controllers."""
    notes = SentRequests(load.namespace)
    with notes.noting():
        act()
    load.write(name, {"sent": notes.as_json()})


def memory(pid: int) -> dict[str, float]:
    """MB of a process by name: Rss, Private_Dirty and so on."""
    found: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, size, _ = line.split()
        found[name.rstrip(":")] += int(size)
    return {name: size / 1024 for name, size in found.items()}


def own_process(load: Load) -> "subprocess.Popen[bytes]":
    """The controller of the last run, started as ``isc-jobs resume`` is."""
    request = load.request(load.runs - 1)
    keys = {stage.name: stage.key for stage in pipeline_of(request)}
    ManifestFile(open_store(load.store), Manifest(request=request, stages=keys, state="interrupted", epoch=0))
    command = [sys.executable, "-m", "isc_jobs.controller", "resume", request.run, "--store", load.store]
    with (load.folder / "said-own.txt").open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


def measure(load: Load, pace: float) -> str:
    """Begin all runs, look at them in the watched stage, end them; a Markdown row."""
    said = load.folder / "said.txt"
    pids = [fork(lambda: Stub(load).run(), load.folder / "said-stub.txt")]
    for number in load.forked:
        pids.append(fork(lambda number=number: control(load, number), said))  # type: ignore[misc]
        time.sleep(pace)
    own = own_process(load) if load.runs > 1 else None
    await_(lambda: load.read(f"all-{WATCHED}") or died(pids[0]), "all runs are in the watched stage")
    time.sleep(SETTLED_S)
    forked = [memory(pid)["Private_Dirty"] for pid in pids[1:]]
    resident = memory(own.pid)["Rss"] if own else 0.0
    pids.append(fork(lambda: show(load, "status", lambda: run_status(open_store(load.store), "load-0")), said))
    await_(lambda: load.read(f"all-{LAST}" if load.runs > 1 else "status") or died(pids[0]), "the last stage")
    if load.runs > 1:
        wish = argparse.Namespace(store=load.store, run="load-0")
        pids.append(fork(lambda: show(load, "cancel", lambda: cancel(wish)), said))
    for pid in pids[1:]:
        os.waitpid(pid, 0)
    load.write("over", {})
    os.waitpid(pids[0], 0)
    return row(load, forked, resident, [own.wait()] if own else [])


def died(pid: int) -> bool:
    """Whether a child has gone; raises SystemExit then."""
    if os.waitpid(pid, os.WNOHANG) != (0, 0):
        sys.exit("the stub has died: see said-stub.txt")
    return False


def await_(look: Callable[[], object], what: str, seconds: float = 1800) -> None:
    """Until it is so."""
    until = time.monotonic() + seconds
    while not look():
        if time.monotonic() > until:
            sys.exit(f"waited {seconds} s in vain: {what}")
        time.sleep(1)


def row(load: Load, forked: list[float], resident: float, own_codes: list[int]) -> str:
    """Of all controllers the mean, and the most in brackets."""
    begun = load.read(f"all-{WATCHED}") + SETTLED_S
    minutes = (load.seconds - SETTLED_S) / 60
    found = {number: load.read(f"run-{number}") for number in load.forked}
    codes = Counter([*own_codes, *(run["code"] for run in found.values() if run)])
    rates: dict[str, list[float]] = {"API": [], "S3": [], "cpu": [], "bytes": []}
    whole: dict[str, list[float]] = {"API": [], "S3": []}
    strangers: list[str] = []
    for number, run in found.items():
        sent = run["sent"]
        steady = [one for one in sent if begun <= one["time"] <= begun + 60 * minutes]
        for server in ("API", "S3"):
            rates[server].append(sum(totals(steady, server).values()) / minutes)
        rates["bytes"].append(sum(one["answered"] for one in steady) / minutes / 1000)
        rates["cpu"].append((steady[-1]["cpu"] - steady[0]["cpu"]) / (steady[-1]["time"] - steady[0]["time"]) * 3600)
        if run["code"] == 0:
            changes = [one for one in sent if not recurs(one)]
            for server in ("API", "S3"):
                whole[server].append(sum(totals(changes, server).values()) / len(load.pipeline(number)))
        strangers += of_others(sent, f"load-{number}", [stage.key for stage in load.pipeline(number)])
    load.write("strangers", strangers)
    asked = [len((load.read(name) or {"sent": ()})["sent"]) for name in ("status", "cancel")]
    figures = [shown(values) for values in (rates["API"], rates["S3"], rates["bytes"], whole["API"], whole["S3"],
                                           rates["cpu"], forked)]  # fmt: skip
    ended = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    cells = [str(load.runs), *figures, f"{resident:.0f}", *map(str, asked), str(len(strangers)), ended]
    return f"| {' | '.join(cells)} |"


def shown(values: list[float]) -> str:
    """The mean and the most."""
    return f"{statistics.mean(values):.1f} ({max(values):.1f})" if values else "-"


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """One of our own, with the account that pods of stages have."""
    core: Any = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": name}})
    core.create_namespaced_service_account(name, {"metadata": {"name": "isc-jobs-stage"}})
    try:
        yield
    finally:
        core.delete_namespace(name)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 20, 200])
    parser.add_argument("--seconds", type=float, default=80, help="that pods run, once all do")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds from one controller's start to the next")
    parser.add_argument("--folder", type=Path, help="keep what was measured here")
    arguments = parser.parse_args()
    load_config: Any = config.load_kube_config
    load_config()
    Api("default")  # imports what is imported when it is first needed, which forks then share
    gc.freeze()
    bucket = f"load-{uuid.uuid4().hex[:8]}"
    s3_client().create_bucket(Bucket=bucket)
    print("| runs | API requests a minute | S3 requests a minute | answers, kB a minute | API requests a stage "
          "| S3 writes and lists a stage | CPU s an hour | own memory, MB | RSS of one process, MB | status asks "
          "| cancel asks | of others | exit codes |\n|" + "---|" * 13, flush=True)  # fmt: skip
    for runs in arguments.runs:
        with contextlib.ExitStack() as stack:
            folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place = folder / f"runs-{runs}"
            place.mkdir(parents=True)
            name = f"isc-load-{runs}-{uuid.uuid4().hex[:6]}"
            stack.enter_context(namespace(name))
            print(
                measure(Load(runs, arguments.seconds, name, f"s3://{bucket}/{name}", place), arguments.pace), flush=True
            )


if __name__ == "__main__":
    main()
