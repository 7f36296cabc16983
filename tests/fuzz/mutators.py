"""Damage to valid inputs: of bytes, and of the values of a format."""

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from isc_jobs.spec.documents import parse_yaml
from isc_jobs.spec.errors import UsageError

_NUMBERS = (0, -1, 1, 2**31, -(2**31), 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**300, 10**400, 1e308, 1e-320,
            -0.0, 0.5)  # fmt: skip
_TEXTS = ("", "../../etc/passwd", "/etc/passwd", "..", ".", "a\0b", "\x1b[2J", "x" * 100_000, "\N{BOM}", "é", "\ud800",
          "=cmd|' /C calc'!A0", "null", "NaN", "-inf", "1e999", "1_000", "٣", "a\nb", "a\tb", "%00", "s3://", "~", "-",
          "$(reboot)", "`reboot`", "train_images/../../x.jpg", "CON", "a//b", "\u202egpj", "9" * 5000)  # fmt: skip
_LARGE = 20_000  # bytes, beyond which a format is not heeded
Mutator = Callable[[bytes, random.Random], bytes]


def odd_value(rng: random.Random) -> Any:
    """A value that a field does not expect."""
    values: list[Callable[[], Any]] = [
        lambda: rng.choice(_NUMBERS), lambda: rng.choice(_TEXTS), lambda: None, lambda: rng.choice((True, False)),
        list, dict, lambda: [rng.choice(_TEXTS)], lambda: {rng.choice(_TEXTS): rng.choice(_NUMBERS)},
        lambda: float("nan"), lambda: float("inf"), lambda: _nested(rng.choice((5, 100, 900))),
    ]  # fmt: skip
    return rng.choice(values)()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, overwrite, insert: one to four times."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            return rng.randbytes(rng.randint(0, 64))
        place = rng.randrange(len(out))
        length = min(rng.choice((1, 2, 4, 8, 64, 512)), len(out) - place)
        kind = rng.randrange(8)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            del out[place:]
        elif kind == 3:
            out[place:place] = out[place : place + length]
        elif kind == 4:
            number = rng.choice((0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 65_535, 255))
            width = rng.choice((1, 2, 4, 8))
            packed = (number & (2 ** (8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
            out[place : place + width] = packed
        elif kind == 5:
            del out[place : place + length]
        elif kind == 6:
            out[place : place + length] = bytes(length)
        else:
            text = rng.choice(_TEXTS)[:64].encode("utf-8", "surrogatepass")
            out[place : place + len(text)] = text
    return bytes(out)


def of_value(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        chance = rng.random()
        if chance < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if chance < 0.2:
            return value | {rng.choice(_TEXTS): value[key]}
        return value | {key: of_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.1:
            return value[:place] + value[place + 1 :]
        if chance < 0.3:
            return value + [value[place]] * rng.choice((1, 2, 50))
        return [*value[:place], of_value(value[place], rng), *value[place + 1 :]]
    return odd_value(rng)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with odd values, or damaged bytes."""
    if len(data) > _LARGE:
        return of_bytes(data[:_LARGE], rng)
    try:
        value = json.loads(data)
        for _ in range(rng.randint(1, 3)):
            value = of_value(value, rng)
        made = json.dumps(value)
    except (ValueError, RecursionError):
        return of_bytes(data, rng)
    encoded = made.encode("utf-8", "surrogatepass")
    return of_bytes(encoded, rng) if rng.random() < 0.3 else encoded


def of_yaml(data: bytes, rng: random.Random) -> bytes:
    """A YAML document with odd values, tags, anchors and merges, or damaged bytes."""
    chance = rng.random()
    if chance < 0.4:
        try:
            value = of_value(parse_yaml(data.decode()[:_LARGE], "seed"), rng)
            return yaml.safe_dump(value).encode("utf-8", "surrogatepass")
        except (UsageError, yaml.YAMLError, ValueError, RecursionError):
            return of_bytes(data, rng)
    if chance < 0.7:
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        key = lines[place].partition(b":")[0]
        lines[place] = key + b": " + rng.choice(_YAML)
        return b"\n".join(lines)
    return of_bytes(data, rng)


_YAML = (
    b"!!python/object/apply:os.system ['true']", b"!!python/name:os.system", b"&a [*a]", b"*a", b"&a {<<: *a}",
    b"<<",
    b"!!binary '!!!'", b"!!set {a, b}", b"!!omap [a: 1]", b"!!timestamp 2001-99-99", b"2001-12-14t21:59:43.10-99:99",
    b"{? [a] : b}", b"0x" + b"f" * 6000, b"9" * 6000, b"1:" * 1000 + b"1", b".inf", b"-.nan", b"[" * 2000,
    b"{a: " * 2000,
    b"|9\n a", b"%TAG ! !", b"--- a\n--- b", b'"\\ud800"', b"'\\0'", b"\0", b"!!int x", b"!!float y", b"!!bool z",
    b"1e400", b"0b2", b"0o9", b"!<tag:yaml.org,2002:int> [a]", b"{<<: [1]}", b"{<<: 1}", b"&x &y z", b"\xff\xfe",
)  # fmt: skip


def of_csv(data: bytes, rng: random.Random) -> bytes:
    """A CSV file with odd fields, rows doubled or cut short, other encodings, or damaged bytes."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except (ValueError, csv.Error):
        return of_bytes(data, rng)
    if not rows or rng.random() < 0.3:
        return of_bytes(data, rng)
    place = rng.randrange(len(rows))
    row, chance = rows[place], rng.random()
    if chance < 0.5 and row:
        row[rng.randrange(len(row))] = str(odd_value(rng))
    elif chance < 0.6:
        rows += [row] * rng.choice((1, 3, 1000))
    elif chance < 0.7:
        rows[place] = row[:-1]
    elif chance < 0.8:
        rows[place] = [*row, "x"]
    else:
        row.reverse()
    text = io.StringIO()
    csv.writer(text, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(rows)
    encoding = rng.choice(("utf-8",) * 8 + ("utf-16", "latin-1", "utf-8-sig"))
    return text.getvalue().encode(encoding, "replace")


def of_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines of text, of which one is odd."""
    lines = data.split(b"\n")
    if rng.random() < 0.5:
        text: Sequence[str] = rng.choice(_TEXTS)
        lines[rng.randrange(len(lines))] = str(text).encode("utf-8", "surrogatepass")
        return b"\n".join(lines)
    return of_bytes(data, rng)
