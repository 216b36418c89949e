"""ROC, histogram and confusion matrix as drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.metrics import Confusion
from adcompile.anomaly.report.drawing import Box, Drawing, Line, Text

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 420, 300
LEFT, TOP, RIGHT, BOTTOM = 52, 30, 14, 42
MAX_POINTS = 400
_SERIES = ("accent", "other", "good", "bad")


@dataclass(frozen=True, slots=True)
class Curve:
    """A named ROC curve: false and true positive rates, ascending, and the area under it."""

    name: str
    fpr: Floats
    tpr: Floats
    area: float


def _frame(title: str, x: str, y: str) -> Drawing:
    drawing = Drawing(WIDTH, HEIGHT, title)
    drawing.add(
        Text(LEFT, 18, title, size=13),
        Text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, "soft", 11, "middle"),
        Text(14, (TOP + HEIGHT - BOTTOM) / 2, y, "soft", 11, "middle", turned=True),
    )
    return drawing


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _axis(drawing: Drawing, labels: Sequence[tuple[float, str]], *, vertical: bool) -> None:
    for share, label in labels:
        if vertical:
            drawing.add(Line([(_across(0), _up(share)), (_across(1), _up(share))], "line"))
            drawing.add(Text(LEFT - 6, _up(share) + 4, label, "soft", 10, "end"))
        else:
            drawing.add(Line([(_across(share), _up(0)), (_across(share), _up(0) + 4)], "soft"))
            drawing.add(Text(_across(share), _up(0) + 16, label, "soft", 10, "middle"))


def roc_chart(title: str, curves: Sequence[Curve]) -> Drawing:
    """True over false positive rate, one line per curve, with areas in the legend."""
    drawing = _frame(title, "false positive rate", "true positive rate")
    ticks = [(i / 4, f"{i / 4:g}") for i in range(5)]
    _axis(drawing, ticks, vertical=True)
    _axis(drawing, ticks, vertical=False)
    drawing.add(Line([(_across(0), _up(0)), (_across(1), _up(1))], "soft", dashed=True))
    for index, curve in enumerate(curves):
        colour = _SERIES[index % len(_SERIES)]
        keep = np.unique(np.linspace(0, len(curve.fpr) - 1, MAX_POINTS).astype(int))
        points = [(_across(float(curve.fpr[i])), _up(float(curve.tpr[i]))) for i in keep]
        # an earlier curve is wider, so that it shows below one that lies on it
        drawing.add(Line(points, colour, 2 + 2 * (len(curves) - 1 - index)))
        y = _up(0.06 + 0.08 * (len(curves) - 1 - index))
        area = "not defined" if np.isnan(curve.area) else f"{curve.area:.4f}"
        drawing.add(Text(_across(0.97), y, f"{curve.name}: {area}", colour, 11, "end"))
    return drawing


def histogram_chart(
    title: str,
    groups: Sequence[tuple[str, str, npt.ArrayLike]],
    threshold: float,
    *,
    bins: int = 30,
    log: bool = False,
    x: str = "score",
) -> Drawing:
    """Counts of values by group (name, colour, values), with the threshold as a line."""
    values = [np.asarray(v, dtype=np.float64).ravel() for _, _, v in groups]
    whole = np.concatenate([*values, np.array([threshold])])
    low, high = float(whole.min()), float(whole.max())
    high = high if high > low else low + 1.0
    counts = [np.histogram(v, bins, (low, high))[0].astype(np.float64) for v in values]
    heights = [np.log10(c + 1) if log else c for c in counts]
    top = max(max((float(h.max()) for h in heights if h.size), default=1.0), 1e-9)
    drawing = _frame(title, x, "log10(pixels + 1)" if log else "images")
    _axis(
        drawing,
        [(s, _short(low + s * (high - low))) for s in (0, 0.25, 0.5, 0.75, 1)],
        vertical=False,
    )
    _axis(drawing, [(s, _short(s * top)) for s in (0, 0.5, 1)], vertical=True)
    width = (_across(1) - _across(0)) / bins
    for (name, colour, _), bars, numbers in zip(groups, heights, counts, strict=True):
        for at in np.flatnonzero(bars).tolist():
            tall = float(bars[at]) / top
            box = (_across(0) + at * width, _up(tall), width - 1, _up(0) - _up(tall))
            drawing.add(Box(*box, colour, 0.6, f"{name}: {int(numbers[at])}"))
    middle = _across((threshold - low) / (high - low))
    drawing.add(Line([(middle, _up(0)), (middle, _up(1))], "fg", 1.5, dashed=True))
    anchor = "end" if middle > _across(0.6) else "start"
    drawing.add(
        Text(middle + (-5 if anchor == "end" else 5), _up(1) + 10, f"threshold {_short(threshold)}",
             "fg", 11, anchor)
    )  # fmt: skip
    for index, (name, colour, _) in enumerate(groups):
        y = 18 + 13 * index
        drawing.add(
            Text(WIDTH - RIGHT, y, name, colour, 11, "end"),
            Box(WIDTH - RIGHT - 7 * len(name) - 16, y - 8, 8, 8, colour, 0.6),
        )
    return drawing


def confusion_chart(title: str, counts: Confusion) -> Drawing:
    """Decisions against labels; right ones green, wrong ones red, stronger with more images."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    cell, left, top = 104, 150, 58
    cells = (
        (0, 0, counts.tn, "good", "TN"),
        (1, 0, counts.fp, "bad", "FP"),
        (0, 1, counts.fn, "bad", "FN"),
        (1, 1, counts.tp, "good", "TP"),
    )
    most = max(1, counts.tn, counts.fp, counts.fn, counts.tp)
    drawing.add(Text(left, 18, title, size=13))
    for column, word in enumerate(("normal", "anomalous")):
        drawing.add(
            Text(left + cell * (column + 0.5), top - 8, f"called {word}", "soft", 11, "middle"),
            Text(left - 10, top + cell * (column + 0.5) + 4, f"really {word}", "soft", 11, "end"),
        )
    for column, row, count, colour, name in cells:
        x, y = left + cell * column, top + cell * row
        drawing.add(
            Box(x + 1, y + 1, cell - 2, cell - 2, "host"),
            Box(
                x + 1, y + 1, cell - 2, cell - 2, colour, 0.1 + 0.5 * count / most if count else 0
            ),
            Text(x + cell / 2, y + cell / 2 + 6, str(count), "fg", 24, "middle"),
            Text(x + cell / 2, y + cell / 2 + 26, name, "fg", 11, "middle"),
        )
    return drawing


def _short(value: float) -> str:
    return f"{value:.3g}"
