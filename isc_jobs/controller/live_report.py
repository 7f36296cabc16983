"""The page of a run in the store, written anew while the run goes on."""

import csv
from collections.abc import Callable
from typing import Any

from isc_jobs.controller.manifest import Manifest
from isc_jobs.controller.pace import Pace
from isc_jobs.controller.status import report_key, stage_status
from isc_jobs.report.charts import thinned
from isc_jobs.report.life import History, life_page, stages_section
from isc_jobs.report.page import is_page, with_section
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.stage import InputRef, attempt_prefix, curve_key
from isc_jobs.store import NotFound, Store
from isc_jobs.store.artifacts import prefix

_PACE = Pace(0.05, 5.0, 60.0)  # of writing the page, by the time since an attempt began or ended
_SCORED = "evaluate"
_COLUMNS = ("step", "loss", "positive_loss", "negative_loss", "lr")


class LiveReport:
    """Writes the page; what is finished is read once."""

    def __init__(self, store: Store, show: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """Nothing is written yet; ``show`` gets each status too."""
        self._store, self._show = store, show
        self._finished: dict[str, dict[str, Any]] = {}
        self._histories: dict[str, History] = {}
        self._left_out: dict[str, str] = {}  # sentences by stage
        self._written = -float("inf")
        self._page = ""

    def refresh(self, manifest: Manifest, finished: set[str], now: float, moved: float) -> None:
        """Write the page if it is due: ``now``, and when an attempt began or ended last, in seconds of one clock."""
        if now - self._written >= _PACE.after(now - max(moved, 0.0)) or self._written < moved:
            self.write(manifest, finished)
            self._written = now

    def write(self, manifest: Manifest, finished: set[str]) -> None:
        """Write the page as the run stands."""
        stages = [self._stage(manifest, name, key, finished) for name, key in manifest.stages.items()]
        status = {"run": manifest.request.run, "state": manifest.state, "reason": manifest.reason, "stages": stages}
        self._show(status)
        page = self._scored(manifest, status) if manifest.state == "succeeded" else None
        if page is None:
            histories = {name: self._history(manifest, name) for name in manifest.stages if name.startswith("train-")}
            lead = [manifest.reason, *self._left_out.values()]
            page = life_page(status, lead, histories, int(_PACE.most) if manifest.state == "running" else None)
        if page != self._page:
            self._store.put(report_key(manifest.request.run), page.encode())
            self._page = page

    def _stage(self, manifest: Manifest, name: str, key: str, finished: set[str]) -> dict[str, Any]:
        if name in self._finished:
            return self._finished[name]
        if name in finished or any(running.stage == name for running in manifest.running):
            found = stage_status(self._store, manifest, name, key)
            if name in finished:
                self._finished[name] = found
            return found
        records = [record for record in manifest.attempts if record.stage == name]
        unbegun = "waiting" if manifest.wants(name) else "left out"
        told = {"state": records[-1].state, "reason": records[-1].reason} if records else {"state": unbegun}
        return {"stage": name, "attempts": [record.model_dump(exclude={"stage"}) for record in records], **told}

    def _scored(self, manifest: Manifest, status: dict[str, Any]) -> str | None:
        """The scores' page, with how the run went."""
        if _SCORED not in self._finished:
            return None
        where = prefix(InputRef(stage=_SCORED, key=manifest.stages[_SCORED]))
        try:
            html = self._store.get(f"{where}/report.html")[0].decode("utf-8")
        except (DataError, UsageError, ValueError) as error:  # a page costs no run
            self._left_out[_SCORED] = f"The scores are left out: {error}."
            return None
        if not is_page(html):
            self._left_out[_SCORED] = f"The scores are left out: {where}/report.html is no whole page."
            return None
        return with_section(html, stages_section(status))

    def _history(self, manifest: Manifest, name: str) -> History:
        """Of a training's steps so far, at most some hundred; none of a damaged one, which the page says."""
        if name in self._histories:
            return self._histories[name]
        attempts = [running.attempt for running in manifest.running if running.stage == name]
        try:
            if name in self._finished:
                where = prefix(InputRef(stage=name, key=manifest.stages[name]))
                self._histories[name] = _rows(self._store.get(f"{where}/history.csv")[0])
                return self._histories[name]
            if attempts:
                return _rows(self._store.get(curve_key(attempt_prefix(manifest.request.run, name, attempts[0])))[0])
        except NotFound:  # of given weights, or not yet
            pass
        except (DataError, UsageError, ValueError) as error:
            self._left_out[name] = f"The curves of {name} are left out: {error}."
        return []


def _rows(data: bytes) -> History:
    """Rows of a history.csv, at most some hundred; raises ValueError if they are not numbers under its header."""
    header, *lines = data.decode("utf-8").splitlines()
    rows = list(csv.DictReader([header, *thinned(lines)]))
    for row in rows:
        for name in _COLUMNS:
            float(row.get(name) or "nothing")
    return rows
