"""Requirements of each image out of pyproject.toml, so that only a change of theirs builds its layer anew."""

import sys
import tomllib
from pathlib import Path

EXTRAS = {"controller": ["cluster"], "data": ["search"], "cpu": ["cpu", "weights"], "gpu": ["gpu", "weights"]}


def main(pyproject: Path, folder: Path) -> None:
    """Write ``<image>.txt`` into the folder; of train one for each accelerator."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    folder.mkdir(parents=True, exist_ok=True)
    for image, extras in EXTRAS.items():
        lines = [*project["dependencies"], *(line for e in extras for line in project["optional-dependencies"][e])]
        (folder / f"{image}.txt").write_text("\n".join(sorted(lines)) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
