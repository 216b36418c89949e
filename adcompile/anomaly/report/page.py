"""The page of an evaluation: one self-contained HTML file, worst and flipped images first.

No script, no request: pictures are data URIs, charts inline SVG, filters plain CSS. The policy in
its head forbids everything else, so a browser would say so if that changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from adcompile.anomaly.model_folder import Numbers
from adcompile.anomaly.report import charts
from adcompile.anomaly.report.gather import Gathering, Thumbs
from adcompile.anomaly.report.rows import Row
from adcompile.render import render_page

CARDS = 240
"""Images with pictures on the page; the others are in its table."""
_IMAGE = (("images", "images"), ("auroc", "AUROC"), ("average_precision", "AP"), ("f1", "F1"),
          ("precision", "precision"), ("recall", "recall"))  # fmt: skip
_PIXEL = (("auroc", "pixel AUROC"), ("aupro", "AUPRO"), ("best_f1", "best pixel F1"))


@dataclass(frozen=True)
class Seen:
    """How one subject saw one image."""

    gathering: Gathering
    number: int

    @property
    def subject(self) -> str:
        return self.gathering.name

    @property
    def row(self) -> Row:
        return self.gathering.rows[self.number]

    @property
    def thumbs(self) -> Thumbs:
        """Read when the page is rendered: only the images shown on it are."""
        return self.gathering.thumbs(self.number)

    @property
    def link(self) -> str:
        return self.gathering.link(self.number)


@dataclass(frozen=True)
class Card:
    """One image as all subjects saw it."""

    number: int
    path: str
    kind: str
    label: int
    wrong: bool
    flipped: bool
    seen: tuple[Seen, ...]

    @property
    def rank(self) -> tuple[int, float]:
        """Wrong and flipped ones first, the furthest off first; then the closest calls."""
        distances = [s.row.distance for s in self.seen]
        if self.wrong or self.flipped:
            off = [s.row.distance for s in self.seen if s.row.wrong] or distances
            return 0, -max(off)
        return 1, min(distances)

    @property
    def classes(self) -> str:
        """CSS classes that the filters look at."""
        words = ["anomalous" if self.label else "normal"]
        words += ["wrong"] if self.wrong else []
        words += ["flipped"] if self.flipped else []
        return " ".join(words)


def cards_of(gatherings: Sequence[Gathering]) -> list[Card]:
    """One card per image, in the order of the page. Subjects must have seen the same images."""
    cards: list[Card] = []
    for number, first in enumerate(gatherings[0].rows):
        rows = [g.rows[number] for g in gatherings]
        seen = tuple(Seen(g, number) for g in gatherings)
        cards.append(
            Card(
                number=number,
                path=_shown(first.path),
                kind=first.kind,
                label=first.label,
                wrong=any(row.wrong for row in rows),
                flipped=len({row.predicted for row in rows}) > 1,
                seen=seen,
            )
        )
    return sorted(cards, key=lambda card: (*card.rank, card.number))


def _shown(path: Path) -> str:
    """The last three parts of a path: enough to find the image, and no home folder on the page."""
    return "/".join(path.parts[-3:])


def report_page(
    gatherings: Sequence[Gathering],
    metrics: Mapping[str, Mapping[str, Numbers]],
    *,
    category: str,
    notes: Sequence[str] = (),
) -> str:
    """The HTML text; the same results give the same bytes."""
    cards = cards_of(gatherings)
    images = [g.image_curve for g in gatherings if g.image_curve is not None]
    pixels = [g.pixel_curve for g in gatherings if g.pixel_curve is not None]
    shared = [charts.roc_chart("Images: ROC", images)] if images else []
    shared += [charts.roc_chart("Pixels: ROC", pixels)] if pixels else []
    return render_page(
        "report/anomaly.html.j2",
        {
            "category": category,
            "subjects": [_subject(g, metrics[g.name]) for g in gatherings],
            "columns": [title for _, title in (*_IMAGE, *_PIXEL)],
            "charts": [drawing.svg() for drawing in shared],
            "own_charts": [
                (g.name, [g.score_histogram().svg(), g.drawings()["confusion_matrix"].svg()])
                for g in gatherings
            ],
            "cards": cards[:CARDS],
            "rest": cards[CARDS:],
            "counts": {
                "all": len(cards),
                "wrong": sum(card.wrong for card in cards),
                "flipped": sum(card.flipped for card in cards),
                "anomalous": sum(card.label for card in cards),
                "normal": sum(not card.label for card in cards),
            },
            "notes": notes,
        },
    )


def overview_page(
    rows: Sequence[tuple[str, str, Sequence[Gathering], Mapping[str, Mapping[str, Numbers]]]],
) -> str:
    """The page of several categories: (category, link to its page, subjects, their metrics)."""
    subjects = list(dict.fromkeys(g.name for _, _, found, _ in rows for g in found))
    return render_page(
        "report/overview.html.j2",
        {
            "subjects": subjects,
            "columns": [title for _, title in (*_IMAGE, *_PIXEL)],
            "rows": [
                {
                    "category": category,
                    "link": quote(link),
                    "cells": {g.name: _cells(metrics[g.name]) for g in found},
                    "wrong": {g.name: sum(row.wrong for row in g.rows) for g in found},
                }
                for category, link, found, metrics in rows
            ],
        },
    )


def _cells(metrics: Mapping[str, Numbers]) -> list[str]:
    """The numbers of one subject, ready to print."""
    return [
        _cell(metrics.get(level, {}).get(key))
        for level, table in (("image", _IMAGE), ("pixel", _PIXEL))
        for key, _ in table
    ]


def _subject(gathering: Gathering, metrics: Mapping[str, Numbers]) -> dict[str, object]:
    score = gathering.score
    formula = f"{score.method}, preset {score.preset}, k {score.k}, {score.metric}"
    rule = f"score {score.compare} {gathering.rows[0].limit:.4g}" if gathering.rows else ""
    return {
        "name": gathering.name,
        "cells": _cells(metrics),
        "formula": formula if score.method == "patchcore" else f"{score.method}, {score.preset}",
        "normalisation": score.normalisation,
        "threshold": _cell(score.threshold),
        "rule": rule,
    }


def _cell(value: float | int | None) -> str:
    return "–" if value is None else f"{value}" if isinstance(value, int) else f"{value:.4f}"
