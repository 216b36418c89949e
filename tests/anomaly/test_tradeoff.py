"""Bank sizes: nested coresets measured as the graph scores, and the search for the smallest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.config import make_config
from adcompile.anomaly.detector import open_detector, run_samples
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.metrics import auroc
from adcompile.anomaly.model_folder import Fitted, load_fitted, save_fitted
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.tradeoff import Goal, Size, Sizes, ladder, shrink, solve
from adcompile.cli import main
from adcompile.errors import InputError, UsageError
from tests.anomaly.conftest import SIDE


@pytest.fixture(scope="module")
def fitted(twill: DataSet) -> Fitted:
    return fit(make_config("patchcore", {"image_size": SIDE, "coreset_ratio": 0.2}), twill)


def test_sizes_are_what_refitting_gives(fitted: Fitted, twill: DataSet) -> None:
    """The first rows of the bank are the smaller coreset, and score like the graph made of them."""
    sizes = Sizes(fitted, twill.validation)
    rows = len(sizes.bank) // 4
    again = fit(make_config("patchcore", {"image_size": SIDE, "coreset_rows": rows}), twill)
    assert again.bank is not None
    assert np.array_equal(again.bank, sizes.bank[:rows])
    small = shrink(fitted, rows, twill)
    assert small.contract.score == again.contract.score
    outcome = run_samples(
        open_detector(small.model), twill.validation, small.contract.inputs["image"]
    )
    assert sizes.measure(rows).auroc == pytest.approx(auroc(outcome.scores, outcome.labels))
    assert small.metrics == again.metrics


class Made(Sizes):
    """Accuracies from a table instead of images: not monotone, as the published ones are."""

    def __init__(self, good: set[int], largest: int) -> None:
        self.bank = np.zeros((largest, 2), np.float32)
        self.good = good
        self.known = {}

    @property
    def smallest(self) -> int:
        return 2

    def measure(self, rows: int) -> Size:
        f1 = 0.95 if rows in self.good else 0.9
        self.known[rows] = Size(rows, rows / 1e4, rows * 8, f1, f1, rows / 100)
        return self.known[rows]


def test_the_smallest_that_meets_the_goal_is_searched() -> None:
    """A good small bank below bad larger ones is found; steps below it are refined."""
    assert ladder(64, 2) == [2, 4, 8, 16, 32, 64]
    made = Made({8, 7, 6, 64}, 64)
    best = solve(made, Goal(f1=0.95))
    assert best is not None
    assert best.rows == 6
    assert solve(Made({64}, 64), Goal(f1=0.95, memory=100)) is None
    best = solve(Made({8, 64}, 64), Goal(memory=300))
    assert best is not None
    assert best.rows == 8
    best = solve(Made({8, 64}, 64), Goal(latency=0.05))
    assert best is not None
    assert best.rows == 2


def test_pareto_front() -> None:
    """A size is on the front when nothing smaller is as good."""
    made = Made({8, 64}, 64)
    solve(made, Goal())
    assert [size.rows for size in made.table() if size.pareto] == [2, 8]


def test_refusals(fitted: Fitted, twill: DataSet) -> None:
    """One class only, no bank, fewer rows than the score needs."""
    with pytest.raises(InputError, match="normal and anomalous"):
        Sizes(fitted, [s for s in twill.validation if not s.label])
    with pytest.raises(UsageError, match="only PatchCore"):
        Sizes(replace(fitted, bank=None), twill.validation)
    with pytest.raises(UsageError, match="fewer rows"):
        ladder(3, 9)


def test_command(
    fitted: Fitted, twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table; a smaller model on request; exit 1 when nothing meets the goal."""
    save_fitted(fitted, tmp_path / "m")
    words = ["tradeoff", str(tmp_path / "m"), "--data", str(twill_folder)]
    assert main([*words, "--memory", "8k", "-o", str(tmp_path / "s"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"]["bytes"] <= 8192
    small = load_fitted(tmp_path / "s")
    assert small.bank is not None
    assert len(small.bank) == found["chosen"]["rows"]
    assert main([*words, "--f1", "0.5", "--memory", "1"]) == 1
    assert main([*words, "--auroc", "0.5", "--latency", "1e6"]) == 0
    assert main([*words, "--auroc", "0.5", "--latency", "0"]) == 1
    assert main([*words, "-o", str(tmp_path / "t")]) == 2
    assert main([*words, "--memory", "lots"]) == 2
