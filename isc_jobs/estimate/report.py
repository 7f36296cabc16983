"""An estimate in words and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from isc_jobs.estimate.bounds import Bounds, total
from isc_jobs.estimate.goodput import Goodput
from isc_jobs.estimate.machine import Machine
from isc_jobs.estimate.predict import CPU, GPU, Prediction
from isc_jobs.estimate.tables import Tables
from isc_jobs.estimate.work import Requests
from isc_jobs.spec.quantity import amount
from isc_jobs.spec.settings import Settings

_STAGE = ("stage", "hours", "GPU hours", "bound by", "kept GB", "GETs", "PUTs, LISTs", "cost")
_ROWS = ("checkpoints", "hours", "by formula", "goodput", "lost h", "checkpoint h", "restart h", "failures", "given up")


def as_text(
    predictions: Sequence[Prediction], costs: Sequence[Bounds], goodput: Sequence[Goodput], heading: Sequence[str],
    warnings: Sequence[str],
) -> str:  # fmt: skip
    """Tables for people."""
    rows = [_stage_row(*each) for each in zip(predictions, costs, strict=True)]
    seconds = total(prediction.seconds for prediction in predictions)
    asked = sum((prediction.requests for prediction in predictions), start=Requests())
    rows.append((
        "all", _span(seconds / 3600), _span(gpu_hours(predictions)), "",
        f"{sum(p.work.kept_bytes for p in predictions) / 1e9:.1f}",
        f"{asked.get:,.0f}", f"{asked.put + asked.list:,.0f}", _span(total(costs)),
    ))  # fmt: skip
    parts = ["\n".join(heading), columns((_STAGE, *rows))]
    if goodput:
        parts.append(columns((_ROWS, *map(_goodput_row, goodput))))
    return "\n\n".join([*parts, *(["\n".join(warnings)] if warnings else [])])


def heading(name: str, settings: Settings, machine: Machine, tables: Tables) -> list[str]:
    """What is estimated, on what."""
    train, extract = settings.cluster.stages.train, settings.cluster.stages.extract
    if train.gpus and machine.gpu is not None:
        speed = tables.flop_per_s(machine.gpu, "train")
        where = (
            f"trainings on {train.pods} x {train.gpus} {tables.hardware.gpus[machine.gpu].name}, "
            f"extraction on {extract.pods * extract.gpus}; {speed.low / 1e12:.0f}-{speed.high / 1e12:.0f} TFLOP/s each "
            "by published speeds"
        )
    else:
        where = f"trainings on {train.pods * amount(train.cpu):g} cores"
    scope = "low - high, of the pods that the settings ask for or the nodes given"
    return [f"{name}: {where}", f"{scope}; what is measured, published and assumed: docs/scale.md"]


def warnings_of(predictions: Sequence[Prediction], settings: Settings, machine: Machine, tables: Tables) -> list[str]:
    """What would not fit."""
    found = []
    memory = tables.hardware.gpus[machine.gpu].memory_gb if machine.gpu is not None else float("inf")
    for prediction in predictions:
        work = prediction.work
        if prediction.gpu_memory_gb > 0.9 * memory:
            found.append(
                f"{work.stage}: {prediction.gpu_memory_gb:.0f} GB on each GPU of {memory:.0f} GB: take more GPUs"
            )
        scratch = amount(getattr(settings.cluster.stages, work.program).scratch) / 1e9
        if prediction.scratch_gb > scratch:
            found.append(
                f"{work.stage}: {prediction.scratch_gb:.0f} GB of scratch, cluster.stages.{work.program}.scratch is "
                f"{scratch:.0f} GB"
            )
    return found


def as_json(
    predictions: Sequence[Prediction], costs: Sequence[Bounds], goodput: Sequence[Goodput], warnings: Sequence[str]
) -> dict[str, Any]:
    """The same for programs; hours, GB."""
    stages = [
        {
            "stage": p.work.stage, "hours": _pair(p.seconds / 3600), "gpu_hours": _pair(p.seconds / 3600 * p.gpus),
            "binds": p.binds, "resources_hours": {name: _pair(time / 3600) for name, time in p.resources.items()},
            "checkpoint_seconds": _pair(p.checkpoint), "checkpoints": _pair(p.checkpoints),
            "kept_gb": p.work.kept_bytes / 1e9, "scratch_gb": p.scratch_gb, "gpu_memory_gb": p.gpu_memory_gb,
            "requests": asdict(p.requests), "cost": _pair(cost), "work": asdict(p.work),
        }
        for p, cost in zip(predictions, costs, strict=True)
    ]  # fmt: skip
    return {"stages": stages, "goodput": [asdict(row) for row in goodput], "warnings": list(warnings)}


def gpu_hours(predictions: Iterable[Prediction]) -> Bounds:
    """Of all stages that have GPUs."""
    return total(prediction.seconds / 3600 * prediction.gpus for prediction in predictions)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def _stage_row(prediction: Prediction, cost: Bounds) -> tuple[str, ...]:
    hours, asked = prediction.seconds / 3600, prediction.requests
    return (
        prediction.work.stage, _span(hours), _span(hours * prediction.gpus) if prediction.gpus else "-",
        bound_by(prediction), f"{prediction.work.kept_bytes / 1e9:.1f}", f"{asked.get:,.0f}",
        f"{asked.put + asked.list:,.0f}", _span(cost),
    )  # fmt: skip


def bound_by(prediction: Prediction) -> str:
    """The slowest resource, and any other that may be it within the bounds."""
    times, first = prediction.resources, prediction.binds
    others = [
        name for name in times if name != first and name not in {GPU, CPU} and times[name].high > times[first].low
    ]
    others += [name for name in (GPU, CPU) if name in times and name != first and times[name].high > times[first].low]
    return first + (f" or {others[0]}" if len(others) == 1 else f" or {len(others)} others" if others else "")


def _goodput_row(row: Goodput) -> tuple[str, ...]:
    formula = "-" if row.formula_hours is None else f"{row.formula_hours:.2f}"
    return (
        row.name, f"{row.hours:.2f}", formula, f"{row.share:.1%} ({row.lowest:.1%}-{row.highest:.1%})",
        f"{row.lost_hours:.2f}", f"{row.checkpoint_hours:.2f}", f"{row.restart_hours + row.waited_hours:.2f}",
        f"{row.failures:.1f}", str(row.given_up),
    )  # fmt: skip


def _pair(bounds: Bounds) -> list[float]:
    return [bounds.low, bounds.high]


def _span(bounds: Bounds) -> str:
    low, high = (f"{value:,.{2 if bounds.high < 10 else 1 if bounds.high < 1000 else 0}f}"
                 for value in (bounds.low, bounds.high))  # fmt: skip
    return low if low == high else f"{low} - {high}"
