"""Does a bank belong to a bundle? Formula, pre-processing, width and features are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.categories.site import Engine, cut_at, query_of
from adcompile.anomaly.formats.record import Trained
from adcompile.anomaly.maps import Array
from adcompile.anomaly.model_folder import Fitted
from adcompile.contract import Score
from adcompile.errors import FormatError, InputError
from adcompile.ir import model_io
from adcompile.runtime.feeds import read_array
from adcompile.runtime.session import open_session

NUMBERS = frozenset(
    {"threshold", "pixel_threshold", "minimum", "maximum", "mean", "std", "decision", "preset"}
)
"""What a category may have of its own; every other field of the formula is the engine's."""
RELATIVE = 1e-3
"""Features of the same network may differ by this share of their largest value (other runtime
versions, other kernels); another network, layer or pre-processing differs by far more."""


def check_score(own: Score, other: Score, where: str) -> None:
    """Refuse another formula, naming the first field that differs."""
    for field in Score.model_fields:
        if field in NUMBERS or getattr(own, field) == getattr(other, field):
            continue
        raise InputError(
            "the score formulas differ",
            where=f"{where}: score.{field}",
            why=f"{getattr(other, field)!r}, the bundle has {getattr(own, field)!r}",
            fix="fit with the bundle's preset, or build a bundle of its own",
        )


def check_fitted(engine: Engine, fitted: Fitted, where: str) -> None:
    """Refuse a fitted model whose formula, pre-processing or features are not the bundle's."""
    own, other = engine.bundle.manifest.contract, fitted.contract
    assert own.score is not None
    if other.score is None or other.score.method != engine.site.kind:
        raise InputError(f"not a {engine.site.kind} model", where=where)
    check_score(own.score, other.score, where)
    rule = next(iter(other.inputs.values()), None)
    for field in type(engine.preprocess).model_fields:
        theirs = None if rule is None else getattr(rule, field)
        if theirs != getattr(engine.preprocess, field):
            raise InputError(
                "the pre-processing differs",
                where=f"{where}: inputs.{field}",
                why=f"{theirs!r}, the bundle has {getattr(engine.preprocess, field)!r}",
            )
    difference = _feature_difference(engine, fitted.model, where)
    if difference > RELATIVE:
        raise InputError(
            "the backbone is not the bundle's",
            where=f"{where}: backbone",
            why=f"features of the golden image differ by {difference:.2g} of their largest value",
            fix="fit with the bundle's backbone and layers, or enrol from images with --data",
        )


def _feature_difference(engine: Engine, model: ir.Model, where: str) -> float:
    """Largest difference of what the search is asked for, relative to its largest value.

    The bundle's side starts from the recorded float values at the part's border, so quantization
    does not count.
    """
    golden = engine.bundle.manifest.golden
    if not golden:
        raise InputError(
            "the bundle holds no golden data to compare a backbone with",
            where=str(engine.bundle.path),
            fix="enrol from images: --data DIR",
        )
    known = golden[0].inputs | golden[0].boundaries

    def recorded(name: str) -> Array:
        return np.asarray(read_array(engine.bundle.path / known[name]), dtype=np.float32)

    names = [spec.name for spec in engine.site.part.inputs]
    mine = engine.query({name: recorded(name) for name in names})
    query = query_of(model, engine.site.kind)
    if query is None:
        raise InputError("the model has no search of ours", where=where)
    session = open_session(model_io.to_bytes(cut_at(model, query)))
    image = recorded(engine.input)
    found = session.run({session.inputs[0].name: image})
    theirs = np.asarray(next(iter(found.values())), dtype=np.float32)
    if theirs.shape != mine.shape:
        raise InputError(
            "the backbone is not the bundle's",
            where=f"{where}: backbone",
            why=f"its features are {theirs.shape}, the bundle's {mine.shape}",
        )
    return float(np.abs(theirs - mine).max() / max(float(np.abs(mine).max()), 1e-30))


def check_trained(engine: Engine, trained: Trained, source: Path) -> None:
    """Refuse a file whose width, grid, k or input size is not the bundle's."""
    site, score = engine.site, engine.bundle.manifest.contract.score
    assert score is not None
    if trained.method != site.kind:
        raise FormatError(
            f"the bundle searches as {site.kind} does",
            where=f"{source}: method",
            why=trained.method,
        )
    size = engine.preprocess.size
    if trained.input_size not in (None, size):
        raise FormatError(
            "made for another input size",
            where=f"{source}: input_size",
            why=f"{trained.input_size}, the bundle takes {size}",
        )
    if (
        trained.neighbours is not None
        and trained.neighbours != score.k
        and site.kind == "patchcore"
    ):
        raise FormatError(
            "made for another number of neighbours",
            where=f"{source}: neighbours",
            why=f"{trained.neighbours}, the bundle's formula has {score.k}",
        )
    for role in site.constants:
        given: Array | None = getattr(trained, role)
        own = site.constant(role).shape
        fits = given is not None and (
            given.shape == own or (role == "bank" and given.shape[1:] == own[1:])
        )
        if not fits:
            raise FormatError(
                "does not fit the bundle's features",
                where=f"{source}: {role}",
                why=f"shape {None if given is None else given.shape}, the bundle has {own}",
                fix="use the backbone and layers the bundle was built with",
            )
