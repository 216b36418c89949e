"""``adcompile list``: targets, ops, options, passes and rules, from the compiler's own tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from adcompile import registry
from adcompile.cli import console
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.place.support import Row, Table
    from adcompile.target import Target

Record = dict[str, str]


def command(
    what: Annotated[str, typer.Argument(help="targets, ops, options, passes, rules or decoders")],
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="only this target or family")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Print one of the compiler's own tables."""
    if what not in _LISTS:
        raise UsageError(f"cannot list {what!r}", fix="one of: " + ", ".join(_LISTS))
    title, read, columns = _LISTS[what]
    records = read(target)
    if as_json:
        console.emit_json(records)
        return
    console.table(title, columns, [[r.get(c, "") for c in columns] for r in records])


def targets(target: str | None) -> list[Record]:
    """A row per chip: precisions, toolchain versions, other names, source."""
    from adcompile.place.targets import target_rows

    family = target.partition(":")[0].partition("@")[0] if target else None
    rows = [
        row for row in target_rows(family) if target in {None, family} or _is(row.target, target)
    ]
    if not rows:
        raise UsageError(f"no target {target!r}", fix="adcompile list targets")
    return [
        {
            "target": row.target.name + (" (default)" if row.is_default else ""),
            "what": row.target.title,
            "toolchain": row.target.toolchain,
            "versions": " ".join(row.versions),
            "precisions": " ".join(row.target.precisions),
            "also": " ".join(row.aliases),
            "source": row.target.source,
        }
        for row in rows
    ]


def _is(listed: Target, wanted: str | None) -> bool:
    from adcompile.place.targets import resolve_target

    return wanted is not None and resolve_target(wanted).facts["chip"] == listed.facts["chip"]


def ops(target: str | None) -> list[Record]:
    """What each family's support table says, op by op; ``host`` is the generated C++."""
    from adcompile.place.targets import resolve_target

    if target == "host":
        return _host_ops()

    names = [target] if target else list(registry.BACKENDS.built_in)
    records: list[Record] = []
    for name in names:
        resolved = resolve_target(name)
        table = _table(resolved.family)
        if table is not None:
            records += _ops_of(resolved, table)
        elif target:
            raise UsageError(f"{resolved.family} has no operator table", why="it runs every op")
    return records


def _host_ops() -> list[Record]:
    from adcompile.backends.host.ops import operators

    return [
        {
            "op": row.op,
            "target": "host",
            "runs": "yes",
            "precisions": "",
            "types": row.types,
            "conditions": f"opset {row.since} and newer" + (f"; {row.note}" if row.note else ""),
            "instead": "",
            "source": "",
        }
        for row in operators()
    ]


def _table(family: str) -> Table | None:
    reference = registry.BACKENDS.names()[family]
    return cast("Table | None", registry.beside(reference, "support:TABLE"))


def _ops_of(target: Target, table: Table) -> list[Record]:
    records = [_supported(target, op, row) for op, row in table.rows.items()]
    records += [
        {
            "op": op,
            "target": target.name,
            "runs": "no",
            "precisions": "",
            "types": "",
            "conditions": refusal.reason,
            "instead": _with_exactness(refusal.fix, refusal.fix_exactness),
            "source": refusal.source,
        }
        for op, refusal in table.refused.items()
        if op not in table.rows
    ]
    return sorted(records, key=lambda record: record["op"])


def _supported(target: Target, op: str, row: Row) -> Record:
    version = target.limits.get("version", 0)
    precisions = [p for p in target.precisions if not row.precisions or p in row.precisions]
    new_enough = not version or row.since <= version
    return {
        "op": op,
        "target": target.name,
        "runs": "yes" if new_enough and precisions else "no",
        "precisions": " ".join(precisions),
        "types": " ".join(row.dtypes) if row.data else "any",
        "conditions": "; ".join(_conditions(row)),
        "instead": _with_exactness(row.fix, row.fix_exactness),
        "source": row.source,
    }


def _conditions(row: Row) -> list[str]:
    words: list[str] = []
    if row.since:
        words.append(f"from version {row.since // 100}.{row.since % 100}")
    if row.rank != (0, 99):
        low, high = row.rank
        words.append(f"{low} dimensions" if low == high else f"{low} to {high} dimensions")
    if row.constant:
        words.append("constant input " + ", ".join(map(str, row.constant)))
    if row.outputs < 99:
        words.append(f"at most {row.outputs} output")
    words += [check.__name__.strip("_").replace("_", " ") + " rules" for check in row.checks]
    return words


def _with_exactness(fix: str, exactness: str) -> str:
    return f"{fix} ({exactness})" if fix and exactness else fix


def options(target: str | None) -> list[Record]:
    """What can follow ``-O``, family by family."""
    from adcompile.interfaces import WithOptions
    from adcompile.place.targets import resolve_target

    families = [resolve_target(target).family] if target else list(registry.BACKENDS.built_in)
    backends = {name: registry.BACKENDS.lookup(name) for name in families}
    return [
        {"option": name, "target": family, "what": what}
        for family, backend in backends.items()
        if isinstance(backend, WithOptions)
        for name, what in backend.options.items()
    ]


def passes(target: str | None) -> list[Record]:
    """Every registered pass with its exactness."""
    return _named(target, {"pass"})


def rules(target: str | None) -> list[Record]:
    """Everything else that a report can name: rules, steps of passes, and what lowering does."""
    return _named(target, {"rule", "step", "lowering"})


def _named(target: str | None, kinds: set[str]) -> list[Record]:
    from adcompile.rewrite.named import named

    del target
    return [
        {
            each.kind if each.kind == "pass" else "rule": each.name,
            **({} if each.kind == "pass" else {"kind": each.kind, "pass": each.holder}),
            "exactness": each.exactness.value,
            "what": each.summary,
        }
        for each in named().values()
        if each.kind in kinds
    ]


def decoders(target: str | None) -> list[Record]:
    """The raw outputs of detectors that can be decoded by name."""
    from adcompile.detection.decoders import PRESETS

    del target
    return [
        {
            "decoder": name,
            "reads": what,
            "boxes": decoder.boxes,
            "left to compute": decoder.grid,
            "iou": f"{decoder.iou:g}",
            "min score": f"{decoder.min_score:g}",
        }
        for name, (what, decoder) in PRESETS.items()
    ]


# name -> title, reader, columns shown to people (all of them are in the JSON)
_LISTS: Mapping[str, tuple[str, Callable[[str | None], Sequence[Record]], tuple[str, ...]]] = {
    "targets": ("Targets", targets, ("target", "what", "toolchain", "precisions", "versions")),
    "ops": ("Operators by target", ops, ("op", "target", "precisions", "conditions", "instead")),
    "options": ("Options of build and plan, -O NAME=VALUE", options, ("option", "target", "what")),
    "passes": ("Passes", passes, ("pass", "exactness", "what")),
    "decoders": ("Decoders of detectors", decoders, ("decoder", "reads", "iou", "min score")),
    "rules": ("Rewrite rules", rules, ("rule", "kind", "pass", "exactness", "what")),
}
