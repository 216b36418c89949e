"""``search.json`` of a bundle: what an accuracy search tried and found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from adcompile.check.score import Metrics
from adcompile.lower.search import Step

SEARCH = "search.json"


class PartScore(BaseModel):
    """One line of the table of parts: the metric with only this part quantized, and with it and all
    parts before it."""

    part: str
    precision: str
    isolated: Metrics
    cumulative: Metrics


class NodeScore(BaseModel):
    """One line of the table of nodes: SNR in dB at the outputs of its part."""

    part: str
    node: str
    isolated: float
    cumulative: float
    macs: int


class PickScore(BaseModel):
    """The next nodes to leave in float, in the order of the search: ``share`` of the model's
    whole loss is estimated to be theirs."""

    part: str
    nodes: list[str]
    share: float


class StepScore(BaseModel):
    """One point that was tried."""

    floats: list[str] = []
    precisions: dict[str, str] = {}
    promoted: int = 0
    share: float = 0.0
    metrics: Metrics = {}

    @classmethod
    def of(cls, step: Step) -> StepScore:
        """The record of a step."""
        return cls(
            floats=list(step.floats),
            precisions=dict(step.precisions),
            promoted=step.promoted,
            share=round(step.share, 6),
            metrics=step.metrics,
        )


class SearchRecord(BaseModel):
    """``search.json`` of a bundle: everything the search found out. ``doubt`` says why the outcome may
    be chance, where it may."""

    budget: str
    reference: Metrics = {}
    parts: list[PartScore] = []
    nodes: list[NodeScore] = []
    order: list[PickScore] = []
    steps: list[StepScore] = []
    pareto: list[StepScore] = []
    chosen: StepScore | None = None
    doubt: str = ""


def read_search(bundle: Path) -> dict[str, object]:
    """The search of a bundle (whose files were checked) as plain data; empty when there was none."""
    path = bundle / SEARCH
    if not path.is_file():
        return {}
    return cast("dict[str, object]", json.loads(path.read_text(encoding="utf-8")))
