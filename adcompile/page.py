"""``report.html`` of a bundle: one self-contained page a person opens first.

Everything on it comes from the manifest; the drawing is inline SVG, no script, no network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from adcompile.manifest import Manifest, PartRecord, TensorSpec
from adcompile.render import render_page

WIDTH = 860
BOX_WIDTH = 300
BOX_HEIGHT = 58
GAP = 46
HOST_X = 40
DEVICE_X = WIDTH - BOX_WIDTH - 40


@dataclass(frozen=True)
class Box:
    """Where one part is drawn."""

    part: PartRecord
    x: int
    y: int


@dataclass(frozen=True)
class Row:
    """One line of the parts table, ready to print."""

    name: str
    role: str
    runs_on: str
    precision: str
    nodes: int
    macs: str
    share: str
    into: str
    out: str


def page(manifest: Manifest, sections: Sequence[str] = ()) -> str:
    """The HTML text for *manifest*; the same manifest gives the same bytes.

    *sections* are finished pieces of HTML, put behind the drawing.
    """
    total = sum(p.macs for p in manifest.parts) or 1
    rewrites = Counter((r.rule, r.exactness) for r in manifest.rewrites)
    return render_page(
        "report/bundle.html.j2",
        {
            "manifest": manifest,
            "sections": list(sections),
            "rows": [_row(p, total) for p in manifest.parts],
            "drawing": drawing(manifest),
            "rewrites": sorted((rule, kind, count) for (rule, kind), count in rewrites.items()),
            "approximate": [r for r in manifest.rewrites if r.exactness == "approximate"],
            "share": f"{_device_share(manifest, total):.1f}",
        },
    )


def _device_share(manifest: Manifest, total: int) -> float:
    return 100.0 * sum(p.macs for p in manifest.parts if p.placement == "device") / total


def _row(part: PartRecord, total: int) -> Row:
    return Row(
        name=part.name,
        role=part.role,
        runs_on=part.executor if part.placement == "device" else "host",
        precision=part.precision,
        nodes=part.nodes,
        macs=f"{part.macs / 1e6:,.1f} M",
        share=f"{100.0 * part.macs / total:.1f} %",
        into=_volume(part.inputs),
        out=_volume(part.outputs),
    )


def _volume(tensors: tuple[TensorSpec, ...]) -> str:
    """Bytes of the static tensors; a free dimension counts as one row and is marked."""
    known = sum(t.row_bytes for t in tensors)
    free = any(isinstance(d, str) for t in tensors for d in t.shape)
    size = f"{known / 1024:,.0f} KiB" if known >= 1024 else f"{known} B"
    count = "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"
    return f"{count}, {size}" + (" per row" if free else "")


def drawing(manifest: Manifest) -> str:
    """The parts in execution order, host on the left, device on the right, joined by values."""
    boxes = [
        Box(part, DEVICE_X if part.placement == "device" else HOST_X, 40 + i * (BOX_HEIGHT + GAP))
        for i, part in enumerate(manifest.parts)
    ]
    height = 40 + len(boxes) * (BOX_HEIGHT + GAP)
    made = {t.name: box for box in boxes for t in box.part.outputs}
    lines = [
        f'<svg class="flow" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="parts and where they run">',
        f'<text class="lane" x="{HOST_X + BOX_WIDTH // 2}" y="22">host CPU</text>',
        f'<text class="lane" x="{DEVICE_X + BOX_WIDTH // 2}" y="22">'
        f"{escape(manifest.target)}</text>",
    ]
    for box in boxes:
        sources = {made[t.name].y: made[t.name] for t in box.part.inputs if t.name in made}
        lines += [_edge(source, box) for _, source in sorted(sources.items())]
    lines += [line for box in boxes for line in _box(box)]
    return "\n".join([*lines, "</svg>"])


def _edge(source: Box, to: Box) -> str:
    shared = {t.name for t in source.part.outputs} & {t.name for t in to.part.inputs}
    tensors = tuple(t for t in source.part.outputs if t.name in shared)
    x1, y1 = source.x + BOX_WIDTH // 2, source.y + BOX_HEIGHT
    x2, y2 = to.x + BOX_WIDTH // 2, to.y
    if y2 - y1 > GAP:  # a longer way: beside the boxes between, not through them
        side = 14 if source.x == to.x == HOST_X else WIDTH - 14
        if source.x != to.x:
            side = WIDTH // 2
        bend = (
            f"C {x1} {y1 + 30}, {side} {y1}, {side} {(y1 + y2) // 2} S {x2} {y2 - 40}, {x2} {y2}"
        )
    else:
        bend = f"C {x1} {y1 + 26}, {x2} {y2 - 26}, {x2} {y2}"
    return (
        f'<path class="edge" d="M {x1} {y1} {bend}">'
        f"<title>{escape(_volume(tensors))}: {escape(', '.join(sorted(shared)))}</title></path>"
    )


def _box(box: Box) -> list[str]:
    part = box.part
    kind = "device" if part.placement == "device" else "host"
    middle = box.x + BOX_WIDTH // 2
    detail = f"{part.precision} · {part.nodes} nodes · {part.macs / 1e6:,.1f} M multiply-adds"
    return [
        f'<rect class="{kind}" x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="8"/>',
        f'<text class="name" x="{middle}" y="{box.y + 24}">{escape(part.name)}</text>',
        f'<text class="detail" x="{middle}" y="{box.y + 44}">{escape(detail)}</text>',
    ]
