"""The part of ``report.html`` that says what rebuilding bank and threshold repaired."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from adcompile.anomaly.rebuild import Flip, Rebuilt
from adcompile.errors import AdcompileError
from adcompile.render import render_page
from adcompile.runtime.images import read_image

SHOWN = 24  # images per list
SIDE = 128  # pixels of a thumbnail


@dataclass(frozen=True)
class Card:
    """One flipped image, ready to show; ``picture`` is a data address, empty when unreadable."""

    flip: Flip
    picture: str


def rebuilt_section(rebuilt: Rebuilt, images: Mapping[str, Path]) -> str:
    """HTML: the three variants side by side, then the images whose decision changed, worst first."""
    lists = (
        ("still decided otherwise than by the float network", rebuilt.after),
        ("repaired by rebuilding, or flipped before it", _only_before(rebuilt)),
    )
    return render_page(
        "report/rebuilt.html.j2",
        {
            "rebuilt": rebuilt,
            "rows": rebuilt.table(),
            "lists": [(title, len(flips), _cards(flips, images)) for title, flips in lists],
        },
    )


def _only_before(rebuilt: Rebuilt) -> tuple[Flip, ...]:
    left = {flip.image for flip in rebuilt.after}
    return tuple(flip for flip in rebuilt.before if flip.image not in left)


def _cards(flips: tuple[Flip, ...], images: Mapping[str, Path]) -> list[Card]:
    return [Card(flip, thumbnail(images.get(flip.image))) for flip in flips[:SHOWN]]


def thumbnail(path: Path | None) -> str:
    """A small JPEG of an image file as a data address; "" when it cannot be read."""
    from PIL import Image

    if path is None:
        return ""
    try:
        pixels = read_image(path)
    except (AdcompileError, OSError):
        return ""
    if pixels.dtype.itemsize > 1:
        pixels = (pixels >> 8).astype("uint8")
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    picture.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
