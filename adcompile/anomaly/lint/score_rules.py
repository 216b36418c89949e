"""Score formulas, thresholds and ranges that contradict the graph or each other."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from adcompile.anomaly.lint.subject import Complaint, Subject
from adcompile.anomaly.recognise.algebra import made_by
from adcompile.anomaly.recognise.slices import downstream
from adcompile.anomaly.statistics import ROLES
from adcompile.contract import Score
from adcompile.ir.attributes import float_of, int_of
from adcompile.ir.graph import constant, static_shape

CLOSE = 1e-3  # of the threshold


def squared_against_root(subject: Subject) -> Iterator[Complaint]:
    """The declared distance is a root, the graph's a square, or the other way round."""
    score, found = subject.contract.score, subject.found
    if score is None or found is None:
        return
    declared = score.metric == "l2" if score.method != "padim" else score.square_root
    actual = found.metric == "l2" if found.method != "padim" else found.square_root
    if found.method in {"patchcore", "padim"} and declared != actual:
        names = {True: "a distance", False: "a squared distance"}
        yield Complaint(
            "score",
            f"the contract's threshold {score.threshold} is {names[declared]}, the graph gives "
            f"{names[actual]}",
            "set metric (square_root for PaDiM) to what the graph computes and refit the threshold",
        )


def squared_threshold(subject: Subject) -> Iterator[Complaint]:
    """A threshold outside of the score range whose root (or square) lies inside."""
    score = subject.contract.score
    if score is None or score.threshold is None:
        return
    low, high, limit = score.minimum, score.maximum, score.threshold
    if low is None or high is None or not high > low or low <= limit <= high:
        return
    if limit > 0 and low <= limit**0.5 <= high:
        why = f"its root {limit**0.5:.4g} lies inside: it is on the squared scale"
    elif low <= limit**2 <= high:
        why = f"its square {limit**2:.4g} lies inside: it is on the root scale"
    elif 0.0 < limit < 1.0:
        why = "it looks like a normalised threshold where a raw one is expected"
    else:
        why = "every image would be decided the same way"
    yield Complaint(
        "threshold",
        f"{limit:.6g} is outside of the score range {low:.6g} … {high:.6g}; {why}",
        "refit the threshold on this model's scores (adcompile retrain MODEL --only-threshold)",
    )


def empty_range(subject: Subject) -> Iterator[Complaint]:
    """Maximum not above minimum: the normalisation divides by nothing."""
    score = subject.contract.score
    if score is None or score.normalisation not in {"min_max", "sigma6"}:
        return
    low, high = score.minimum, score.maximum
    if low is None or high is None or not high > low:
        yield Complaint(
            "minimum, maximum",
            f"the score range is {low} … {high}: every image would be decided the same way",
            "fit with more than one kind of image, or give minimum and maximum",
        )


def score_formula(subject: Subject) -> Iterator[Complaint]:
    """Method, weighting, neighbours, enlargement or blur differ between contract and graph."""
    score, found = subject.contract.score, subject.found
    if score is None or found is None:
        return
    if score.method != found.method:
        yield _differs("method", score.method, found.method)
        return
    fields = ["weighting"] if found.method == "patchcore" else []
    if found.weighting == score.weighting != "none":
        fields.append("k")
    if found.map_size is not None and score.map_upsampling != "none":
        fields += ["map_upsampling", "blur_sigma"] if found.blur_sigma in (0.0, 4.0) else []
    for name in fields:
        declared, actual = getattr(score, name), getattr(found, name)
        if declared != actual and not _bounded_k(name, subject, score):
            yield _differs(name, declared, actual)


def _bounded_k(name: str, subject: Subject, score: Score) -> bool:
    """k above the number of rows is cut to it in the graph; another rule says so."""
    rows = _bank_rows(subject)
    return name == "k" and rows is not None and score.k > rows


def _differs(name: str, declared: object, actual: object) -> Complaint:
    return Complaint(
        f"score.{name}",
        f"the contract says {declared!r}, the graph computes {actual!r}",
        "thresholds of one formula do not fit another: take the contract of this graph",
    )


def _bank_rows(subject: Subject) -> int | None:
    for node in subject.heads("KnnSearch"):
        bank = constant(node.inputs[1])
        if bank is not None:
            return int(bank.shape[0])
    return None


def few_rows(subject: Subject) -> Iterator[Complaint]:
    """Fewer rows in the bank than neighbours asked for."""
    score, rows = subject.contract.score, _bank_rows(subject)
    needs = score is not None and score.weighting != "none"
    if score is not None and needs and rows is not None and score.k > rows:
        yield Complaint(
            "score.k",
            f"k is {score.k}, the bank has {rows} rows",
            "a larger coreset, or a smaller k",
        )


def vanishing_weight(subject: Subject) -> Iterator[Complaint]:
    """One neighbour and a softmax over it: the weight, and with it every score, is 0."""
    score = subject.contract.score
    if score is not None and score.weighting == "own_neighbours" and score.k == 1:
        yield Complaint(
            "score.k",
            "a softmax over one neighbour is 1, so the weight 1 - softmax is 0 for every image",
            "k of at least 2, or weighting: none",
        )


def normalised_twice(subject: Subject) -> Iterator[Complaint]:
    """A normalised score is normalised again, by the graph or by whoever follows the contract."""
    for node in subject.heads("NormalizeScore", "NormalizeScoreCdf"):
        again = [n for n in downstream(node.outputs) if n.op_type.startswith("NormalizeScore")]
        if again:
            yield Complaint(
                f"node {again[0].name!r}",
                f"it normalises what node {node.name!r} has normalised",
                "export with normalisation in one place only",
            )
    raw = [n for n, role in subject.contract.roles.items() if role == "raw_score"]
    for value in subject.model.graph.outputs:
        last = value.producer()
        if value.name in raw and last is not None and last.op_type.startswith("NormalizeScore"):
            yield Complaint(
                f"output {value.name!r}",
                "its role is raw_score, but the graph normalises it: it would be normalised twice",
                "give it the role score",
            )


def threshold_differs(subject: Subject) -> Iterator[Complaint]:
    """The graph's own threshold or scale is another than the contract's."""
    score, found = subject.contract.score, subject.found
    if score is None or found is None or score.threshold is None:
        return
    if found.normalisation == "none" and score.normalisation != "none":
        raw = "raw_score" in subject.contract.roles.values()
        if found.method == score.method and not raw:
            yield Complaint(
                "score.normalisation",
                f"the contract says {score.normalisation!r}, the graph's score is raw: "
                f"the decision level {score.decision} is on another scale",
                "compare the raw score with the raw threshold (normalisation: none)",
            )
        return
    if found.normalisation == "none" or found.threshold is None:
        return
    if score.normalisation == "none":
        if not 0.0 <= score.threshold <= 1.0:
            yield Complaint(
                "score.threshold",
                f"{score.threshold:.6g} is a raw threshold, the graph's score is normalised to 0…1",
                "compare with the decision level (0.5), or export without normalisation",
            )
        return
    if abs(found.threshold - score.threshold) > CLOSE * max(abs(found.threshold), 1e-12):
        yield Complaint(
            "score.threshold",
            f"the contract says {score.threshold:.6g}, the graph has {found.threshold:.6g}",
            "retrain with --only-threshold, so that both change together",
        )


def shared_range(subject: Subject) -> Iterator[Complaint]:
    """Score and map normalised by the same numbers although they are different quantities."""
    found = subject.found
    if found is None or found.weighting == "none":
        return
    seen: dict[tuple[float, float, float], ir.Node] = {}
    for node in subject.heads("NormalizeScore"):
        names = ("threshold", "minimum", "maximum")
        low, high = (float_of(node, n, d) for n, d in zip(names[1:], (0.0, 1.0), strict=True))
        key = (round(float_of(node, "threshold"), 4), round(low, 4), round(high, 4))
        other = seen.setdefault(key, node)
        if other is not node:
            yield Complaint(
                f"nodes {other.name!r} and {node.name!r}",
                "the weighted image score and the patch map are normalised with the same "
                "threshold and range, although they are different quantities",
                "give the map its own threshold (pixel_threshold)",
            )


def overflowing_softmax(subject: Subject) -> Iterator[Complaint]:
    """exp of distances without subtracting the largest: infinite above 88."""
    starts = [v for n in subject.heads("KnnSearch") for v in n.outputs[:1]]
    for node in downstream(starts):
        if node.op_type != "Exp" or node.domain != "":
            continue
        gap = made_by(node.inputs[0], "Sub")
        if gap is None or made_by(gap.inputs[1], "ReduceMax", "TopK", "Slice", "Gather") is None:
            yield Complaint(
                f"node {node.name!r}",
                "exp of a distance without subtracting the largest one: infinite above 88",
                "use Softmax, or subtract the maximum first",
            )


def channel_index(subject: Subject) -> Iterator[Complaint]:
    """PaDiM statistics without the random choice of channels they were fitted on."""
    for node in subject.heads(*ROLES):
        value = node.inputs[0]
        while (step := made_by(value, "Reshape", "Identity")) is not None:
            value = step.inputs[0]
        source = None if value is None else value.producer()
        if source is None or source.op_type in {"Gather", "GatherElements"}:
            continue
        layers = len(source.inputs) if source.op_type == "Concat" else 1
        shape = static_shape(node.inputs[0])
        channels = shape[1] if shape is not None and len(shape) == 4 else "all"
        what = "one layer only" if layers == 1 else f"{layers} layers"
        if layers > 1 and source.op_type == "Concat" and int_of(source, "axis") == 1:
            what += ", all channels in order"
        yield Complaint(
            f"node {node.name!r}",
            f"PaDiM picks channels of its layers by a saved random index; the graph has none "
            f"({what}, {channels} channels), so statistics may meet other channels",
            "export with the channel index (a Gather on axis 1), and all layers",
        )


RULES = {
    "squared-against-root": squared_against_root,
    "threshold-outside-range": squared_threshold,
    "empty-range": empty_range,
    "score-formula": score_formula,
    "few-rows": few_rows,
    "vanishing-weight": vanishing_weight,
    "normalised-twice": normalised_twice,
    "threshold-differs": threshold_differs,
    "shared-range": shared_range,
    "overflowing-softmax": overflowing_softmax,
    "channel-index": channel_index,
}
