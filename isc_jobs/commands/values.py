"""What the words of a command line are read as; raises ArgumentTypeError, which the parser tells."""

import argparse
import math

_LAST_PORT = 65_535


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not finite")
    return value


def score(text: str) -> float:
    """Of a pair: a number, 0 at most."""
    value = _finite(text)
    if value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: scores are -(squared distance), 0 at most, as -0.9")
    return value


def amount(text: str) -> float:
    """A number from 0 on."""
    value = _finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return value


def speed(text: str) -> float:
    """A number above 0."""
    value = amount(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected more than 0")
    return value


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def port(text: str) -> int:
    """Of TCP."""
    if _whole(text, 1) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r}: ports end at {_LAST_PORT}")
    return int(text)


def size(text: str) -> int:
    """Pixels a side of a model's input."""
    return _whole(text, 32)
