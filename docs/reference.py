"""The reference pages that are made of code: ``python docs/reference.py`` writes settings.md and commands.md."""

import inspect
import os
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from isc_jobs.cli import build_parser
from isc_jobs.commands.help import commands_of
from isc_jobs.spec import settings as spec
from isc_jobs.spec.profile import load_settings

HERE = Path(__file__).parent
SETTINGS_HEAD = """# Settings

Every setting with its type, its value in `isc21` (the recipe at full size, where each is stated once) and in `demo`.
A file of yours says `extends: isc21` or `extends: demo` and what it changes; `--set trainings.v98.lr=0.01` changes one
value; `isc-jobs diff` shows which stages a change runs again. Unknown keys, wrong types and impossible values
are refused.

This page is made from the typed settings by `make docs`.
"""
COMMANDS_HEAD = """# Commands

What `--help` says of each command. `python -m isc_jobs.controller` is the same program. The exit codes stand in the
table of the README and in [Formats](formats.md).

This page is made from the command line by `make docs`.
"""
_FIELD = re.compile(r"^    (\w+): (.*?)(?:  # (.*))?$")


def settings_page() -> str:
    """All sections; of the trainings, which have the same keys, one table with a column each."""
    full, demo = (load_settings(name) for name in ("isc21", "demo"))
    parts = [SETTINGS_HEAD]
    for name, field in spec.Settings.model_fields.items():
        kind = field.annotation
        parts.append(f"\n## {name}\n\n{_sentence(kind)}\n")
        if name == "trainings":
            parts.append(_trainings(full, demo))
        else:
            rows = _rows(kind, name, getattr(full, name), getattr(demo, name))
            parts.append(_table(("setting", "type", "isc21", "demo", ""), rows))
    return "".join(parts)


def commands_page() -> str:
    """The help of all commands that do something."""
    os.environ["COLUMNS"] = "100"
    parts = [COMMANDS_HEAD]
    for name, parser in commands_of(build_parser()):
        if parser.get_default("command"):
            parts.append(f"\n## isc-jobs {name}\n\n```text\n{parser.format_help().strip()}\n```\n")
    return "".join(parts)


def _rows(kind: Any, prefix: str, full: Any, demo: Any) -> list[tuple[str, ...]]:
    rows = []
    told = _comments(kind)
    for name, field in kind.model_fields.items():
        key, a, b = f"{prefix}.{name}", getattr(full, name), getattr(demo, name)
        if isinstance(a, BaseModel) and isinstance(b, BaseModel):
            rows += _rows(type(a), key, a, b)
        else:
            rows.append(
                (f"`{key}`", _type(field.annotation), _value(a), "" if a == b else _value(b), told.get(name, ""))
            )
    return rows


def _trainings(full: spec.Settings, demo: spec.Settings) -> str:
    told = _comments(spec.Training) | {f"views.{name}": text for name, text in _comments(spec.Views).items()}
    parts = []
    for title, settings in (("isc21", full), ("demo", demo)):
        rows = []
        for name in spec.Training.model_fields:
            if name == "views":
                rows += [_row(settings, name, view, told) for view in spec.Views.model_fields]
            else:
                rows.append(_row(settings, name, None, told))
        parts.append(f"\nIn `{title}`:\n\n" + _table(("setting", *spec.TRAINING_NAMES, ""), rows))
    return "".join(parts)


def _row(settings: spec.Settings, name: str, view: str | None, told: dict[str, str]) -> tuple[str, ...]:
    values = []
    for training in spec.TRAINING_NAMES:
        value = getattr(getattr(settings.trainings, training), name)
        values.append(_value(getattr(value, view) if view and value is not None else value))
    key = f"{name}.{view}" if view else name
    return (f"`{key}`", *values, told.get(key, ""))


def _comments(kind: type) -> dict[str, str]:
    """By field: the comment behind it, or on the lines before."""
    found, before = {}, list[str]()
    for line in inspect.getsource(kind).splitlines():
        field = _FIELD.match(line)
        if field and field[3]:
            found[field[1]] = field[3]
        elif field and before:
            found[field[1]] = " ".join(before)
        before = [*before, line.strip().removeprefix("# ")] if line.strip().startswith("#") else []
    return found


def _sentence(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _type(kind: Any) -> str:
    """A type in the words of YAML."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_type(part) for part in arguments)
    if origin is typing.Literal:
        return ", ".join(f"`{_value(value).strip('`')}`" for value in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return "mapping"
    return {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}.get(
        kind, ""
    )


def _value(value: Any) -> str:
    """As YAML has it."""
    if isinstance(value, BaseModel):
        return "`{" + ", ".join(f"{name}: {_value(part).strip('`')}" for name, part in value) + "}`"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(_value(part).strip("`") for part in value) + "]`"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower() if value is not None else 'null'}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["", *("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))]
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "commands.md": commands_page}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (HERE / file).write_text(make(), "utf-8")
