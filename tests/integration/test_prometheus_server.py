"""Prometheus itself: alerts begin and end when they should, and every panel of the dashboard has an answer."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_watching import STATUS

from isc_jobs.controller.metrics import Metrics, serve

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "k8s/monitoring/rules.yaml").read_text())["spec"]
PANELS = json.loads((ROOT / "k8s/monitoring/dashboard.json").read_text())["panels"]
pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)
Labels = dict[str, str]


def series(name: str, labels: Labels, values: str) -> dict[str, str]:
    """What a metric of one stage said, a value a minute, in promtool's notation."""
    said = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{said}}}", "values": values}


def alert(minute: int, name: str, labels: Labels | None) -> dict[str, Any]:
    """Whether it is raised then, for these labels."""
    [rule] = [rule for group in RULES["groups"] for rule in group["rules"] if rule["alert"] == name]
    expected = []
    if labels is not None:
        texts = {}
        for key, text in rule["annotations"].items():
            for label, value in labels.items():
                text = text.replace(f"{{{{ $labels.{label} }}}}", value)  # noqa: PLW2901
            texts[key] = text
        expected = [{"exp_labels": labels | rule["labels"], "exp_annotations": texts}]
    return {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected}


def test_alerts_are_raised_when_they_should_be_and_not_before(tmp_path: Path) -> None:
    run, stage = {"run": "mine"}, {"run": "mine", "stage": "train-v83"}
    running, waits = {**stage, "state": "running"}, "isc_jobs_stage_waits"
    cases = [
        ([series("isc_jobs_run_state", {**run, "state": "failed"}, "0x9 1x20")],
         [alert(9, "IscJobsRunFailed", None), alert(10, "IscJobsRunFailed", run)]),
        ([series(waits, stage, "1x35 0x20")],
         [alert(29, "IscJobsStageWaits", None), alert(30, "IscJobsStageWaits", stage),
          alert(36, "IscJobsStageWaits", None)]),
        ([series("isc_jobs_stage_steps_done", stage, "0+5x20 100x60"), series(waits, stage, "0x80"),
          series("isc_jobs_stage_state", running, "1x80")],
         [alert(45, "IscJobsStageStandsStill", None), alert(51, "IscJobsStageStandsStill", stage)]),
        ([series("isc_jobs_stage_steps_done", stage, "100x80"), series(waits, stage, "1x80"),  # for want of a node
          series("isc_jobs_stage_state", running, "1x80")],
         [alert(75, "IscJobsStageStandsStill", None)]),
        ([series("isc_jobs_attempts_total", {**stage, "kind": "disruption"}, "0x9 1x9 2x9 3x60"),
          series("isc_jobs_attempts_total", {**stage, "kind": "finished"}, "0x90")],
         [alert(25, "IscJobsStageKeepsFailing", None), alert(45, "IscJobsStageKeepsFailing", stage)]),
        ([series("isc_jobs_attempts_total", {**stage, "kind": "finished"}, "0+1x60")],
         [alert(59, "IscJobsStageKeepsFailing", None)]),
    ]  # fmt: skip
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    tests = [{"interval": "1m", "input_series": given, "alert_rule_test": alerts} for given, alerts in cases]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    asked = {found["alertname"] for _, alerts in cases for found in alerts if found["exp_alerts"]}
    assert asked == {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    ran = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def prometheus(folder: Path, asks: int) -> Iterator[str]:
    """The address of a server that asks this port each second."""
    scrape = {"job_name": "isc-jobs", "static_configs": [{"targets": [f"127.0.0.1:{asks}"]}]}
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(
        {"global": {"scrape_interval": "1s"}, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
    ))  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}"],
            stdout=log, stderr=log,
        )  # fmt: skip
        yield f"http://{address}"
        server.terminate()
        assert server.wait(60) == 0


def asked(address: str, expression: str, seconds: float = 60) -> list[Any]:
    """What Prometheus answers once it has something to say."""
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    until = time.monotonic() + seconds
    found: list[Any] = []
    while not found and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:  # it is not up yet
            pass
        time.sleep(0.2)
    return found


def test_every_panel_of_the_dashboard_shows_something(tmp_path: Path) -> None:
    metrics, port = Metrics(), free_port()
    serve(metrics, port)
    progress = STATUS["stages"][1]["progress"] | {"loss": 0.25, "lr": 0.1}
    metrics.show(STATUS | {"stages": [STATUS["stages"][0], STATUS["stages"][1] | {"progress": progress}]})
    expressions = [target["expr"].replace("$run", ".*") for panel in PANELS for target in panel["targets"]]
    with prometheus(tmp_path, port) as address:
        for expression in expressions:
            found = asked(address, expression)
            assert {row["metric"]["run"] for row in found} == {"mine"}, expression
        share = asked(address, expressions[2])
    assert [float(row["value"][1]) for row in share] == [30 / 120]
