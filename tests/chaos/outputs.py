"""What stages have committed, as far as it is the same each time."""

import json
from pathlib import Path


def digests(commit: Path) -> dict[str, str]:
    """Of a commit's files; of a history without its times, and not of the report and events, which show them."""
    files = {entry["name"]: entry["sha256"] for entry in json.loads(commit.read_text())["files"]}
    shown = [name for name in files if name == "report.html" or name.startswith("tensorboard/")]
    for name in shown:
        files.pop(name)
    if "history.csv" in files:
        lines = (commit.parent / "history.csv").read_text().splitlines()
        files["history.csv"] = "\n".join(line.rpartition(",")[0] for line in lines)
    return files
