"""The worked example of a target of one's own: checked, planned, built, run, and installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.cli import main
from adcompile.errors import FormatError, UsageError
from adcompile.ir.model_io import save_model
from adcompile.place.targets import resolve_target, target_rows
from tests.place.nets import small_net

FILE = Path(__file__).parents[2] / "examples" / "custom_target" / "abacus.py"
BACKEND = f"{FILE}:AbacusBackend"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network on disk: two convolutions (3×3, 5×5) and an Asinh that the chip lacks."""
    path = tmp_path / "net.onnx"
    save_model(small_net(), path)
    return path


def test_check_explains_the_toy_chip(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The 5×5 convolution is refused by the small chip and accepted by the wide one."""
    arguments = ["check", str(model), "--backend", BACKEND, "--json", "-t"]
    assert main([*arguments, "abacus:tiny"]) == 0
    (tiny,) = json.loads(capsys.readouterr().out)["targets"]
    reasons = {n["reason"]: n["fix"] for n in tiny["nodes"] if n["reason"]}
    assert reasons["Conv kernel above 3"] == "use abacus:wide"
    assert main([*arguments, "abacus:wide"]) == 0
    (wide,) = json.loads(capsys.readouterr().out)["targets"]
    assert wide["coverage_macs"] == 1.0 > tiny["coverage_macs"]


def test_a_bundle_for_the_toy_chip_gives_the_same_results(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Build, verify and run; the program lists the device part's nodes."""
    from adcompile.compiler import BuildOptions, compile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = BuildOptions(backend_class=BACKEND, golden_count=1, host_code=False, cache=False)
    result = compile(model, "abacus:wide", tmp_path / "bundle", options)
    assert result.ok
    device = [p for p in result.manifest.parts if p.placement == "device"]
    program = (tmp_path / "bundle" / device[0].files["program"]).read_text()
    assert program.splitlines()[0] == "0000 Conv"
    x = np.random.default_rng(3).random((1, 3, 64, 64), dtype=np.float32)
    with adcompile.load(tmp_path / "bundle") as bundle:
        got = bundle.run({"image": x}).outputs
    assert got["out"].shape == (1, 16)


def test_an_installed_target_is_known_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with the entry point `adcompile.backends` adds a family."""
    package = tmp_path / "toy_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("abacus.py", "targets.yaml"):
        (package / name).write_text((FILE.parent / name).read_text(encoding="utf-8"), "utf-8")
    info = tmp_path / "toy_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-pkg\nVersion: 1.0\n")
    entry = "[adcompile.backends]\nabacus = toy_pkg.abacus:AbacusBackend\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_target("abacus").name == "abacus:tiny"
    assert resolve_target("abacus:tiny@2.0").limits["kernel"] == 3
    assert {"abacus:tiny", "abacus:wide"} <= {row.target.name for row in target_rows()}


def test_a_backend_without_targets_says_what_is_missing(tmp_path: Path) -> None:
    """The error names the file to write."""
    lonely = tmp_path / "lonely.py"
    lonely.write_text(FILE.read_text(encoding="utf-8"), "utf-8")
    with pytest.raises(UsageError, match="describes no targets") as caught:
        resolve_target("abacus", backend=f"{lonely}:AbacusBackend")
    assert "targets.yaml" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("family: [", "not YAML"),
        ("family: abacus", "not valid"),
        ("family: abacus\ntool: t\ndefault: nope\nversions: {}\nchips: {}", "not valid"),
    ],
)
def test_a_broken_targets_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    """Bad YAML, missing fields and dangling names are refused with the place."""
    (tmp_path / "targets.yaml").write_text(text)
    (tmp_path / "abacus.py").write_text("")
    with pytest.raises(FormatError, match=problem) as caught:
        resolve_target("abacus", backend=f"{tmp_path / 'abacus.py'}:AbacusBackend")
    assert "targets.yaml" in caught.value.where
