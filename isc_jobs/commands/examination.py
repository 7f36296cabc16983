"""What isc-jobs doctor looks at: each thing is tried, with what to do where it is missing."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from isc_jobs.commands.runs import open_named_store
from isc_jobs.spec.errors import IscJobsError

_GB = 1 << 30
_DEMO = {"memory": 6 * _GB, "disk": 2 * _GB}  # of the demo, beside the packages
_SHARED_MEMORY, _SHARED = Path("/dev/shm"), 1 * _GB  # noqa: S108 - by which loader processes hand over batches
_FILES = 1024  # open at once
# What stages import, and the extra that installs it.
_PACKAGES = {"torch": "cpu", "timm": "cpu", "cv2": "cpu", "faiss": "cpu", "h5py": "", "simplejpeg": ""}
_TORCH = (
    "import json, torch; n = torch.cuda.device_count();"
    "print(json.dumps([torch.__version__, [torch.cuda.get_device_name(i) for i in range(n)],"
    "n > 0 and torch.cuda.is_bf16_supported(), torch.version.cuda]))"
)


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what to do if it is not as it should be."""

    state: Literal["ok", "note", "MISSING"]
    sentence: str


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """All findings, one after the other."""
    yield _python()
    for module, extra in _PACKAGES.items():
        yield _package(module, extra)
    yield _faiss()
    yield _torch()
    yield _edits()
    yield from _machine()
    yield _store(arguments)
    yield _cluster(arguments)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", f"Python {version}, {sys.executable}")


def _package(module: str, extra: str) -> Finding:
    """Imported by a process of its own: what crashes there does not end this one."""
    tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return Finding("ok", f"package {module}")
    said = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
    name = f"isc-jobs[{extra}]" if extra else "isc-jobs"
    return Finding("MISSING", f"package {module} does not import ({said}): pip install '{name}'")


def _faiss() -> Finding:
    """Two distributions install the same module."""
    found = [name for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    if len(found) > 1:
        return Finding("MISSING", "faiss-cpu and faiss-gpu overwrite each other: uninstall both, then install one")
    return Finding("ok", f"searches are by {found[0]} {_version(found[0])}" if found else "no faiss is installed")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> Finding:
    tried = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False)
    if tried.returncode:
        return Finding("MISSING", "torch cannot look for GPUs: install isc-jobs[cpu], or isc-jobs[gpu]")
    version, names, bf16, cuda = json.loads(tried.stdout.splitlines()[-1])
    if names:
        precision = "bfloat16" if bf16 else "float16: bfloat16 is not there"
        return Finding("ok", f"torch {version}: {len(names)} GPUs ({', '.join(sorted(set(names)))}), {precision}")
    if shutil.which("nvidia-smi") is not None:
        return Finding("note", f"torch {version} (CUDA {cuda}) sees no GPU, though nvidia-smi is here: compare drivers")
    return Finding("note", f"torch {version} sees no GPU: --profile demo runs here, isc21 needs GPUs")


def _edits() -> Finding:
    from isc_jobs.vision.assets import fonts

    try:
        return Finding("ok", f"{len(fonts())} fonts of augly for the hard views")
    except IscJobsError as error:
        return Finding("MISSING", str(error))


def _machine() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _amount("memory", memory, _DEMO["memory"], "of the demo; close what uses it, or set compute.loader_workers=0")
    work = Path(os.environ.get("ISC_JOBS_WORK", "~/.cache/isc-jobs")).expanduser()
    try:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work):
            free = shutil.disk_usage(work).free
        yield _amount(f"work folder {work}, free", free, _DEMO["disk"], "of the demo; name another in ISC_JOBS_WORK")
    except OSError as error:
        yield Finding(
            "MISSING", f"work folder {work} cannot be written ({error.strerror}): name another, ISC_JOBS_WORK"
        )
    if _SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(_SHARED_MEMORY).free
        yield _amount(f"{_SHARED_MEMORY}, free", shared, _SHARED, "of loader processes; or compute.loader_workers=0")
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    state: Literal["ok", "note"] = "ok" if files >= _FILES else "note"
    yield Finding(
        state, f"open files at once: {files}" + ("" if state == "ok" else f", {_FILES} are better: ulimit -n")
    )


def _amount(what: str, found: int, wanted: int, remedy: str) -> Finding:
    said = f"{what}: {found / _GB:.1f} GB"
    return (
        Finding("ok", said)
        if found >= wanted
        else Finding("note", f"{said}, less than the {wanted / _GB:.0f} {remedy}")
    )


def _store(arguments: argparse.Namespace) -> Finding:
    from isc_jobs.store.probe import probe

    if arguments.store is None and "ISC_JOBS_STORE" not in os.environ:
        return Finding("note", "no store was tried: name one with --store, a folder or s3://bucket/prefix")
    try:
        store = open_named_store(arguments)
    except IscJobsError as error:
        return Finding("MISSING", str(error))
    root = Path(store.uri)
    made = [] if "://" in store.uri else [path for path in (root, *root.parents) if not path.exists()]
    try:
        absent = ", which is not there yet" if made else ""
        return _tried(lambda: probe(store.uri), f"store {store.uri}{absent}: conditional writes are kept")
    finally:
        if made:  # what was only looked at stays as it was
            shutil.rmtree(made[-1], ignore_errors=True)


def _cluster(arguments: argparse.Namespace) -> Finding:
    if "KUBECONFIG" not in os.environ and not Path("~/.kube/config").expanduser().is_file():
        return Finding("note", "no cluster is configured: runs are on this machine")
    try:
        from isc_jobs.controller.kubernetes.api import Api
    except ImportError:
        return Finding("note", "runs in a cluster need the package kubernetes: pip install 'isc-jobs[cluster]'")
    namespace = arguments.namespace
    return _tried(
        lambda: Api(namespace).list("v1", "ConfigMap"),
        f"cluster: reached, namespace {namespace}; isc-jobs check tries what runs need there",
    )


def _tried(act: Callable[[], object], said: str) -> Finding:
    try:
        act()
    except IscJobsError as error:
        return Finding("MISSING", str(error))
    return Finding("ok", said)
