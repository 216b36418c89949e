"""A few shapes that become an SVG text for the page or a PNG for a file, from one description.

Coordinates are pixels from the top left. Colours are names that both renderings look up: the SVG
leaves them to the page's style sheet (``class``), so charts follow its dark and light themes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from PIL import Image, ImageDraw

from adcompile.anomaly.report.pictures import font

LIGHT: Mapping[str, str] = {
    "bg": "#ffffff",
    "fg": "#1d2733",
    "soft": "#5b6b7c",
    "line": "#d5dce4",
    "good": "#1b7a43",
    "bad": "#b3261e",
    "accent": "#2563c9",
    "other": "#b7791f",
    "host": "#eef2f6",
}
"""The light theme of ``templates/report/base.html.j2``, for pictures."""
SCALE = 2
"""Pictures are drawn larger than charts on the page, so that they stay sharp in print."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; dashed on request."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; *anchor* is start, middle or end; *turned* runs upwards."""

    x: float
    y: float
    text: str
    colour: str = "fg"
    size: int = 12
    anchor: str = "start"
    turned: bool = False


@dataclass
class Drawing:
    """A chart: its size, what it shows in words, and its shapes in drawing order."""

    width: int
    height: int
    title: str
    shapes: list[Line | Box | Text] = field(default_factory=list[Line | Box | Text])

    def add(self, *shapes: Line | Box | Text) -> None:
        """Append shapes."""
        self.shapes += shapes

    def svg(self) -> str:
        """An inline SVG element whose colours are classes of the page."""
        label = escape(self.title, quote=True)
        parts = [
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{label}">'
        ]
        parts += [_svg(shape) for shape in self.shapes]
        return "\n".join([*parts, "</svg>"])

    def picture(self) -> Image.Image:
        """The chart as an image, on white, twice as large."""
        sheet = Image.new("RGB", (self.width * SCALE, self.height * SCALE), LIGHT["bg"])
        draw = ImageDraw.Draw(sheet, "RGBA")
        for shape in self.shapes:
            _paint(draw, shape)
        return sheet


def _svg(shape: Line | Box | Text) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return (
            f'<polyline class="s-{shape.colour}" fill="none" stroke-width="{shape.width:g}"'
            f'{dash} points="{points}"/>'
        )
    if isinstance(shape, Box):
        tip = f"<title>{escape(shape.tip)}</title>" if shape.tip else ""
        return (
            f'<rect class="f-{shape.colour}" x="{shape.x:.1f}" y="{shape.y:.1f}" '
            f'width="{shape.width:.1f}" height="{shape.height:.1f}" '
            f'fill-opacity="{shape.opacity:g}">{tip}</rect>'
        )
    turn = f' transform="rotate(-90 {shape.x:.1f} {shape.y:.1f})"' if shape.turned else ""
    return (
        f'<text class="f-{shape.colour}" x="{shape.x:.1f}" y="{shape.y:.1f}" '
        f'font-size="{shape.size}" text-anchor="{shape.anchor}"{turn}>{escape(shape.text)}</text>'
    )


def _rgba(colour: str, opacity: float = 1.0) -> tuple[int, int, int, int]:
    text = LIGHT[colour].lstrip("#")
    red, green, blue = (int(text[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue, round(255 * opacity)


def _paint(draw: ImageDraw.ImageDraw, shape: Line | Box | Text) -> None:
    if isinstance(shape, Line):
        points = [(x * SCALE, y * SCALE) for x, y in shape.points]
        for start, end in _dashes(points) if shape.dashed else pairwise(points):
            draw.line([start, end], _rgba(shape.colour), max(1, round(shape.width * SCALE)))
        return
    if isinstance(shape, Box):
        corner = ((shape.x + shape.width) * SCALE, (shape.y + shape.height) * SCALE)
        draw.rectangle(
            [(shape.x * SCALE, shape.y * SCALE), corner], fill=_rgba(shape.colour, shape.opacity)
        )
        return
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
    face = font(shape.size * SCALE)
    if not shape.turned:
        at = (shape.x * SCALE, shape.y * SCALE)
        draw.text(at, shape.text, _rgba(shape.colour), face, anchor)
        return
    left, top, right, bottom = (round(v) for v in face.getbbox(shape.text))
    label = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(label).text((-left, -top), shape.text, 255, face)
    turned = label.rotate(90, expand=True)
    corner = (round(shape.x * SCALE - turned.width), round(shape.y * SCALE - turned.height / 2))
    draw.bitmap(corner, turned, _rgba(shape.colour))


def _dashes(
    points: Sequence[tuple[float, float]], on: float = 10, off: float = 8
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Short pieces along each segment."""
    pieces: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
        at = 0.0
        while at < length:
            a, b = at / length, min(at + on, length) / length
            start = (x0 + (x1 - x0) * a, y0 + (y1 - y0) * a)
            pieces.append((start, (x0 + (x1 - x0) * b, y0 + (y1 - y0) * b)))
            at += on + off
    return pieces
