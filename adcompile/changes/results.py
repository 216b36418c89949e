"""What it cost: the numbers that both builds measured, side by side, and both bundles on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adcompile.changes.declared import pairs
from adcompile.changes.graph import matched
from adcompile.changes.read import Side
from adcompile.changes.record import BETTER, WORSE, Agreed, Change, Section
from adcompile.check.agreement import (
    SAME_DECISION,
    Agreement,
    Key,
    agreement,
    find_sources,
)
from adcompile.contract import Contract
from adcompile.errors import InputError
from adcompile.runtime.bundle import load
from adcompile.runtime.decision import decide, limit_of
from adcompile.runtime.executor import Array

HIGHER = (
    *("snr_db", "snr", "matched", "auroc", "f1", "aupro", "map_agreement", "rank_correlation"),
    *("map", "map50", "map75", "held"),
)
LOWER = ("max_abs", "mean_abs", "outside", "flips", "flips_now_wrong", "loss")
"""Endings of a measure's name that say which direction is better."""

NOISE_DB = 0.1
NOISE = 1e-3  # relative; smaller differences are the rounding of another machine or release
ONLY_SAID = frozenset({"accuracy"})  # a sentence of numbers that are there as well


def accuracy(old: Side, new: Side) -> Section:
    """Every number of ``results`` that differs by more than rounding, and which way is worse."""
    alike = matched(old, new)
    one = _results(old, alike)
    two = _results(new, {name: name for name in alike.values()})
    rows = [
        _measured(name, one.get(name), two.get(name))
        for name in dict.fromkeys([*one, *two])
        if name not in ONLY_SAID and not _equal(name, one.get(name), two.get(name))
    ]
    rows.sort(key=lambda row: (row.subject != "ok", row.verdict != WORSE, row.verdict != BETTER))
    words = [
        f"{n} {word}" for word in (WORSE, BETTER) if (n := sum(r.verdict == word for r in rows))
    ]
    state = {"no": "verification fails now", None: "not verified now"}
    words = [state[r.new] for r in rows if r.subject == "ok" and r.new in state] + words
    summary = ", ".join(words)
    return Section("accuracy", tuple(rows), summary, tuple(_notes(old, new)))


def _results(side: Side, names: Mapping[str, str]) -> dict[str, float | str]:
    """The measured numbers, parts called as in *names*; without those of parts that only one has."""
    found: dict[str, float | str] = {}
    for key, value in side.manifest.results.items():
        word, _, rest = key.partition(" ")
        part, _, measure = rest.partition(" ")
        if word != "part":
            found[key] = value
        elif part in names:
            found[f"{word} {names[part]} {measure}"] = value
    return found


def _equal(name: str, old: float | str | None, new: float | str | None) -> bool:
    if not isinstance(old, float) or not isinstance(new, float):
        return old == new
    if name.endswith("_db"):
        return abs(new - old) < NOISE_DB
    return abs(new - old) <= NOISE * max(abs(old), abs(new))


def _measured(name: str, old: float | str | None, new: float | str | None) -> Change:
    if name in {"ok", "budget held"} and old is not None:
        note = "" if new is not None else "not measured"
        return Change(name, old, new, note, verdict=BETTER if new == "yes" else WORSE)
    verdict = ""
    if isinstance(old, float) and isinstance(new, float) and " float_" not in name:
        if name.endswith(LOWER):
            verdict = WORSE if new > old else BETTER
        elif name.endswith(HIGHER) and not name.startswith("float "):
            verdict = BETTER if new > old else WORSE
    return Change(name, old, new, verdict=verdict)


def _notes(old: Side, new: Side) -> list[str]:
    found: list[str] = []
    inputs = [
        [
            side.manifest.files[file].sha256
            for sample in side.manifest.golden
            for file in sample.inputs.values()
        ]
        for side in (old, new)
    ]
    if all(inputs) and inputs[0] != inputs[1]:
        found.append("the bundles were verified on different golden data: compare with care")
    judged = [_judged(side) for side in (old, new)]
    if all(judged) and judged[0] != judged[1]:
        found.append("the detectors were judged on different images: compare with care")
    places = [side.manifest.verified_on or "nothing" for side in (old, new)]
    if places[0] != places[1]:
        found.append(f"verified on: {places[0]} -> {places[1]}")
    bounds = [
        {role: f"{pair[0]:g}, {pair[1]:g}" for role, pair in side.manifest.tolerances.items()}
        for side in (old, new)
    ]
    if other := pairs(*bounds):
        words = [f"{c.subject} {c.old or 'none'} -> {c.new or 'none'}" for c in other]
        found.append("other bounds of the verification: " + "; ".join(words))
    return found


def _judged(side: Side) -> list[tuple[str, int]]:
    """Digest and label of the images that a deployed detector is held against."""
    images = () if side.manifest.accuracy is None else side.manifest.accuracy.images
    return [(side.manifest.files[image.file].sha256, image.label) for image in images]


def agreed(old: Path, new: Path, images: Path, *, device: str = "auto") -> Agreed:
    """Run both on an image or a folder of them; each makes its input tensors by its own contract."""
    sources: Sequence[tuple[Path, str]] = (
        [(images, "")] if images.is_file() else find_sources(images)
    )
    total = Agreement()
    with load(old, device, check=False) as first, load(new, device, check=False) as second:
        contracts = first.manifest.contract, second.manifest.contract
        try:
            for path, home in sources:
                outputs = first(path), second(path)
                measured = agreement(*outputs, contracts[0].roles)
                measured |= _decisions(outputs, contracts)
                total.add(f"{home}/{path.name}" if home else path.name, measured)
        except InputError as error:
            note = ": ".join(part for part in (error.what, error.why) if part)
            return Agreed(len(sources), (), None, note)
    return Agreed(len(sources), tuple(total.rows()), total.lowest())


def _decisions(
    outputs: Sequence[Mapping[str, Array]], contracts: Sequence[Contract]
) -> dict[Key, float]:
    """Whether two anomaly detectors, each by its own threshold, decide alike; empty for others."""
    found: list[tuple[str, bool]] = []
    for values, contract in zip(outputs, contracts, strict=True):
        named = [name for name, role in contract.roles.items() if role == "score"]
        if contract.score is None or limit_of(contract.score) is None or not named:
            return {}
        found.append((named[0], bool(decide(values[named[0]], contract.score).any())))
    return {(found[0][0], SAME_DECISION): float(found[0][1] == found[1][1])}
