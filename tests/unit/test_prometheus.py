"""What Prometheus gets is the run's status, under the documented names."""

import json
import re
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import promql_parser
import pytest
import yaml
from commands import command
from test_watching import STATUS

from isc_jobs.controller.metrics import Metrics, serve
from isc_jobs.spec.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answer(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as said:
        return str(said.read().decode())


def test_states_attempts_and_progress_are_answered(port: int) -> None:
    metrics = Metrics()
    serve(metrics, port)
    assert answer(port) == ""
    progress = STATUS["stages"][1]["progress"] | {"loss": 0.25, "lr": 0.1}
    stages = [STATUS["stages"][0], STATUS["stages"][1] | {"progress": progress, "waits": "Unschedulable"}]
    metrics.show(STATUS | {"stages": stages})
    said = {parsed(line) for line in answer(port).splitlines() if not line.startswith("#")}
    for line in (
        'isc_jobs_run_state{run="mine",state="running"} 1.0',
        'isc_jobs_run_state{run="mine",state="failed"} 0.0',
        'isc_jobs_stage_state{run="mine",stage="train-v83",state="running"} 1.0',
        'isc_jobs_stage_waits{run="mine",stage="train-v83"} 1.0',
        'isc_jobs_stage_duration_seconds{run="mine",stage="download"} 12.5',
        'isc_jobs_attempts_total{kind="disruption",run="mine",stage="train-v83"} 1.0',
        'isc_jobs_attempts_total{kind="user",run="mine",stage="train-v83"} 0.0',
        'isc_jobs_stage_steps_done{run="mine",stage="train-v83"} 30.0',
        'isc_jobs_stage_seconds_left{run="mine",stage="train-v83"} 45.0',
        'isc_jobs_training_loss{run="mine",stage="train-v83"} 0.25',
    ):
        assert parsed(line) in said


def parsed(line: str) -> tuple[str, frozenset[str], float]:
    """Name, labels and value."""
    name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
    return name, frozenset(labels.split(",")), float(value)


def names() -> set[str]:
    """Of all metrics, as Prometheus knows them."""
    metrics = Metrics()
    metrics.show(STATUS)
    return {family.name + ("_total" if family.type == "counter" else "") for family in metrics.collect()}


def test_every_expression_is_prometheus_own() -> None:
    groups = yaml.safe_load((ROOT / "k8s/monitoring/rules.yaml").read_text())["spec"]["groups"]
    panels = json.loads((ROOT / "k8s/monitoring/dashboard.json").read_text())["panels"]
    found = [rule["expr"] for group in groups for rule in group["rules"]]
    found += [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(found) > 10
    for expression in found:
        promql_parser.parse(expression)


def test_dashboard_rules_and_documentation_name_metrics_that_exist() -> None:
    used = re.compile(r"\bisc_jobs_[a-z_]+")
    for path in ("k8s/monitoring/rules.yaml", "k8s/monitoring/dashboard.json"):
        found = set(used.findall((ROOT / path).read_text()))
        assert found
        assert found <= names()
    assert names() <= set(used.findall((ROOT / "docs/monitoring.md").read_text()))


def test_who_asks_hears_how_the_run_ended_before_the_controller_goes(port: int) -> None:
    metrics = Metrics()
    serve(metrics, port)
    metrics.show(STATUS | {"state": "failed"})
    metrics.linger(60)  # nobody asks: it does not wait
    metrics = Metrics()
    metrics.show(STATUS)
    list(metrics.collect())
    metrics.show(STATUS | {"state": "failed"})
    waiting = threading.Thread(target=metrics.linger, args=(60,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    list(metrics.collect())
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_port_that_is_taken_is_said(port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        with pytest.raises(UsageError, match=f"--metrics-port {port}: "):
            serve(Metrics(), port)


def test_the_command_of_a_run_that_ended_knows_how(tmp_path: Path) -> None:
    data, told = tmp_path / "data", tmp_path / "told"
    (data / "train_images").mkdir(parents=True)
    (data / "train_images/a.jpg").write_text("no picture")
    hook = f'echo "$ISC_JOBS_RUN $ISC_JOBS_STATE: $ISC_JOBS_REASON" > {told}; exit 3'
    ran = subprocess.run(
        command("run-all", "--profile", "demo", "--source", data, "--store", tmp_path / "store", "--run", "mine",
                "--on-end", hook),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 65
    assert "the command of --on-end ended with exit code 3" in ran.stderr
    assert told.read_text().startswith("mine failed: ")
    assert told.read_text().rstrip().endswith("train_images/a.jpg: no known image format")
