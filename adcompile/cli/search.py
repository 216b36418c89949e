"""The accuracy search of a build, as tables: parts, nodes, and what was worth trying."""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.cli import console

SHOWN_NODES = 10
MAIN = ("snr", "bbox_map", "segm_map", "auroc")  # the other metrics are in search.json


def show_search(found: Mapping[str, object]) -> None:
    """Print ``search.json``: sensitivity of parts and nodes, and the Pareto list."""
    from adcompile.lower.search import parse_budget
    from adcompile.steps.search_record import SearchRecord, StepScore

    record = SearchRecord.model_validate(found)
    known = list(record.parts[0].isolated) if record.parts else []
    asked = parse_budget(record.budget).metric
    metrics = [m for m in known if m == asked or m in MAIN]
    reference = ", ".join(f"{n} {v:.4f}" for n, v in record.reference.items() if n in metrics)
    kinds = ("isolated", "cumulative")
    console.table(
        f"budget {record.budget}" + (f"; float: {reference}" if reference else ""),
        ("part", "precision", *(f"{asked} {kind}" for kind in kinds)),
        [
            (
                row.part,
                row.precision,
                *(f"{t.get(asked, 0.0):.4f}" for t in (row.isolated, row.cumulative)),
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
    if record.order:
        console.table(
            f"first of {len(record.order)} choices to leave in float",
            ("nodes", "part", "share of the loss"),
            [
                (", ".join(pick.nodes), pick.part, f"{100 * pick.share:.1f} %")
                for pick in record.order[:SHOWN_NODES]
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
        ("promoted", "nodes", "% of work", *metrics, ""),
        [line(step) for step in record.pareto],
    )
