"""After which of a program's effects it is killed."""

import os

ALL = os.environ.get("CHAOS") == "all"


def points(effects: int, few: int) -> list[int]:
    """All of them with CHAOS=all; else a few, the first and the last among them, or one in the middle."""
    wanted = effects if ALL else min(few, effects)
    if wanted == 1:
        return [(effects + 1) // 2]
    return sorted({1 + (effects - 1) * number // max(1, wanted - 1) for number in range(wanted)})
