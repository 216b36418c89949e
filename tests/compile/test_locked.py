"""``build --locked``: the bundle of an earlier manifest again, or exit code 1 and the cause."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import FormatError, LockBroken, UsageError
from adcompile.manifest import ActionRecord, read_manifest
from adcompile.pack import pack
from tests.compile.models import cnn

QUICK = BuildOptions(golden_count=1, host_code=False, cache=False, precision="a8w8")


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a first build, kept under a name of its own, as a repository would."""
    folder = tmp_path_factory.mktemp("lock")
    compile(cnn(), "npu", folder / "out", QUICK)
    np.savez(folder / "calib.npz", image=np.zeros((1, 3, 32, 32), np.float32))
    return Path(shutil.copy(folder / "out" / "manifest.json", folder / "model.lock.json"))


def changed_lock(lock: Path, target: Path, **changes: object) -> Path:
    """A lock with other values, sealed again."""
    manifest = read_manifest(lock.parent, lock.name).model_copy(update=changes)
    target.write_text(manifest.dump())
    return target


def test_the_same_build_comes_out_again(lock: Path, tmp_path: Path) -> None:
    """From the manifest, its bundle, or an archive of it; also where the bundle is there already."""
    archive = pack(lock.parent / "out", tmp_path / "a.adz").path
    for number, given in enumerate((lock, lock.parent / "out", archive)):
        result = compile(cnn(), "npu", tmp_path / str(number), replace(QUICK, locked=given))
        assert result.manifest.files == read_manifest(lock.parent, lock.name).files
    reusing = replace(QUICK, locked=lock, cache=True)
    again = compile(cnn(), "npu", lock.parent / "out", reusing)
    assert [state for _, state, _ in again.steps] == ["reused"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "xint8"}, "precision: a8w8 in the lock, xint8 here"),
        ({"seed": 3}, "seed: 0 in the lock, 3 here"),
        ({"pins": {"block_a": "host"}, "seed": 3}, "pins: {} in the lock"),
        ({"calib": "calib.npz"}, "calib: not in the lock"),
    ],
)
def test_other_inputs_are_named_before_any_work(
    lock: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    """The first difference with both values, the others by name; nothing is built."""
    if "calib" in change:
        change = {"calib": lock.parent / str(change["calib"])}
    seen: list[str] = []
    options = replace(QUICK, locked=lock).changed(change)
    with pytest.raises(LockBroken, match="differs from the lock") as error:
        compile(cnn(), "npu", tmp_path / "b", options, watch=seen.append)
    assert said in error.value.why
    assert ("also: seed" in error.value.why) == (len(change) == 2)
    assert not (tmp_path / "b").exists()
    assert "emit" not in seen


def test_other_models_targets_and_versions(lock: Path, tmp_path: Path) -> None:
    """The model comes first; of tools, the package is named."""
    locked = replace(QUICK, locked=lock)
    with pytest.raises(LockBroken) as error:
        compile(cnn(1), "npu", tmp_path / "b", locked)
    assert error.value.why.startswith("model: another")
    with pytest.raises(LockBroken) as error:
        compile(cnn(), "npu:krk", tmp_path / "b", locked)
    assert error.value.why.startswith("target: npu:stx Ryzen AI 1.8 in the lock, npu:krk")
    manifest = read_manifest(lock.parent, lock.name)
    tools = {**manifest.tools, "onnxruntime": "9.9"}
    identity = {**manifest.identity, "tools": "sha256:0"}
    other = changed_lock(lock, tmp_path / "l.json", tools=tools, identity=identity)
    with pytest.raises(LockBroken) as error:
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=other))
    assert error.value.why == (
        f"onnxruntime: 9.9 in the lock, {manifest.tools['onnxruntime']} here"
    )


def test_files_that_come_out_otherwise(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What decides first is named first; nothing is published; what vendor tools made may differ."""
    files = read_manifest(lock.parent, lock.name).files
    odd = {
        name: record.model_copy(update={"sha256": "0" * 64})
        if name.startswith(("golden/", "parts/"))
        else record
        for name, record in files.items()
    }
    other = changed_lock(lock, tmp_path / "l.json", files=odd)
    (tmp_path / "m.onnx").write_bytes(cnn().SerializeToString())
    with pytest.raises(LockBroken, match="came out otherwise") as error:
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=other))
    assert error.value.why.startswith("parts/")
    assert "other files do" in error.value.why
    assert not list(tmp_path.glob("*b*"))
    with pytest.raises(LockBroken):  # also when the bundle is there
        compile(cnn(), "npu", lock.parent / "out", replace(QUICK, locked=other, cache=True))
    gone = {name: record for name, record in files.items() if name != "plan.yaml"}
    other = changed_lock(lock, tmp_path / "l.json", files=gone)
    with pytest.raises(LockBroken, match="came out otherwise") as error:
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=other))
    assert error.value.why.startswith("plan.yaml is new")
    engine = {**files, "parts/backbone/engine": files["plan.yaml"]}
    action = ActionRecord(
        name="x", part="x", tool="x", argv=(), outputs=("parts/backbone/engine",), state="done"
    )
    other = changed_lock(lock, tmp_path / "l.json", files=engine, actions=(action,))
    assert compile(cnn(), "npu", tmp_path / "c", replace(QUICK, locked=other)).ok


def test_the_command(lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and the reason as text and as JSON."""
    onnx.save(cnn(), tmp_path / "m.onnx")
    build = ["build", str(tmp_path / "m.onnx"), "-t", "npu", "--precision", "a8w8", "--no-cache"]
    assert main([*build, "-o", str(tmp_path / "a"), "--no-host-code"]) == 0
    locked = ["--locked", str(tmp_path / "a" / "manifest.json"), "-o", str(tmp_path / "b")]
    assert main([*build, *locked]) == 1
    assert "host code: False in the lock, True here" in capsys.readouterr().err
    assert main([*build, *locked, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "LockBroken"
    assert main([*build, *locked, "--no-host-code"]) == 0
    assert main([*build, "--locked", str(tmp_path / "none"), "-o", str(tmp_path / "b")]) == 2


def test_what_is_no_lock(lock: Path, tmp_path: Path) -> None:
    """An edited manifest, another file, a bundle packed without something."""
    edited = tmp_path / "l.json"
    edited.write_text(lock.read_text().replace('"seed": "0"', '"seed": "1"'))
    with pytest.raises(FormatError, match="changed"):
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=edited))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(FormatError):
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=tmp_path / "x.json"))
    slim = pack(lock.parent / "out", tmp_path / "a.adz", without=["golden"]).path
    with pytest.raises(UsageError, match="not complete"):
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, locked=slim))
