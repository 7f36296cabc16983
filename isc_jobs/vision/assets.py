"""AugLy's fonts and emoji, read as data: importing AugLy's code would ask for libmagic, which need not be there."""

import pickletools
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isc_jobs.spec.errors import UsageError

_LEFT_OUT = ("TypeMyMusic", "PainttheSky-Regular")
_INTEGERS = {"BININT", "BININT1", "BININT2"}


@cache
def fonts() -> tuple[Path, ...]:
    """Font files by name, all but the two that the recipe leaves out. Raises UsageError where AugLy is missing."""
    found = sorted(_folder("fonts").glob("*.ttf"))
    return tuple(path for path in found if not path.name.startswith(_LEFT_OUT))


@cache
def characters(font: Path) -> str:
    """Every character that AugLy lists for a font, in the list's order.

    The list is a pickle of integers beside the font. Its opcodes are read and never executed.
    """
    opcodes = pickletools.genops(font.with_suffix(".pkl").read_bytes())
    return "".join(chr(code) for opcode, code, _ in opcodes if opcode.name in _INTEGERS and isinstance(code, int))


@cache
def emoji() -> tuple[NDArray[np.uint8], ...]:
    """AugLy's smileys by name: (72, 72, 4) RGBA each, 2 MB together. Raises UsageError where AugLy is missing."""
    sprites = []
    for path in sorted(_folder("twemojis/smileys").glob("*.png")):
        with Image.open(path) as image:
            sprites.append(np.asarray(image.convert("RGBA")))
    return tuple(sprites)


def _folder(name: str) -> Path:
    spec = find_spec("augly")
    folder = (
        Path(spec.submodule_search_locations[0]) / "assets" / name if spec and spec.submodule_search_locations else None
    )
    if folder is None or not folder.is_dir():
        raise UsageError(
            "the package augly, whose fonts and emoji the hard views draw, is not installed with its assets: "
            "install isc-jobs[cpu] or isc-jobs[gpu]"
        )
    return folder
