"""Flame graphs of a real training and a real extraction: flames-training.svg and flames-extraction.svg.

The demo's v83 on the example photos, then extraction with its weights, each sampled by py-spy from outside. Only what
the loop and a loader process do is drawn: no imports, no threads that wait. Widths are shares of samples.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, ROW, LEAST = 1200.0, 17, 1.5  # pixels; narrower frames are not drawn
COLOURS = {"isc_jobs": "#8ab6f9", "torch": "#f9c784", "timm": "#a8dba8", "": "#d9d9d9"}
NOISE = re.compile(r"torch/nn/modules/(module|container)|torch/utils/_contextlib|<frozen|^process ")
WAITING = re.compile(r"^(Condition\.)?wait |^_worker \(concurrent|^poll |^select |^_poll |^Connection\._recv ")
# What is drawn, with the frame where it begins.
TRAINING = {"the training": r"^train \(isc_jobs/training/loop", "its loader process": r"^_worker_loop \("}
EXTRACTION = {"the extraction": r"^_Extractor\.describe ", "its loader process": r"^_worker_loop \("}
Stacks = Counter[tuple[str, ...]]


def main() -> None:
    """Run both and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    out = arguments.out
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data, store = work / "dataset", work / "store"
        program = [sys.executable, "-m", "isc_jobs.controller"]
        subprocess.run([*program, "dataset", "make", arguments.photos, "--out", data], check=True)
        command: list[str | Path] = [*program, "run-all", "--profile", "demo", "--source", data, "--store", store]
        subprocess.run([*command, "--until", "download"], check=True)
        training = sampled([*command, "--until", "train-v83", "--set", "compute.threads=1"], work / "training.txt")
        (out / "flames-training.svg").write_text(as_svg(training, TRAINING))
        [weights] = store.glob("artifacts/train-v83/*/checkpoint.pth.tar")
        extraction = [*command, "--from", "extract", "--weights", weights, "--until", "extract"]
        extraction += ["--set", "evaluate.compare=[]", "--set", "extract.target_set=qrt"]
        (out / "flames-extraction.svg").write_text(as_svg(sampled(extraction, work / "extraction.txt"), EXTRACTION))


def sampled(command: Sequence[str | Path], path: Path) -> Stacks:
    """How often each stack was seen while a command and its child processes ran."""
    spy = [Path(sys.executable).with_name("py-spy"), "record", "--rate", "50", "--subprocesses", "--function"]
    subprocess.run([*map(str, spy), "--format", "raw", "--output", path, "--", *map(str, command)], check=True)
    stacks: Stacks = Counter()
    for line in path.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        stacks[tuple(stack.split(";"))] += int(count)
    return stacks


def as_svg(stacks: Stacks, roots: dict[str, str]) -> str:
    """A panel a root, one below the other; callers are above what they call."""
    panels, top = [], 0
    for title in roots:
        kept = below(stacks, roots, title)
        parts, depth = frames(kept, kept.total())
        heading = f'<text x="4" y="14" font-weight="bold">{escape(title)}, {kept.total()} samples</text>'
        panels.append(f'<g transform="translate(0 {top})">{heading}{"".join(parts)}</g>')
        top += (depth + 3) * ROW
    style = "text{font:11px sans-serif}rect{stroke:#fff;stroke-width:.5}.sheet{fill:#fff}"
    size = f'width="{WIDTH:.0f}" height="{top}" viewBox="0 0 {WIDTH:.0f} {top}"'
    sheet = '<rect class="sheet" width="100%" height="100%"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{sheet}{"".join(panels)}</svg>\n'


def below(stacks: Stacks, roots: dict[str, str], title: str) -> Stacks:
    """Stacks from their innermost root on, if it is this one, without what waits and what only passes on.

    A loader process is forked, so its stacks hold those of the training too.
    """
    kept: Stacks = Counter()
    for stack, count in stacks.items():
        places = {name: place for name, begin in roots.items() for place, frame in enumerate(stack)
                  if re.search(begin, frame)}  # fmt: skip
        innermost = max(places, key=places.__getitem__, default=None)
        if innermost == title and not any(WAITING.search(frame) for frame in stack):
            kept[tuple(frame for frame in stack[places[title] :] if not NOISE.search(frame))] += count
    return kept


def frames(stacks: Stacks, total: int) -> tuple[list[str], int]:
    """Rectangles of all frames, widest first, and how many rows they fill."""
    parts: list[str] = []
    deepest = 0
    waiting: list[tuple[Stacks, float, int]] = [(stacks, 0.0, 0)]
    while waiting:
        inner, left, depth = waiting.pop()
        children: dict[str, Stacks] = {}
        for stack, count in inner.items():
            if len(stack) > depth:
                children.setdefault(stack[depth], Counter())[stack] += count
        for name, child in sorted(children.items(), key=lambda pair: -pair[1].total()):
            width = WIDTH * child.total() / total
            if width >= LEAST:
                parts.append(rectangle(name, left, width, depth, child.total() / total))
                deepest = max(deepest, depth)
                waiting.append((child, left, depth + 1))
            left += width
    return parts, deepest


def rectangle(name: str, left: float, width: float, depth: int, share: float) -> str:
    """One frame with its name as far as it fits, whole and with its share when pointed at."""
    colour = next(colour for origin, colour in COLOURS.items() if f"({origin}" in name or not origin)
    y, room = (depth + 1) * ROW + 4, int(width / 7)
    shown = name.split(" (", maxsplit=1)[0][:room] if room > 3 else ""
    return (
        f"<g><title>{escape(name)}: {share:.1%}</title>"
        f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>'
        f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(shown)}</text></g>'
    )


if __name__ == "__main__":
    main()
