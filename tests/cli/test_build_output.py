"""What ``build`` prints: the outcome in words, and the commands that are left to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adcompile.cli import main
from adcompile.cli.next_steps import next_steps
from adcompile.cli.verdicts import in_words
from adcompile.contract import Score
from adcompile.manifest import read_manifest
from tests.compile.models import cnn


def test_numbers_in_words() -> None:
    """A line per output, one for the parts, and nothing of a difference that is not there."""
    lines = in_words(
        {
            "ok": "yes",
            "output boxes matched": 0.5,
            "output boxes reference": 4.0,
            "output boxes snr_db": 20.04,
            "output boxes max_abs": 2.5,
            "output score decision_flips": 1.0,
            "output same snr_db": 300.0,
            "output same max_abs": 0.0,
            "part a isolated snr_db": 31.26,
            "part a cumulative snr_db": 1.0,
            "part b isolated snr_db": 300.0,
            "against float auroc": 0.9,
        }
    )
    assert lines == [
        "output boxes: 50% of 4 detections matched, SNR 20.0 dB, largest difference 2.5",
        "output same: equal",
        "output score: 1 decisions changed",
        "parts alone: a SNR 31.3 dB, b equal",
        "against float: auroc 0.9",
    ]


def test_a_build_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are quoted for the shell; a vendor's command that waits is one of the steps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "my model.onnx"
    model.write_bytes(cnn().SerializeToString())
    out = tmp_path / "out 1"
    assert main(["build", str(model), "-t", "drpai", "--precision", "fp32", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"next: adcompile eval '{model}' '{out}' --images DIR" in said
    assert f"cmake -S '{out}/host'" in said
    assert "run.sh" in said
    assert "lower-" not in said  # nothing was reused, nothing to explain
    assert (
        main(["build", str(model), "-t", "drpai", "--precision", "fp32", "-o", str(out), "--json"])
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["next"][0]["for"] == "accuracy on your own images"
    manifest = read_manifest(out)
    assert "--model" in next_steps(manifest, out, model, ok=False)[0][0]
    score = Score(method="patchcore")
    scored = manifest.contract.model_copy(update={"score": score})
    detector = manifest.model_copy(update={"contract": scored})
    assert next_steps(detector, out, model, ok=True)[0][0].endswith("--data DIR")
