"""What ``make deploy`` left in the cluster: store, source and settings, in one ConfigMap."""

from dataclasses import dataclass, field
from typing import Any

from isc_jobs.controller.podspec import Object
from isc_jobs.spec.documents import parse_yaml
from isc_jobs.spec.errors import UsageError

NAME = "isc-jobs-settings"
_LAST = ("settings.yaml", "images.yaml")  # the user's own and the built images, over those of the overlays


@dataclass(frozen=True)
class Deployed:
    """Addresses that the command line need not repeat, and settings that stand between profile and ``--set``."""

    store: str | None = None
    source: str | None = None
    settings: tuple[dict[str, Any], ...] = field(default=())


def parse_deployed(found: Object | None) -> Deployed:
    """The ConfigMap's content, nothing if there is none; raises UsageError for what is not YAML settings."""
    data = (found or {}).get("data") or {}
    parts = []
    overlays = sorted(name for name in data if name.endswith(".yaml") and name not in _LAST)
    for name in (*overlays, *_LAST):
        part = parse_yaml(data.get(name) or "", f"ConfigMap {NAME}: {name}")
        if part is not None and not isinstance(part, dict):
            raise UsageError(f"ConfigMap {NAME}: {name} holds {type(part).__name__}, expected a mapping of settings")
        parts.append(part or {})
    return Deployed(data.get("store") or None, data.get("source") or None, tuple(parts))
