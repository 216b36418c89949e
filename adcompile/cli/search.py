"""The accuracy search of a build, as tables: parts, nodes, and what was worth trying."""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.cli import console

SHOWN_NODES = 10


def show_search(found: Mapping[str, object]) -> None:
    """Print ``search.json``: sensitivity of parts and nodes, and the Pareto list."""
    from adcompile.steps.search_record import SearchRecord, StepScore

    record = SearchRecord.model_validate(found)
    metrics = list(record.parts[0].isolated) if record.parts else []
    reference = ", ".join(f"{n} {v:.4f}" for n, v in record.reference.items())
    kinds = ("isolated", "cumulative")
    console.table(
        f"budget {record.budget}" + (f"; float: {reference}" if reference else ""),
        ("part", "precision", *(f"{m} {kind}" for kind in kinds for m in metrics)),
        [
            (
                row.part,
                row.precision,
                *(f"{t.get(m, 0.0):.4f}" for t in (row.isolated, row.cumulative) for m in metrics),
            )
            for row in record.parts
        ],
    )
    if record.nodes:
        worst = sorted(record.nodes, key=lambda n: n.isolated)[:SHOWN_NODES]
        console.table(
            f"most sensitive of {len(record.nodes)} nodes (SNR in dB)",
            ("node", "part", *kinds, "M multiply-adds"),
            [
                (n.node, n.part, f"{n.isolated:.2f}", f"{n.cumulative:.2f}", f"{n.macs / 1e6:.1f}")
                for n in worst
            ],
        )

    def line(step: StepScore) -> tuple[str, ...]:
        raised = ", ".join(f"{part} in {p}" for part, p in step.precisions.items())
        what = f"{len(step.floats)} nodes in float" if step.floats else raised or "nothing"
        chosen = "chosen" if record.chosen == step else ""
        values = (f"{step.metrics.get(m, 0.0):.4f}" for m in metrics)
        return what, str(step.promoted), f"{100 * step.share:.1f}", *values, chosen

    console.table(
        f"Pareto list of {len(record.steps)} tried",
        ("promoted", "nodes", "% of multiply-adds", *metrics, ""),
        [line(step) for step in record.pareto],
    )
