"""The command that says what a run will take, without running it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from isc_jobs.spec.errors import ExitCode

if TYPE_CHECKING:
    from isc_jobs.estimate.cost import Prices
    from isc_jobs.estimate.goodput import Goodput
    from isc_jobs.estimate.machine import Machine
    from isc_jobs.estimate.predict import Prediction
    from isc_jobs.estimate.work import DataSize
    from isc_jobs.spec.settings import Settings


def estimate(arguments: argparse.Namespace) -> int:
    """Print hours, GPU hours, storage, requests and cost of each stage, and what failures cost if rates are given."""
    from isc_jobs.estimate.cost import cost_of, run_months
    from isc_jobs.estimate.machine import on_nodes
    from isc_jobs.estimate.predict import predict_run
    from isc_jobs.estimate.report import as_json, as_text, heading, warnings_of
    from isc_jobs.estimate.tables import load_tables
    from isc_jobs.spec.profile import load_settings

    settings = load_settings(arguments.profile, arguments.overrides)
    settings = on_nodes(settings, arguments.nodes, arguments.gpus_per_node, arguments.cores_per_node)
    machine, tables = _machine(arguments, settings.cluster.stages.train.gpus), load_tables()
    data = _data(arguments, settings.data.shard_megabytes)
    predictions = predict_run(settings, data, machine, tables)
    months = run_months(predictions) if arguments.months is None else arguments.months
    costs = [cost_of(prediction, _prices(arguments), months) for prediction in predictions]
    goodput = _goodput(arguments, predictions, settings, data, machine)
    warnings = warnings_of(predictions, settings, machine, tables)
    if arguments.json:
        print(json.dumps(as_json(predictions, costs, goodput, warnings), indent=1))
    else:
        lines = heading(Path(arguments.profile).stem, settings, machine, tables)
        print(as_text(predictions, costs, goodput, lines, warnings))
    return int(ExitCode.OK)


def _machine(arguments: argparse.Namespace, gpus: int) -> "Machine":
    from isc_jobs.estimate.machine import Machine

    return Machine(
        gpu=arguments.gpu if gpus else None, gpus_per_node=max(1, gpus), store_gbit_per_s=arguments.store_gbit,
        network_gbit_per_s=arguments.network_gbit, disk_gb_per_s=arguments.disk_mb / 1000,
    )  # fmt: skip


def _data(arguments: argparse.Namespace, shard_megabytes: int) -> "DataSize":
    """Of the source, if one is named, else DISC21's; over that, the numbers given."""
    from dataclasses import replace

    from isc_jobs.estimate.source import size_of
    from isc_jobs.estimate.work import DataSize
    from isc_jobs.store.source import open_source

    data = DataSize()
    if arguments.source is not None:
        source = open_source(arguments.source, anonymous=arguments.anonymous_source)
        data = size_of(source, source.list(), shard_megabytes)
    given = {
        "train": arguments.images, "reference": arguments.references, "query_phase1": arguments.queries,
        "query_phase2": arguments.queries, "pairs": arguments.pairs,
        "picture_bytes": arguments.picture_kb and 1000 * arguments.picture_kb,
    }  # fmt: skip
    return replace(data, **{name: value for name, value in given.items() if value is not None})


def _prices(arguments: argparse.Namespace) -> "Prices":
    from isc_jobs.estimate.cost import Prices

    given = {
        "gpu_hour": arguments.price, "core_hour": arguments.core_price, "storage_gb_month": arguments.storage_price,
        "thousand_puts": arguments.put_price, "thousand_gets": arguments.get_price,
    }  # fmt: skip
    return Prices(**{name: value for name, value in given.items() if value is not None})


def _goodput(
    arguments: argparse.Namespace, predictions: "list[Prediction]", settings: "Settings", data: "DataSize",
    machine: "Machine",
) -> "list[Goodput]":  # fmt: skip
    from isc_jobs.estimate.failures import Rates
    from isc_jobs.estimate.goodput import goodput_table
    from isc_jobs.spec.pipeline import build_pipeline

    rates = Rates(failures=arguments.failures_per_node_day, preemptions=arguments.preemptions_per_node_day)
    if not rates.failures and not rates.preemptions:
        return []
    pipeline = build_pipeline(settings, "", "")
    return goodput_table(
        pipeline, predictions, settings, data, machine, rates, runs=arguments.runs, seed=arguments.seed
    )  # fmt: skip
