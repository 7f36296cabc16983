"""All targets; the light ones can be had without torch."""

from functools import cache
from importlib import import_module

from contract import Target

_MODULES = ("settings_targets", "store_targets", "file_targets", "weights_targets")


@cache
def all_targets() -> dict[str, Target]:
    """By name."""
    return {target.name: target for module in _MODULES for target in import_module(module).TARGETS}


def find_target(name: str) -> Target:
    """One of them; what comes after its module is not imported."""
    for module in _MODULES:
        for target in import_module(module).TARGETS:
            if target.name == name:
                found: Target = target
                return found
    raise LookupError(f"no target {name!r}: expected one of {', '.join(all_targets())}")
