"""Mid-stage checkpoints under ``checkpoints/<key>/step-<n>/``: files first, marker last."""

import json
import logging
import re
from pathlib import Path

from isc_jobs.spec.documents import parse_json
from isc_jobs.spec.errors import DataError
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.store.port import Store

KEPT = 2  # of a stage at once
_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")  # of a file in the checkpoint's own folder
_MARKER = re.compile(r"/step-(\d{9})/marker\.json$")


def save_checkpoint(store: Store, key: str, step: int, folder: Path) -> None:
    """Upload the folder's files as the checkpoint of a step."""
    where = f"checkpoints/{key}/step-{step:09d}"
    digests = {}
    for path in sorted(folder.iterdir()):
        digests[path.name] = file_sha256(path)
        store.upload(f"{where}/{path.name}", path)
    store.put(f"{where}/marker.json", json.dumps(digests).encode())


def load_latest(store: Store, key: str, folder: Path) -> int | None:
    """Fetch the newest whole checkpoint into ``folder``; its step, or None. A damaged one is passed over, loudly."""
    for step in reversed(_steps(store, key)):
        where = f"checkpoints/{key}/step-{step:09d}"
        if _fetch(store, where, folder):
            return step
        _LOG.warning("checkpoint of step %d is damaged and not used: %s/%s", step, store.uri, where)
    return None


def prune(store: Store, key: str, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, markers first."""
    steps = _steps(store, key)
    for step in steps[: max(0, len(steps) - keep)]:
        where = f"checkpoints/{key}/step-{step:09d}/"
        store.delete(f"{where}marker.json")
        for info in list(store.list(where)):
            store.delete(info.key)


def _steps(store: Store, key: str) -> list[int]:
    found = (_MARKER.search(info.key) for info in store.list(f"checkpoints/{key}/"))
    return sorted(int(match[1]) for match in found if match)


def _fetch(store: Store, where: str, folder: Path) -> bool:
    try:
        digests = parse_json(store.get(f"{where}/marker.json")[0], f"{where}/marker.json")
        if not all(_NAME.fullmatch(name) for name in digests):
            return False
        for name, digest in digests.items():
            store.download(f"{where}/{name}", folder / name)
            if file_sha256(folder / name) != digest:
                return False
    except DataError:
        return False
    return True
