"""What ``build`` prints: the outcome in words, and the commands that are left to do."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from adcompile.check import tolerance
from adcompile.cli import main
from adcompile.cli.next_steps import Asked, next_steps
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
    assert (
        main(["build", str(model), "-t", "trt:orin-nx", "--precision", "fp32", "-o", str(out)])
        == 0
    )
    said = capsys.readouterr().out
    assert f"next: adcompile eval '{model}' '{out}' --images DIR" in said
    assert f"cmake -S '{out}/host' -B '{out}/host/build' && cmake" in said
    assert f"cmake -S '{out}/host' -B '{out}/host/build' -DADC_WITH_TENSORRT=ON && cmake" in said
    assert f"next: (cd '{out}' && sh parts/" in said
    assert "lower-" not in said  # nothing was reused, nothing to explain
    assert (
        main(
            [
                "build",
                str(model),
                "-t",
                "trt:orin-nx",
                "--precision",
                "fp32",
                "-o",
                str(out),
                "--json",
            ]
        )
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["next"][0]["for"] == "accuracy on your own images"
    manifest = read_manifest(out)
    asked = Asked(words=[], model=model)
    assert "--model" in next_steps(manifest, out, asked, ok=False)[0][0]
    score = Score(method="patchcore")
    scored = manifest.contract.model_copy(update={"score": score})
    detector = manifest.model_copy(update={"contract": scored})
    assert next_steps(detector, out, asked, ok=True)[0][0].endswith("--data DIR")
    labelled = replace(asked, val=Path("my parts"))
    assert next_steps(detector, out, labelled, ok=True)[0][0].endswith("--data 'my parts'")


def test_a_noisy_build_says_how_to_repeat_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command in a finer precision, or with a budget, over the bundle that failed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tolerance, "_COARSE", {"xint8": (200.0, 200.0, 0.2, 0.3, 0.5)})
    model, out = tmp_path / "m.onnx", tmp_path / "out"
    model.write_bytes(cnn().SerializeToString())
    words = [str(model), "-t", "npu:stx", "--precision=xint8", "-o", str(out), "--seed", "3"]
    assert main(["build", *words]) == 1
    commands = [
        line.removeprefix("next: ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("next: ")
    ]
    start = f"adcompile build {model} -t npu:stx"
    assert commands == [
        f"adcompile eval {model} {out} --images DIR",
        f"{start} -o {out} --seed 3 --precision a8w8 --force",
        f"{start} --precision=xint8 -o {out} --seed 3 --budget 'snr>=20' --force",
    ]
    again = shlex.split(commands[1].removeprefix("adcompile "))
    assert main(again) == 0
