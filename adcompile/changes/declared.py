"""What was declared and asked for: model, contract, target, options, tools; and the files' sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from adcompile.changes.read import Side
from adcompile.changes.record import Change, Section
from adcompile.manifest import TensorSpec

SHORT = 12  # characters of a digest
LEARNED = frozenset(
    {"threshold", "pixel_threshold", "minimum", "maximum", "mean", "std", "decision"}
)
"""Numbers of a score that training and calibration find; they stand with the bank."""

NOT_OPTIONS = frozenset({"model", "name", "target", "contract", "adcompile", "tools", "precision"})
"""Fields of a build's identity that other sections show."""


def model(old: Side, new: Side) -> Section:
    """Source model, its inputs and outputs, and the contract."""
    one, two = old.manifest.model, new.manifest.model
    rows = pairs(
        {"model": one.name, "opset": one.opset, "content": one.sha256[:SHORT]},
        {"model": two.name, "opset": two.opset, "content": two.sha256[:SHORT]},
    )
    for word in ("inputs", "outputs"):
        kind = word[:-1]
        rows += pairs(
            {f"{kind} {s.name}": describe(s) for s in getattr(one, word)},
            {f"{kind} {s.name}": describe(s) for s in getattr(two, word)},
        )
    rows += pairs(_contract(old), _contract(new))
    other = one.sha256 != two.sha256
    return Section("model", tuple(rows), "another model" if other else "contract")


def _contract(side: Side) -> dict[str, str]:
    contract = side.manifest.contract
    found = {
        f"input {name}: {key}": _text(value)
        for name, rule in contract.inputs.items()
        for key, value in rule.model_dump(mode="json").items()
    }
    found |= {f"role of {name}": role for name, role in contract.roles.items()}
    if contract.classes:
        found["classes"] = ", ".join(contract.classes)
    decoder = {} if contract.decoder is None else contract.decoder.model_dump(mode="json")
    found |= {f"decoder: {key}": _text(value) for key, value in decoder.items()}
    score = {} if contract.score is None else contract.score.model_dump(mode="json")
    return found | {f"score: {k}": _text(v) for k, v in score.items() if k not in LEARNED}


def target(old: Side, new: Side) -> Section:
    """Chip, toolchain and what is known about them."""
    one, two = old.manifest, new.manifest
    rows = pairs(
        {"target and toolchain": one.identity.get("target", one.target), **one.target_facts},
        {"target and toolchain": two.identity.get("target", two.target), **two.target_facts},
    )
    summary = f"{one.target} -> {two.target}" if one.target != two.target else "toolchain"
    return Section("target", tuple(rows), summary)


def options(old: Side, new: Side) -> Section:
    """What decided the builds, as far as no other section shows it. Long values are digests."""
    sides = [
        {
            name.replace("_", " "): value
            for name, value in side.manifest.identity.items()
            if name not in NOT_OPTIONS
        }
        for side in (old, new)
    ]
    actions = [
        {f"{a.name} ({a.part})": a.state for a in side.manifest.actions} for side in (old, new)
    ]
    return Section("options", (*pairs(*sides), *pairs(*actions)))


def tools(old: Side, new: Side) -> Section:
    """Packages that decide numbers, and adcompile itself."""
    sides = [{"adcompile": s.manifest.adcompile, **s.manifest.tools} for s in (old, new)]
    return Section("tools", tuple(pairs(*sides)))


def sizes(old: Side, new: Side) -> Section:
    """Bytes by folder, and how many files were added, are gone or have other content."""
    groups = sorted({_group(n) for side in (old, new) for n in side.manifest.files})
    rows: list[Change] = []
    for group in groups:
        one, two = (
            {n: record for n, record in side.manifest.files.items() if _group(n) == group}
            for side in (old, new)
        )
        if one == two:
            continue
        counts = {
            "added": len(two.keys() - one.keys()),
            "gone": len(one.keys() - two.keys()),
            "with other content": sum(one[n] != two[n] for n in one.keys() & two.keys()),
        }
        note = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        before, after = (sum(record.size for record in side.values()) for side in (one, two))
        ratio = after / before if before and after else None
        rows.append(Change(group, before, after, f"bytes; {note}", ratio))
    return Section("sizes", tuple(rows))


def _group(name: str) -> str:
    head, *rest = name.split("/")
    if head == "parts" and len(rest) > 1:
        return f"{head}/{rest[0]}/"
    return f"{head}/" if rest else name


def pairs(
    old: Mapping[str, str | int | float], new: Mapping[str, str | int | float]
) -> list[Change]:
    """One change for every key whose value differs, in the order of *old*, then of *new*."""
    return [
        Change(key, old.get(key), new.get(key))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def describe(spec: TensorSpec) -> str:
    """Dtype and shape in words."""
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in cast("list[object]", value))
    return f"{value:g}" if isinstance(value, float) else str(value)
