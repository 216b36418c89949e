"""How small can a PatchCore bank be? Sizes measured, and the smallest that meets a goal.

Greedy k-centre picks are nested: the first M rows of a fitted bank are the coreset of M rows. So
every size is measured on the features of one pass over the images. Accuracy does not fall steadily
with size (a smaller bank can be the better one), so nothing is bisected: a ladder of sizes is
measured from small to large, then every step below the smallest that meets the goal is halved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.bank import prepare_bank
from adcompile.anomaly.detector import Outcome, open_detector, run_samples
from adcompile.anomaly.fitting import measured, threshold_options
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array
from adcompile.anomaly.metrics import auroc, best_f1
from adcompile.anomaly.model_folder import Fitted
from adcompile.anomaly.presets import preset
from adcompile.anomaly.renormalise import with_score
from adcompile.anomaly.samples import DataSet, Sample
from adcompile.anomaly.scoring import Indices, patchcore_scores
from adcompile.anomaly.search import Searcher
from adcompile.anomaly.threshold import fit_score
from adcompile.contract import CONTRACT_KEY, Preprocess, Score, parse_contract
from adcompile.errors import InputError, UsageError
from adcompile.ir import model_io
from adcompile.ir.constants import refill
from adcompile.runtime.session import open_session

Watch = Callable[[int, int], None]
STEP = 2.0
PROBES = 12
"""Sizes measured below the first that meets a goal, at most."""
MAX_FEATURE_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Size:
    """One bank size, measured: ``milliseconds`` per image for search and score on this machine.

    ``f1`` is the best any threshold reaches. ``pareto``: no other size is as small and as good.
    """

    rows: int
    ratio: float
    bytes: int
    f1: float
    auroc: float
    milliseconds: float
    pareto: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """What a bank must reach: at least ``f1`` and ``auroc``, at most ``latency`` milliseconds per
    image and ``memory`` bytes. None is no demand."""

    f1: float | None = None
    auroc: float | None = None
    latency: float | None = None
    memory: int | None = None

    @property
    def accuracy(self) -> bool:
        """True when accuracy is demanded: then the smallest bank wins, otherwise the best."""
        return self.f1 is not None or self.auroc is not None

    def met_by(self, size: Size) -> bool:
        """Whether a measured size meets every demand."""
        return (
            (self.f1 is None or size.f1 >= self.f1)
            and (self.auroc is None or size.auroc >= self.auroc)
            and (self.latency is None or size.milliseconds <= self.latency)
            and (self.memory is None or size.bytes <= self.memory)
        )


class Sizes:
    """Measures banks that are the first rows of a fitted one, on labelled images."""

    def __init__(
        self, fitted: Fitted, samples: Sequence[Sample], *, watch: Watch | None = None
    ) -> None:
        """Takes the features of all samples. Refuses models without a bank, and one class only."""
        if fitted.bank is None or fitted.contract.score is None:
            raise UsageError(
                "only PatchCore has a bank to make smaller", where=fitted.config.method
            )
        if len({sample.label for sample in samples}) < 2:
            raise InputError(
                "the trade-off needs normal and anomalous images",
                why=f"{len(samples)} images, all of one class",
            )
        self.bank = fitted.bank
        self.score: Score = fitted.contract.score
        self.labels = [sample.label for sample in samples]
        self.total = round(len(self.bank) / _ratio_of(fitted))
        self.features, self.grid = _features(fitted, samples, watch)
        self.known: dict[int, Size] = {}

    @property
    def smallest(self) -> int:
        """The fewest rows that the score's formula can be computed from."""
        return self.score.k if self.score.weighting == "own_neighbours" else 1

    def measure(self, rows: int) -> Size:
        """Accuracy and time of the first *rows* rows; remembered."""
        if rows not in self.known:
            bank = np.ascontiguousarray(self.bank[:rows])
            scores: list[float] = []
            with Searcher(prepare_bank(bank)) as searcher:
                self._score(self.features[0], bank, searcher)  # the first call warms up
                start = time.perf_counter()
                scores = [self._score(image, bank, searcher) for image in self.features]
                spent = time.perf_counter() - start
            self.known[rows] = Size(
                rows=rows,
                ratio=rows / self.total,
                bytes=int(bank.nbytes),
                f1=best_f1(scores, self.labels, self.score.compare).f1,
                auroc=auroc(scores, self.labels),
                milliseconds=1000.0 * spent / len(self.features),
            )
        return self.known[rows]

    def _score(self, image: Array, bank: Array, searcher: Searcher) -> float:
        def search(rows: Array, k: int) -> tuple[Array, Indices]:
            distances, indices = searcher.knn(rows, k)
            return distances.astype(np.float32), indices

        found = patchcore_scores(image, bank, self.grid, self.score, search)
        return float(found.scores[0])

    def table(self) -> list[Size]:
        """All measured sizes, smallest first, with the Pareto front marked."""
        best = -np.inf, -np.inf
        marked: list[Size] = []
        for size in sorted(self.known.values(), key=lambda size: size.rows):
            front = size.f1 > best[0] or size.auroc > best[1]
            best = max(best[0], size.f1), max(best[1], size.auroc)
            marked.append(replace(size, pareto=front))
        return marked


def ladder(largest: int, smallest: int = 1) -> list[int]:
    """Sizes from *smallest* to *largest*, each about twice the one before."""
    if largest < smallest:
        raise UsageError(
            "the bank has fewer rows than the score needs",
            why=f"{largest} rows, {smallest} needed",
        )
    count = max(1, int(np.ceil(np.log(largest / smallest) / np.log(STEP))))
    return sorted({int(n) for n in np.rint(np.geomspace(smallest, largest, count + 1))})


def solve(sizes: Sizes, goal: Goal, *, watch: Watch | None = None) -> Size | None:
    """The bank that meets the goal: the smallest when accuracy is demanded, else the best one.

    None when no measured size meets it. Every size looked at is in ``sizes.table()``.
    """
    steps = ladder(len(sizes.bank), sizes.smallest)
    for number, rows in enumerate(steps, start=1):
        sizes.measure(rows)
        if watch is not None:
            watch(number, len(steps))
    fitting = [size for size in sizes.table() if goal.met_by(size)]
    if not fitting:
        return None
    if not goal.accuracy:
        return max(fitting, key=lambda size: (size.f1, size.auroc, -size.rows))
    best = fitting[0]
    for _ in range(PROBES):
        below = [rows for rows in sizes.known if rows < best.rows]
        middle = (max(below, default=sizes.smallest - 1) + best.rows) // 2
        if middle in sizes.known or middle < sizes.smallest:
            break
        found = sizes.measure(middle)
        best = found if goal.met_by(found) else best
    return best


def shrink(fitted: Fitted, rows: int, data: DataSet) -> Fitted:
    """The fitted model with the first *rows* rows of its bank, threshold and metrics renewed."""
    assert fitted.bank is not None
    assert fitted.contract.score is not None
    bank = np.ascontiguousarray(fitted.bank[:rows])
    model = _with_bank(fitted.model, bank)
    config = fitted.config.model_copy(update={"coreset_rows": rows})
    spec = next(iter(fitted.contract.inputs.values()))
    outcome = _outcome(model, data.validation, spec)
    evidence = outcome.evidence()
    chosen = preset(config.method, config.preset, side=config.image_size or None)
    options = threshold_options(config, chosen, evidence)
    score = fit_score(fitted.contract.score, evidence, options)
    model = with_score(model, fitted.contract, score)
    metrics = {"validation": measured(outcome, score)}
    if data.test:
        metrics["test"] = measured(_outcome(model, data.test, spec), score)
    return replace(
        fitted,
        config=config,
        contract=parse_contract(model.metadata_props[CONTRACT_KEY]),
        model=model,
        evidence=evidence,
        metrics=metrics,
        bank=bank,
    )


def _outcome(model: ir.Model, samples: Sequence[Sample], spec: Preprocess) -> Outcome:
    return run_samples(open_detector(model), samples, spec)


def _with_bank(model: ir.Model, bank: Array) -> ir.Model:
    """A copy of a PatchCore graph of ours with another bank."""
    changed = model.clone()
    refill(changed.graph.initializers["memory_bank"], bank)
    for node in changed.graph:
        if node.op_type == "PatchScorePaper":
            node.attributes["k"] = ir.AttrInt64("k", min(node.attributes["k"].as_int(), len(bank)))
    return changed


def _ratio_of(fitted: Fitted) -> float:
    """Share of all training rows that the fitted bank holds, as far as the configuration says."""
    values = fitted.config.model_dump()
    return 1.0 if values["coreset_rows"] else float(values["coreset_ratio"])


def _features(
    fitted: Fitted, samples: Sequence[Sample], watch: Watch | None
) -> tuple[list[Array], tuple[int, int]]:
    """Patch rows [P, C] of every image, from the graph itself, and the grid."""
    model = fitted.model.clone()
    inner = {value.name: value for node in model.graph for value in node.outputs}
    scorer = next((n for n in model.graph if n.op_type.startswith("PatchScore")), None)
    if "features" not in inner or scorer is None:
        raise UsageError("the graph has no patch features", where=model.graph.name or "")
    height, width = scorer.attributes["grid"].as_ints()
    model.graph.outputs.clear()
    model.graph.outputs.append(inner["features"])
    session = open_session(model_io.to_bytes(model))
    spec = next(iter(fitted.contract.inputs.values()))
    name = session.inputs[0].name
    found: list[Array] = []
    for index, image in enumerate(batches(samples, spec)):
        rows = np.asarray(session.run({name: image})["features"], np.float32)
        if rows.nbytes * len(samples) > MAX_FEATURE_BYTES:
            raise UsageError("the features of all images do not fit", why=f"{len(samples)} images")
        found.append(rows)
        if watch is not None:
            watch(index + 1, len(samples))
    return found, (int(height), int(width))
