"""What is seen before a run begins: weights of another model, and days of work for want of a GPU."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from isc_jobs.commands.weights import check_fits
from isc_jobs.spec.errors import DataError, UsageError

if TYPE_CHECKING:
    from isc_jobs.controller.request import Given, Request
    from isc_jobs.spec.settings import Settings
    from isc_jobs.store import Store

# What drivers leave on a machine with GPUs: NVIDIA's, AMD's, Windows' for its Linux.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


def look_ahead(store: "Store", request: "Request", given: "Given") -> str | None:
    """Words of warning about a run, if there are any; raises DataError for weights that do not load into its model."""
    settings = request.checked_settings()
    if given.weights is not None:
        check_fits(given.weights, settings.model)
    if request.launcher != "local" or any(path.exists() for path in _DRIVERS):
        return None
    return _slow(store, request, given, settings)


def _slow(store: "Store", request: "Request", given: "Given", settings: "Settings") -> str | None:
    """That the stages which are left take a day and more of this machine's processors, by the estimate."""
    from isc_jobs.controller.request import committed_stages, pipeline_of, wanted_part
    from isc_jobs.estimate.bounds import total
    from isc_jobs.estimate.machine import Machine, on_nodes
    from isc_jobs.estimate.predict import predict
    from isc_jobs.estimate.source import size_of
    from isc_jobs.estimate.tables import load_tables
    from isc_jobs.estimate.work import work_of
    from isc_jobs.store.listing import read_listing
    from isc_jobs.store.source import open_source

    pipeline, cores = pipeline_of(request), os.cpu_count() or 1
    committed = committed_stages(store, pipeline)
    source = open_source(request.source, anonymous=request.anonymous)
    here, machine, tables = on_nodes(settings, 1, 0, float(cores)), Machine(gpu=None, gpus_per_node=1), load_tables()
    hours = []
    with suppress(UsageError, DataError):  # of data that download refuses, or are too few for a training: these say so
        data = size_of(source, read_listing(given.listing), settings.data.shard_megabytes)
        for stage in wanted_part(pipeline, request):
            if stage.name not in committed and stage.program != "weights":
                work = work_of(stage, here, data, tables)
                hours.append(predict(work, here, machine, tables).seconds / 3600)
    days = total(hours) / 24
    if days.low < 1:
        return None
    return (
        f"no GPU is here: on {cores} cores this run takes some {days.low:,.0f} to {days.high:,.0f} days; the profile "
        "demo is made for such a machine"
    )
