"""Commands about weights files. Theirs are the only imports of torch on the command line, made when they run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isc_jobs.spec.errors import ExitCode, UsageError
from isc_jobs.spec.plain import plain
from isc_jobs.spec.weights import check_weights

if TYPE_CHECKING:
    from types import ModuleType

    from isc_jobs.spec.settings import Model

_NAMES_SHOWN = 20


def checkpoint_inspect(arguments: argparse.Namespace) -> int:
    """Show what a weights file holds; exit code 65 if it does not load strictly."""
    import json

    check_weights(arguments.file)  # before seconds are spent on importing torch
    found = _converter().inspect_file(arguments.file, arguments.arch)
    print(json.dumps(found, indent=1) if arguments.json else "\n".join(map(plain, _lines(found))))
    return int(ExitCode.OK if found["loads"] else ExitCode.DATA)


def _lines(found: dict[str, Any]) -> list[str]:
    resolved = found.get("resolved_arch")
    arch = found["arch"] or "not stated"
    lines = [
        f"{found['file']}: {found['layout']} layout",
        f"arch        {arch}" + (f" (timm: {resolved})" if resolved not in {None, arch} else ""),
        f"epoch       {'not stated' if found['epoch'] is None else found['epoch']}",
        f"tensors     {found['tensors']:,}, {found['parameters']:,} parameters",
    ]
    if resolved:
        lines += [f"dimensions  {found['dimensions']}", f"input size  {found['input_size']}"]
    lines += [f"optimizer   {'yes' if found['optimizer'] else 'no'}", f"loads       {_verdict(found)}"]
    for kind in ("missing", "unexpected", "misshapen", "mistyped"):
        names = found.get(kind, [])
        lines += [f"  {kind}: {name}" for name in names[:_NAMES_SHOWN]]
        lines += [f"  {kind}: … {len(names) - _NAMES_SHOWN} more"] if len(names) > _NAMES_SHOWN else []
    return [*lines, "args" if found["args"] else "args        none"] + [
        f"  {key}: {value}" for key, value in sorted(found["args"].items())
    ]


def _verdict(found: dict[str, Any]) -> str:
    return f"strictly, into {found['resolved_arch']}" if found["loads"] else f"NOT: {found['reason']}"


def checkpoint_convert(arguments: argparse.Namespace) -> int:
    """Write a weights file in another layout."""
    check_weights(arguments.file)
    facts = _converter().convert_file(arguments.file, arguments.out, arguments.arch)
    print(plain(f"{arguments.out}: {facts.arch}, {facts.dimensions} dimensions"))
    return int(ExitCode.OK)


def _converter() -> "ModuleType":
    try:
        from isc_jobs.training import convert
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return convert


def check_fits(path: Path, model: "Model") -> None:
    """Raises DataError for a weights file that does not load into the model of the settings.

    Where no torch is installed, as on a machine that only starts runs, the first stage that loads it tells.
    """
    try:
        from isc_jobs.training.inference import check_fits
    except ModuleNotFoundError:
        return
    check_fits(path, model)


def export(arguments: argparse.Namespace) -> int:
    """Write the descriptor model as ONNX."""
    try:
        from isc_jobs.training.export import export_onnx
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    for name, value in export_onnx(arguments.weights, arguments.out, arguments.arch, arguments.input_size).items():
        print(plain(f"{name:<16}{value}"))
    return int(ExitCode.OK)


def _not_installed(error: ModuleNotFoundError) -> UsageError:
    return UsageError(
        f"{error.name} is not installed: pip install 'isc-jobs[cpu,onnx]', in a checkout '.[cpu,onnx]', with a "
        "GPU gpu instead of cpu"
    )
