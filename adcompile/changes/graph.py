"""What became of the graph: rewrites, where nodes run, parts and boundaries, precision."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from adcompile.changes.declared import SHORT, describe, pairs
from adcompile.changes.read import Side
from adcompile.changes.record import Change, Section
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.place.schema import PartPlan

SHOWN = 3  # names of nodes in a subject
ALIKE = 0.5  # share of common nodes from which parts of different names are the same part


def rewrites(old: Side, new: Side) -> Section:
    """Rules applied: how often, and at which nodes only in one of both."""
    sides = [_applied(side) for side in (old, new)]
    rows: list[Change] = []
    for rule in dict.fromkeys([*sides[0], *sides[1]]):
        one, two = (side.get(rule, Counter[str]()) for side in sides)
        gone, added = list((one - two).elements()), list((two - one).elements())
        if gone or added:
            words = [f"{w}: {some(n)}" for w, n in (("gone", gone), ("added", added)) if any(n)]
            names = tuple(name for name in (*gone, *added) if name)
            count = one.total(), two.total()
            rows.append(Change(rule, *count, "; ".join(words), names=names))
    return Section("rewrites", tuple(rows))


def _applied(side: Side) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for each in side.manifest.rewrites:
        kind = "" if each.exactness == "exact" else f" ({each.exactness})"
        found[each.rule + kind][each.node] += 1
    return found


def placement(old: Side, new: Side) -> Section:
    """Nodes of both that one bundle runs on the device and the other on the host, with the reason."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for node, before in old.home.items():
        after = new.home.get(node)
        if after is not None and after.placement != before.placement:
            op = new.op_types.get(node) or old.op_types.get(node, "")
            groups[before.name, after.name, op].append(node)
    rows = [
        Change(
            f"{op}: {some(nodes)}",
            _where(old.home[nodes[0]]),
            _where(new.home[nodes[0]]),
            _reason(old.home[nodes[0]], new.home[nodes[0]], op),
            names=tuple(nodes),
        )
        for (_, _, op), nodes in groups.items()
    ]
    to_host = sum(len(row.names) for row in rows if str(row.new).startswith("host"))
    moved = sum(len(row.names) for row in rows) - to_host
    words = [f"{n} nodes to the {w}" for n, w in ((to_host, "host"), (moved, "device")) if n]
    return Section("placement", tuple(rows), ", ".join(words), tuple(_only(old, new)))


def _where(part: PartPlan) -> str:
    return f"{part.placement} ({part.name})"


def _reason(before: PartPlan, after: PartPlan, op: str) -> str:
    """What the plan says about nodes of that type in the part on the host: the reason, or the reason
    that holds no longer."""
    host, word = (after, "") if after.placement == "host" else (before, "no longer: ")
    reasons = [why.reason for why in host.why if op in why.ops]
    return word + "; or ".join(reasons) if reasons else ""


def _only(old: Side, new: Side) -> Iterable[str]:
    for side, other, word in ((old, new, "OLD"), (new, old, "NEW")):
        alone = [node for node in side.home if node not in other.home]
        if alone:
            ops = Counter(side.op_types.get(node, "?") for node in alone)
            kinds = ", ".join(f"{count} {op}" for op, count in sorted(ops.items()))
            yield f"{len(alone)} nodes only in {word}: {kinds}"


def parts(old: Side, new: Side) -> Section:
    """Parts added, gone, renamed or with other numbers; tensors that cross a boundary."""
    alike = matched(old, new)
    kept = set(alike.values())
    gone = [part.name for part in old.manifest.parts if part.name not in alike]
    added = [part.name for part in new.manifest.parts if part.name not in kept]
    rows = [Change(f"part {name}", _part(old, name), None) for name in gone]
    for before, after in alike.items():
        rows += _part_rows(old, new, before, after)
    rows += [Change(f"part {name}", None, _part(new, name)) for name in added]
    rows += (edges := pairs(_boundaries(old), _boundaries(new)))
    earlier, later = _bytes_moved(old), _bytes_moved(new)
    if earlier != later:
        ratio = later / earlier if earlier else None
        subject = "bytes per image in and out of device parts"
        rows.append(Change(subject, earlier, later, ratio=ratio))
    words = [f"{len(names)} {word}" for names, word in ((gone, "gone"), (added, "added")) if names]
    words += ["boundaries"] if edges else []
    return Section("parts", tuple(rows), ", ".join(words) or "content")


def matched(old: Side, new: Side) -> dict[str, str]:
    """Old part name to new: parts that share most of their nodes, then those of the same name."""
    nodes = [
        {part.name: set(part.nodes) for part in side.plan.parts if part.nodes}
        for side in (old, new)
    ]
    shares = sorted(
        (-len(mine & theirs) / len(mine | theirs), before != after, before, after)
        for before, mine in nodes[0].items()
        for after, theirs in nodes[1].items()
        if mine & theirs
    )
    # a part that only hands out constants is in no plan
    bare = [
        (-1.0, False, part.name, part.name)
        for part in old.manifest.parts
        if all(part.name not in known for known in nodes)
    ]
    names = {part.name for part in new.manifest.parts}
    found: dict[str, str] = {}
    for share, renamed, before, after in (*shares, *bare):
        if renamed and -share <= ALIKE:
            continue
        if before not in found and after in names:
            found[before] = after
            names.remove(after)
    order = [part.name for part in old.manifest.parts]
    return {name: found[name] for name in order if name in found}


def _part(side: Side, name: str) -> str:
    record = _record(side, name)
    return f"{record.placement}, {record.nodes} nodes, {record.macs / 1e6:,.1f} M multiply-adds"


def _record(side: Side, name: str) -> PartRecord:
    return next(part for part in side.manifest.parts if part.name == name)


def _part_rows(old: Side, new: Side, before: str, after: str) -> list[Change]:
    one, two = _record(old, before), _record(new, after)
    facts = [_facts(old, one), _facts(new, two)]
    rows = [] if before == after else [Change(f"part {before}: name", before, after)]
    rows += [Change(f"part {before}: {c.subject}", c.old, c.new) for c in pairs(*facts)]
    contents = [_contents(side, part) for side, part in ((old, one), (new, two))]
    return rows + [Change(f"part {before}: {c.subject}", c.old, c.new) for c in pairs(*contents)]


def _contents(side: Side, part: PartRecord) -> dict[str, str]:
    """Digests of the network that was lowered, and of what stands for the device's numbers."""
    return {
        f"content of {word}": side.manifest.files[part.files[use]].sha256[:SHORT]
        for use, word in (("model", "the network"), ("simulation", "the lowered network"))
        if use in part.files
    }


def _facts(side: Side, part: PartRecord) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {
        "runs on": part.executor if part.placement == "device" else "host",
        "role": part.role,
        "nodes": part.nodes,
        "multiply-adds": part.macs,
        "rows": part.rows or "-",
    }
    planned = next((p for p in side.plan.parts if p.name == part.name), None)
    if planned is not None:
        found["calls per image"] = planned.cost.calls
        found |= {f"option {k}": v for k, v in planned.options.items() if k != "float_nodes"}
    return found | {k: v for k, v in part.options.items() if k != "float_nodes"}


def _boundaries(side: Side) -> dict[str, str]:
    """Tensors that one part makes and another reads."""
    read = {spec.name for part in side.manifest.parts for spec in part.inputs}
    return {
        f"boundary {spec.name}": f"{describe(spec)}, {_volume(spec)}"
        for part in side.manifest.parts
        for spec in part.outputs
        if spec.name in read
    }


def _volume(spec: TensorSpec) -> str:
    free = any(isinstance(d, str) for d in spec.shape)
    return f"{spec.row_bytes:,} bytes" + (" per row" if free else "")


def _bytes_moved(side: Side) -> int:
    costs = [part.cost for part in side.plan.parts if part.placement == "device"]
    return sum(cost.bytes_in + cost.bytes_out for cost in costs)


def precision(old: Side, new: Side) -> Section:
    """Number formats of the parts, and the nodes that a quantized part keeps in float."""
    rows: list[Change] = []
    more = less = 0
    for before, after in matched(old, new).items():
        one, two = _record(old, before).precision, _record(new, after).precision
        if one != two:
            rows.append(Change(f"part {before}", one, two))
        kept = old.floats.get(before, frozenset()), new.floats.get(after, frozenset())
        added, gone = sorted(kept[1] - kept[0]), sorted(kept[0] - kept[1])
        if added or gone:
            words = [f"{w}: {some(n)}" for w, n in (("added", added), ("gone", gone)) if n]
            count = len(kept[0]), len(kept[1])
            subject, names = f"part {before}: nodes in float", (*added, *gone)
            rows.append(Change(subject, *count, "; ".join(words), names=names))
            more, less = more + len(added), less + len(gone)
    words = [f"{row.old} -> {row.new}" for row in rows if isinstance(row.old, str)]
    words = list(dict.fromkeys(words))
    words += [f"{n} nodes {w} float" for n, w in ((more, "to"), (less, "from")) if n]
    return Section("precision", tuple(rows), ", ".join(words))


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    given = [name for name in names if name]
    rest = len(given) - SHOWN
    return ", ".join(given[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
