"""``adcompile optimize`` and ``adcompile explain-rule``: what they write, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adcompile.cli import main
from adcompile.ir import model_io
from adcompile.ir.graph import static_shape
from tests.rewrite.build import assert_same, model, ops

F = np.float32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    m = model(
        "g (float[N,3,8,8] x) => (float[?,?,?,?] y) { a = Identity(x) b = Mul(a, one) "
        "c = MaxPool<kernel_shape=[1,1], strides=[2,2]>(b) y = Conv(c, w) }",
        {"one": np.ones(1, F), "w": np.ones((4, 3, 1, 1), F)},
    )
    for node, name in zip(m.graph, ("id", "mul", "pool", "conv"), strict=True):
        node.name = name
    path = tmp_path / "m.onnx"
    model_io.save_model(m, path)
    return path


def test_optimize(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result is smaller, computes the same, has the shape that was asked for."""
    target = tmp_path / "out.onnx"
    arguments = ["optimize", str(source), "-o", str(target), "--input-shape", "x=2x3x8x8"]
    assert main(arguments) == 0
    assert "4 -> 2 nodes" in capsys.readouterr().out
    after = model_io.load_model(target)
    assert ops(after) == ["MaxPool", "Conv"]
    assert static_shape(after.graph.outputs[0]) == (2, 4, 4, 4)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(F)
    assert_same(model_io.load_model(source), after, {"x": x})


def test_weights_beside_the_model(source: Path, tmp_path: Path) -> None:
    """--external-data puts them into a file, --no-external-data keeps them inside."""
    for option, beside in (("--external-data", True), ("--no-external-data", False)):
        target = tmp_path / option / "out.onnx"
        target.parent.mkdir()
        assert main(["optimize", str(source), "-o", str(target), option]) == 0
        assert target.with_name("out.onnx.data").is_file() == beside
        assert ops(model_io.load_model(target)) == ["MaxPool", "Conv"]


def test_json_tells_everything(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, pipeline text, every rewrite, time per pass; no file is needed."""
    assert main(["optimize", str(source), "--json", "--passes", "clean-up,dead-code"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nodes_before"] == {"top": 4, "all": 4}
    assert found["nodes_after"] == {"top": 2, "all": 2}
    assert found["pipeline"] == "clean-up,dead-code"
    assert found["hits"]["mul-by-one"] == 1
    assert [p["pass"] for p in found["passes"]] == ["clean-up", "dead-code"]
    assert {"rule": "identity", "node": "id", "exactness": "exact", "detail": ""} in found[
        "rewrites"
    ]


def test_set_allow_and_time(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attribute surgery, an allowed approximation, and the table of passes."""
    target = tmp_path / "out.onnx"
    base = ["optimize", str(source), "-o", str(target), "--time"]
    assert main([*base, "--set", "pool strides=1,1"]) == 0
    assert "clean-up" in capsys.readouterr().out
    assert model_io.load_model(target).graph[0].attributes["strides"].as_ints() == (1, 1)
    assert main([*base, "--pass", "maxpool-1x1-as-3x3"]) == 2
    assert "--allow maxpool-1x1-as-3x3" in capsys.readouterr().err
    assert main([*base, "--pass", "maxpool-1x1-as-3x3", "--allow", "maxpool-1x1-as-3x3"]) == 0
    assert model_io.load_model(target).graph[0].attributes["kernel_shape"].as_ints() == (3, 3)


def test_dumps(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The graph is printed around the passes that were named."""
    command = ["optimize", str(source), "--passes", "clean-up,dead-code"]
    assert main([*command, "--dump-before", "clean-up", "--dump-after", "dead-code"]) == 0
    out = capsys.readouterr().out
    assert out.index("# before clean-up") < out.index("# after dead-code")
    assert "Identity" in out.split("# after dead-code")[0]
    assert "Identity" not in out.split("# after dead-code")[1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "nothing to do with the result"),
        (["-o", "out.onnx", "--dump-after", "no-pass"], "has no pass 'no-pass'"),
        (["-o", "out.onnx", "--set", "pool"], "cannot read --set"),
        (["-o", "out.onnx", "--set", "nobody a=1"], "no node called 'nobody'"),
        (["-o", "out.onnx", "--input-shape", "x=1x1x8x8"], "has the fixed size 3"),
        (["-o", "out.onnx", "--passes", "celan-up"], "unknown pass 'celan-up'"),
    ],
)
def test_usage_errors(
    source: Path,
    extra: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one clear message, and no output file."""
    monkeypatch.chdir(tmp_path)
    assert main(["optimize", str(source), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_the_source_is_not_changed(source: Path, tmp_path: Path) -> None:
    """Optimising leaves the input file as it was."""
    before = source.read_bytes()
    assert main(["optimize", str(source), "-o", str(tmp_path / "o.onnx")]) == 0
    assert source.read_bytes() == before


def test_explain_rule(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and "applies", or 1 and the reason; JSON has the stage."""
    assert main(["explain-rule", "mul-by-one", "mul", str(source)]) == 0
    assert "applies at mul" in capsys.readouterr().out
    assert main(["explain-rule", "mul-by-one", "conv", str(source)]) == 1
    assert "conv (Conv) is not Mul" in capsys.readouterr().out
    assert main(["explain-rule", "max-pool-1x1", "mul", str(source), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["stage"] == "pattern"
    assert main(["explain-rule", "mul-by-two", "mul", str(source)]) == 2
    assert main(["explain-rule", "mul-by-one", "nobody", str(source)]) == 2
    assert main(["explain-rule", "max-pool-1x1", "pool", str(source), "--canonical"]) == 0
