"""``--bank-format r0``: the ``.bin`` of a rebuilt bank for R0's board application."""

from __future__ import annotations

from adcompile.anomaly.config import PatchcoreConfig
from adcompile.anomaly.formats import r0
from adcompile.anomaly.formats.record import Trained
from adcompile.anomaly.maps import Array
from adcompile.anomaly.remeasure.kind import Recipe
from adcompile.contract import Score
from adcompile.errors import UsageError
from adcompile.job import Job

COLUMNS = 384


def check_r0(score: Score, what: str) -> None:
    """Refuse what R0's application would score otherwise, before any work."""
    if what != "bank":
        raise UsageError("--bank-format r0 is for PatchCore", fix="leave it out")
    fields = {"metric": "l2", "weighting": "own_neighbours", "normalisation": "min_max"}
    wrong = [f"{n} {getattr(score, n)}" for n, v in fields.items() if getattr(score, n) != v]
    if wrong:
        raise UsageError(
            "R0's application scores otherwise",
            why=", ".join(wrong) + "; it uses " + ", ".join(fields.values()),
            fix="fit with --preset r0",
        )


def add_r0_file(job: Job, score: Score, bank: Array, recipe: Recipe, rows: int) -> None:
    """The file, beside the other banks. *rows* is how many features the bank was chosen from."""
    if bank.shape[1] != COLUMNS:
        job.report.note(
            f"the .bin has {bank.shape[1]} columns; R0's published application is compiled "
            f"for {COLUMNS} (layer2 and layer3 of ResNet18 at 224 pixels)"
        )
    config = recipe.config
    assert isinstance(config, PatchcoreConfig)
    ratio = len(bank) / max(rows, 1) if config.coreset_rows else config.coreset_ratio
    packed = r0.pack_bin(
        Trained(
            method="patchcore",
            source="adcompile",
            bank=bank,
            threshold=score.threshold,
            minimum=score.minimum,
            maximum=score.maximum,
            neighbours=score.k,
            ratio=min(ratio, 1.0),
        )
    )
    job.files.add(f"bank/{job.source.name}.bin", packed)
