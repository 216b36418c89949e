"""The generated program against Python: score, decision and map of every scoring preset.

The default run takes three of them, ``-m slow`` the others.

The whole model is pinned to the host, so the program needs no device and no recording: any picture
goes through the same C++ that a board runs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.config import BackboneConfig, make_config
from adcompile.anomaly.detector import open_detector
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.images import tensor_of
from adcompile.anomaly.model_folder import Fitted
from adcompile.anomaly.presets import PRESETS
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.threshold import is_anomalous, raw_threshold
from adcompile.job import BuildOptions
from tests.anomaly.conftest import tiny_backbone
from tests.host.toolchains import Core

SIDE = 64
QUICK = {("patchcore", "r0"), ("patchcore", "paper"), ("padim", "anomalib")}
CASES = [
    pytest.param(method, name, marks=() if (method, name) in QUICK else pytest.mark.slow)
    for method in PRESETS
    for name in PRESETS[method]
]
SMALL: dict[str, dict[str, object]] = {
    "patchcore": {"coreset_ratio": 0.05},
    "padim": {},
    "efficientad": {"channels": 8, "width": 0.05, "distill": 2, "epochs": 1},
    "vae": {"latent": 8, "epochs": 1},
}


def fitted(method: str, preset: str, data: DataSet) -> Fitted:
    """A detector of few weights and little training: its numbers matter, not its quality."""
    if method in {"efficientad", "vae"}:
        pytest.importorskip("torch")
    config = make_config(method, {"image_size": SIDE, "preset": preset, **SMALL[method]})
    # Unoptimised C++ with sanitizers runs the whole network: a tiny one will do.
    small = load_backbone(tiny_backbone()) if isinstance(config, BackboneConfig) else None
    return fit(config, data, backbone=small)


def rows(path: Path) -> Iterator[tuple[str, float, str]]:
    """File name, raw score, decision of every line, in the file's order."""
    with path.open() as stream:
        lines = csv.reader(stream)
        assert next(lines) == ["filename", "raw_score", "decision"]
        for name, raw, decision in lines:
            yield name, float(raw), decision


@pytest.mark.parametrize(("method", "preset"), CASES)
def test_program_equals_python(
    method: str, preset: str, twill: DataSet, checked: Core, tmp_path: Path
) -> None:
    """``-d FOLDER``: the CSV in sorted order, and every map, say what Python says."""
    model = fitted(method, preset, twill)
    options = BuildOptions(
        precision="fp32", pins={"re:.*": "host"}, verify="none", golden_count=1, cache=False
    )
    bundle = adcompile.compile(model.model, "npu", tmp_path / "bundle", options).path
    program = checked.link(bundle, tmp_path / "build")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    samples = sorted(twill.test[::2], key=lambda s: f"{s.path.parent.name}_{s.path.name}")
    names = [f"{s.path.parent.name}_{s.path.name}" for s in samples]
    for name, sample in zip(names, samples, strict=True):
        (pictures / name).write_bytes(sample.path.read_bytes())

    done = checked.run(
        program, "-d", str(pictures), "-b", str(bundle), "--maps", "maps", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} pictures: read" in done.stdout

    detector = open_detector(model.model)
    images = np.concatenate([tensor_of(s, detector.preprocess) for s in samples])
    scores, maps = detector(images)
    score = model.contract.score
    assert score is not None
    limit = raw_threshold(score)
    found = list(rows(tmp_path / f"result_{method}.csv"))
    assert [name for name, _, _ in found] == names
    # The own-neighbours weight is a softmax of distances: the last bit of a float32 distance d moves
    # it by d · 6e-8. R2 takes no root: its d reach a thousand here, and both sides round.
    squared = score.weighting == "own_neighbours" and score.metric == "squared_l2"
    close = 1e-3 if squared else 1e-4
    for (name, raw, decision), wanted, heat in zip(found, scores, maps, strict=True):
        assert raw == pytest.approx(float(wanted), rel=close)
        if abs(float(wanted) - limit) > 2 * close * abs(limit):  # no coin tosses
            assert decision == ("Anomaly" if is_anomalous(wanted, score) else "Normal")
        made = np.load(tmp_path / "maps" / f"{Path(name).stem}.npy")
        assert np.allclose(made[0, 0], heat, rtol=1e-3, atol=1e-3 * float(np.abs(heat).max()))
    decisions = {decision for _, _, decision in found}
    assert decisions == {"Anomaly" if w else "Normal" for w in is_anomalous(scores, score)}
