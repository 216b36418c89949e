"""The search for what to promote: parts, nodes, then the fewest of them that hold the budget."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adcompile.anomaly.accuracy import METRICS
from adcompile.backend_options import float_nodes
from adcompile.check.emitted import EmittedPart
from adcompile.check.score import SNR, DetectionScorer, Scorer, SnrScorer
from adcompile.errors import UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part, Report
from adcompile.job import Job
from adcompile.lower.observe import Remembering
from adcompile.lower.search import (
    Budget,
    Search,
    Step,
    fewest,
    most_tries,
    node_macs,
    pareto,
)
from adcompile.place.facts import facts_of
from adcompile.steps.accuracy_scorer import AccuracyScorer
from adcompile.steps.inputs import fixed_specs
from adcompile.steps.lowering import context, emit_part
from adcompile.steps.ranking import merged, rank
from adcompile.steps.search_record import PartScore, PickScore, SearchRecord, StepScore
from adcompile.target import FLOAT_PRECISIONS


def scorer_of(job: Job, budget: Budget) -> Scorer:
    """What measures the budget's metric. Raises UsageError when data for it are missing."""
    options = job.options
    if budget.metric == SNR:
        return SnrScorer(quantized_parts(job), job.calibration)
    if budget.metric in METRICS:
        return AccuracyScorer(job)
    if options.coco is None or options.coco_images is None:
        raise UsageError(
            f"the budget {budget} needs annotated images",
            why=f"only {SNR} is measured without, and of anomaly detectors what --data allows",
            fix="give --coco ANNOTATIONS --images FOLDER",
        )
    return DetectionScorer(
        job.parts,
        fixed_specs(job),
        job.source.outputs,
        job.contract,
        options.coco,
        options.coco_images,
        options.eval_samples,
    )


def quantized_parts(job: Job) -> list[Part]:
    return [
        p for p in job.parts if p.placement == "device" and p.precision not in FLOAT_PRECISIONS
    ]


@dataclass(frozen=True, slots=True)
class Variant:
    """One choice for one part: its precision, and the nodes that stay in float."""

    part: str
    precision: str
    floats: frozenset[str]


@dataclass
class Searcher:
    """One search. Emitted variants are kept, so that a part is quantized once per choice."""

    job: Job
    budget: Budget
    emitted: dict[Variant, EmittedPart] = field(default_factory=dict[Variant, EmittedPart])

    def run(self) -> SearchRecord:
        """Measure, and search when the quantized model does not hold the budget."""
        job, budget = self.job, self.budget
        job.calibration = {name: Remembering(data) for name, data in job.calibration.items()}
        self.scorer = scorer_of(job, budget)
        self.parts = quantized_parts(job)
        self.macs = {p.name: node_macs(p.model, job_rows(job)) for p in job.parts}
        self.total = sum(sum(m.values()) for m in self.macs.values()) or 1
        self.rounded: dict[str, set[str]] = {}
        record = SearchRecord(budget=str(budget))
        job.watch("search: the quantized model")
        base = self._score((), {})
        budget.holds(base.metrics)  # an unknown metric is an error before any more work
        record.reference = self.scorer.reference
        record.parts = self._parts(base)
        if budget.holds(base.metrics):
            return self._finished(record, Search(base, (base,)))
        rankings = [rank(job, part) for part in self.parts]
        self.rounded = {r.part.name: {n for p in r.picks for n in p.nodes} for r in rankings}
        record.nodes = [row for ranking in rankings for row in ranking.nodes]
        harm = self._harm(record)
        record.order = merged(rankings, harm)
        return self._finished(record, self._search(record.order, harm, base))

    def _finished(self, record: SearchRecord, found: Search) -> SearchRecord:
        record.steps = [StepScore.of(s) for s in found.steps]
        record.pareto = [StepScore.of(s) for s in pareto(found.steps, self.budget)]
        record.chosen = None if found.chosen is None else StepScore.of(found.chosen)
        record.doubt = self._doubt(found.steps)
        return record

    def _doubt(self, steps: Sequence[Step]) -> str:
        """Why the outcome may be chance: a metric that got worse while most nodes were in float."""
        metric, missing = self.budget.metric, self.budget.missing
        count = sum(map(len, self.rounded.values()))
        plain = next((s for s in steps if not s.promoted), None)
        worse = [
            s
            for s in steps
            if plain
            and 2 * s.promoted >= count > 0
            and missing(s.metrics) > missing(plain.metrics)
        ]
        if plain is None or not worse:
            return ""
        worst = max(worse, key=lambda s: s.promoted)
        return (
            f"{metric} is {plain.metrics[metric]:.4g} with nothing in float and "
            f"{worst.metrics[metric]:.4g} with {worst.promoted} of {count} nodes: on so few images "
            "chance decides it as much as quantization (more images, or a bound on another metric)"
        )

    def _context(self, part: Part, variant: Variant) -> LowerContext:
        """What the final build lowers the variant with."""
        ctx = context(self.job, replace(part, precision=variant.precision))
        floats = {"float_nodes": "\n".join(sorted(float_nodes(ctx.options) | variant.floats))}
        own = Report(allowed=self.job.report.allowed)
        return replace(ctx, options={**ctx.options, **floats}, report=own)

    def _emit(self, part: Part, variant: Variant) -> EmittedPart:
        """The part as the final build lowers and emits it. Of the variants with nodes in float only
        the last one is kept: they are as large as the part."""
        if variant not in self.emitted:
            for old in [v for v in self.emitted if v.part == part.name and v.floats]:
                shutil.rmtree(self.emitted.pop(old).folder)
            ctx, out = self._context(part, variant), FileSet()
            lowered = self.job.backend.lower(part, ctx)
            record = emit_part(self.job, self.job.backend, part, lowered, ctx, out)
            (self.job.work / "search").mkdir(exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.job.work / "search"))
            self.emitted[variant] = EmittedPart.write(record, out, folder)
        return self.emitted[variant]

    def _variants(
        self, parts: list[Part], floats: tuple[str, ...], precisions: Mapping[str, str]
    ) -> dict[str, EmittedPart]:
        found: dict[str, EmittedPart] = {}
        for part in parts:
            own = frozenset(f for f in floats if f in self.macs[part.name])
            precision = precisions.get(part.name, part.precision)
            found[part.name] = self._emit(part, Variant(part.name, precision, own))
        return found

    def _score(self, floats: tuple[str, ...], precisions: Mapping[str, str]) -> Step:
        metrics = self.scorer(self._variants(self.parts, floats, precisions))
        names = {*floats}
        for part in self.parts:
            if part.name in precisions:
                names |= self.rounded[part.name]
        work = sum(m.get(n, 0) for n in names for m in self.macs.values())
        return Step(floats, tuple(precisions.items()), len(names), work / self.total, metrics)

    def _parts(self, base: Step) -> list[PartScore]:
        rows: list[PartScore] = []
        for index, part in enumerate(self.parts):
            self.job.watch(f"search: part {part.name}")
            only = len(self.parts) == 1
            alone = base.metrics if only else self.scorer(self._variants([part], (), {}))
            last = index + 1 == len(self.parts)
            upto = (
                base.metrics
                if last
                else self.scorer(self._variants(self.parts[: index + 1], (), {}))
            )
            rows.append(
                PartScore(
                    part=part.name, precision=part.precision, isolated=alone, cumulative=upto
                )
            )
        return rows

    def _search(self, order: list[PickScore], harm: Mapping[str, float], base: Step) -> Search:
        """Nodes first, most harmful first; then whole parts, if that may promote fewer nodes."""
        tries = self.job.options.budget_tries
        say = Progress(self.job, self.budget, base, most_tries(len(order), tries))

        def nodes(count: int) -> Step:
            if count == 0:
                return base
            floats = tuple(name for pick in order[:count] for name in pick.nodes)
            return say.tried(f"{len(floats)} nodes in float", lambda: self._score(floats, {}))

        found = fewest(len(order), nodes, self.budget, tries)
        steps = list(found.steps)
        chosen = found.chosen
        for precision in self._rungs():
            ranked = self._ranked(harm, precision)
            smallest = min((len(self.rounded[p.name]) for p in ranked), default=0)
            if not ranked or (chosen is not None and chosen.promoted < smallest):
                continue
            say = Progress(self.job, self.budget, base, most_tries(len(ranked), tries))

            def whole(
                count: int, ranked: list[Part] = ranked, to: str = precision, say: Progress = say
            ) -> Step:
                if count == 0:
                    return base
                raised = {p.name: to for p in ranked[:count]}
                return say.tried(f"{', '.join(raised)} in {to}", lambda: self._score((), raised))

            other = fewest(len(ranked), whole, self.budget, tries)
            steps += [s for s in other.steps if s is not base]
            better = other.chosen is not None and (
                # of as many nodes, those that stay on the device
                chosen is None or other.chosen.promoted <= chosen.promoted
            )
            chosen = other.chosen if better else chosen
        return Search(chosen, tuple(steps))

    def _harm(self, record: SearchRecord) -> dict[str, float]:
        """How far each part alone takes the metric from where no part is quantized."""
        metric, sign = self.budget.metric, 1.0 if self.budget.at_least else -1.0
        best = record.reference.get(metric)
        if metric == SNR:
            return {row.part: 10.0 ** (-row.isolated[SNR] / 10.0) for row in record.parts}
        start = best if best is not None else 0.0  # a loss: float has none
        return {r.part: max(sign * (start - r.isolated[metric]), 1e-6) for r in record.parts}

    def _ranked(self, harm: Mapping[str, float], precision: str) -> list[Part]:
        """Parts that can run in *precision*, the most harmful first."""
        job = self.job
        facts = facts_of(job.ir, job.target, precision)
        legal = {n.name for n in job.ir.graph if job.backend.supports(n, facts)}
        able = [p for p in self.parts if {n.name for n in p.model.graph} <= legal]
        return sorted(able, key=lambda p: -harm[p.name])

    def _rungs(self) -> list[str]:
        """Precisions of the target above the lowest in use, lowest first; full float is the host's."""
        ladder = [p for p in self.job.target.precisions if p != "fp32"]
        first = min(ladder.index(p.precision) for p in self.parts)
        return ladder[first + 1 :]


@dataclass
class Progress:
    """Says what is tried, how often that may still happen, and what was best so far."""

    job: Job
    budget: Budget
    best: Step
    most: int
    done: int = 1

    def tried(self, what: str, measure: Callable[[], Step]) -> Step:
        """Announce a try, then make it."""
        self.done += 1
        metric = self.budget.metric
        best = f"best {metric} {self.best.metrics[metric]:.4g}, wanted {self.budget}"
        self.job.watch(f"search: try {self.done} of at most {self.most}: {what} ({best})")
        step = measure()
        if self.budget.missing(step.metrics) < self.budget.missing(self.best.metrics):
            self.best = step
        return step


def job_rows(job: Job) -> int:
    """Regions per image that work is counted with."""
    return job.plan.settings.roi_rows
