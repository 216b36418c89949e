"""Real photographs that come inside scikit-image and scikit-learn: nothing is downloaded.

``python photos.py -o FOLDER`` copies them, for demos, calibration and tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from pathlib import Path

SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
SKLEARN = ("china.jpg", "flower.jpg")
"""Colour and grey photographs, 191x384 to 1411x1411 pixels. Packages may leave some out."""


def photographs() -> list[Path]:
    """Paths of the photographs on this machine, by name; empty if neither package is there."""
    sources = (("skimage", "data", SKIMAGE), ("sklearn", "datasets/images", SKLEARN))
    found: list[Path] = []
    for package, folder, names in sources:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent / folder
        found += [root / name for name in names if (root / name).is_file()]
    return sorted(found, key=lambda path: path.name)


def copy_photographs(folder: Path) -> list[Path]:
    """Copy every photograph into ``folder`` (made if missing); the copies, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / path.name)) for path in photographs()]


def main() -> int:
    """Command line: list the photographs, or copy them with ``-o``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, help="folder to copy into")
    output: Path | None = parser.parse_args().output
    paths = photographs() if output is None else copy_photographs(output)
    if not paths:
        print("none found: install scikit-image or scikit-learn")
        return 3
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
