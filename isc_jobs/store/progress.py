"""Progress of a stage or a command: plain lines in a log, a bar on a terminal, progress.json in the store."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts steps; says rate and time left. ``write`` stores the JSON form, at most every few seconds."""

    def __init__(
        self, name: str, write: Callable[[bytes], None], *, every_s: float = 5.0, line: Callable[[], str] = str
    ) -> None:
        """Report under ``name``; ``line`` tells what the log said last besides progress."""
        self._name, self._write, self._every, self._line = name, write, every_s, line
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None

    def __call__(self, step: int, total: int, **values: float) -> None:
        """``step`` of ``total`` is done; ``values`` are shown beside (loss, rate, …)."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = step, now
        if sys.stderr.isatty():
            self._draw(step, total, values)
        if step < total and now - self._said < self._every:
            return
        self._said = now
        rate = (step - self._first) / (now - self._started) if step > self._first else 0.0  # unknown at first
        eta = (total - step) / rate if rate > 0 else 0.0
        state: dict[str, Any] = {
            "step": step,
            "total": total,
            "rate": round(rate, 3),
            "eta_s": round(eta, 1),
            "unix_time": time.time(),
        }
        if self._line():
            state["line"] = self._line()
        self._write(json.dumps(state | values).encode())
        if not sys.stderr.isatty():
            shown = "".join(f"  {name} {value:.4g}" for name, value in values.items())
            pace = f"  {rate_text(rate)}  {clock(eta)} left" if rate > 0 else ""
            print(f"{self._name}  {step}/{total}{pace}{shown}", flush=True)

    def _draw(self, step: int, total: int, values: dict[str, float]) -> None:
        if self._bar is None or self._bar.total != total:
            self._bar = tqdm(total=total, desc=self._name, initial=max(0, step - 1), dynamic_ncols=True)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
        self._bar.update(step - self._bar.n)
        if step >= total:
            self._bar.close()


def rate_text(rate: float) -> str:
    """So many a second; of what takes longer, the seconds of each."""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def clock(seconds: float) -> str:
    """Seconds as minutes, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"
