"""What people get wrong at the command line: a sentence, the right exit code, no half bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from adcompile.cli import main
from tests.compile.models import cnn, dynamic


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, a picture and some broken files."""
    onnx.save(cnn(), tmp_path / "m.onnx")
    onnx.save(dynamic(), tmp_path / "dynamic.onnx")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "ok.png")
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    whole = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    (tmp_path / "plan.yaml").write_text("parts: 3")
    (tmp_path / "yaml.yaml").write_text("[")
    (tmp_path / "contract.yaml").write_text("inputs: {image: {size: [0, 1]}}")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    np.savez(tmp_path / "wrong_shape.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    np.savez(tmp_path / "wrong_name.npz", img=np.zeros((1, 3, 32, 32), np.float32))
    np.savez(tmp_path / "nan.npz", image=np.full((1, 3, 32, 32), np.nan, np.float32))
    np.savez(tmp_path / "pickle.npz", image=np.array([{"a": 1}], dtype=object))
    (tmp_path / "no_pass.py").write_text("x = 1\n")
    (tmp_path / "bad_pass.py").write_text("raise ValueError('broken on import')\n")
    (tmp_path / "black").mkdir()
    for index in range(2):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black" / f"{index}.png")
    return tmp_path


# arguments of `build` (paths are relative to the folder), and words the message must hold
CASES: list[tuple[str, list[str], str]] = [
    ("missing model", ["no.onnx", "-t", "npu"], "no such file"),
    ("text", ["text.onnx", "-t", "npu"], "not an ONNX model"),
    ("empty", ["empty.onnx", "-t", "npu"], "not an ONNX model"),
    ("truncated", ["cut.onnx", "-t", "npu"], "ONNX"),
    ("folder without model", ["nothing", "-t", "npu"], "folder holds no model"),
    ("unknown family", ["m.onnx", "-t", "tpu"], "tpu"),
    ("unknown chip", ["m.onnx", "-t", "npu:stxx"], "stx"),
    ("unknown version", ["m.onnx", "-t", "trt:orin-nx@99"], "99"),
    ("unknown precision", ["m.onnx", "-t", "npu", "--precision", "int3"], "xint8"),
    ("bad shape text", ["dynamic.onnx", "-t", "npu", "--input-shape", "image=1xAx3"], "1x3x320"),
    (
        "shape without name",
        ["dynamic.onnx", "-t", "npu", "--input-shape", "1x3x8x8"],
        "NAME=VALUE",
    ),
    ("zero shape", ["dynamic.onnx", "-t", "npu", "--input-shape", "image=1x3x0x0"], "at least 1"),
    (
        "unknown input",
        ["dynamic.onnx", "-t", "npu", "--input-shape", "x=1x3x8x8"],
        "no input called",
    ),
    ("contradicting shape", ["m.onnx", "-t", "npu", "--input-shape", "image=1x3x8x8"], "image"),
    ("wrong rank", ["dynamic.onnx", "-t", "npu", "--input-shape", "image=3x8x8"], "image"),
    ("wrong channels", ["dynamic.onnx", "-t", "npu", "--input-shape", "image=1x4x8x8"], "image"),
    ("missing golden", ["m.onnx", "-t", "npu", "--golden", "no.png"], "no.png"),
    ("broken golden image", ["m.onnx", "-t", "npu", "--golden", "broken.png"], "broken.png"),
    ("golden of wrong shape", ["m.onnx", "-t", "npu", "--golden", "wrong_shape.npz"], "image"),
    ("golden of wrong name", ["m.onnx", "-t", "npu", "--golden", "wrong_name.npz"], "img"),
    ("pickled golden", ["m.onnx", "-t", "npu", "--golden", "pickle.npz"], "pickle"),
    ("missing calibration", ["m.onnx", "-t", "npu", "--calib", "no"], "no"),
    ("empty calibration", ["m.onnx", "-t", "npu", "--calib", "nothing"], "no image"),
    ("missing plan", ["m.onnx", "-t", "npu", "--plan", "no.yaml"], "no such"),
    ("plan that does not fit", ["m.onnx", "-t", "npu", "--plan", "plan.yaml"], "plan"),
    ("plan that is no YAML", ["m.onnx", "-t", "npu", "--plan", "yaml.yaml"], "YAML"),
    ("bad contract", ["m.onnx", "-t", "npu", "--contract", "contract.yaml"], "contract"),
    ("missing contract", ["m.onnx", "-t", "npu", "--contract", "no.yaml"], "contract"),
    ("bad pre-processing", ["m.onnx", "-t", "npu", "--preprocess", "imagnet"], "imagenet"),
    ("pin to nowhere", ["m.onnx", "-t", "npu", "--pin", "stem=gpu"], "host or device"),
    ("pin of nothing", ["m.onnx", "-t", "npu", "--pin", "no_such_node=host"], "no_such_node"),
    ("pin with bad regex", ["m.onnx", "-t", "npu", "--pin", "re:[=host"], "["),
    ("unknown pass", ["m.onnx", "-t", "npu", "--pass", "fold-constant"], "fold-constants"),
    ("missing pass file", ["m.onnx", "-t", "npu", "--pass", "no.py:X"], "no such file"),
    ("pass file without pass", ["m.onnx", "-t", "npu", "--pass", "no_pass.py:X"], "no 'X'"),
    (
        "pass file that breaks",
        ["m.onnx", "-t", "npu", "--pass", "bad_pass.py:X"],
        "broken on import",
    ),
    ("backend that is none", ["m.onnx", "-t", "npu", "--backend", "no_pass.py:x"], "x"),
    ("option without value", ["m.onnx", "-t", "npu", "-O", "quantizer"], "NAME=VALUE"),
    ("option twice", ["m.onnx", "-t", "npu", "-O", "a=1", "-O", "a=2"], "twice"),
    ("unknown quantizer", ["m.onnx", "-t", "npu", "-O", "quantizer=best"], "best"),
    ("verify what", ["m.onnx", "-t", "npu", "--verify", "maybe"], "auto or none"),
    ("output is a file", ["m.onnx", "-t", "npu", "-o", "file"], "exists"),
    ("output below a file", ["m.onnx", "-t", "npu", "-o", "file/b"], "cannot write"),
    ("output exists", ["m.onnx", "-t", "npu", "-o", "."], "holds files that are no bundle"),
]


@pytest.mark.parametrize(("arguments", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_it_is_said_and_nothing_is_left(
    folder: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, the words a person needs, no traceback, no new file beside the inputs."""
    monkeypatch.chdir(folder)
    before = {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "b"]
    code = main(["build", *arguments])
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert words in shown.err
    assert "Traceback" not in shown.err
    left = [p for p in folder.rglob("*") if p not in before and "cache" not in p.parts]
    assert left == []
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p.is_file())


def test_a_free_dimension_is_reported_with_the_option_that_fixes_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dynamic model builds for the host, and the output says how to reach the device."""
    out = folder / "b"
    code = main(["build", str(folder / "dynamic.onnx"), "-t", "npu", "-o", str(out)])
    shown = capsys.readouterr()
    assert code in {0, 2}
    assert "--input-shape" in shown.out + shown.err


def test_equal_calibration_images_are_no_crash(folder: Path) -> None:
    """All-black calibration images give a bundle, or a sentence; never a traceback."""
    code = main(
        [
            "build",
            str(folder / "m.onnx"),
            "-t",
            "npu",
            "--calib",
            str(folder / "black"),
            "-o",
            str(folder / "b"),
            "--no-host-code",
        ]
    )
    assert code in {0, 1, 2}


def test_unwritable_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody may make a folder, root included, that is said, with exit code 2."""
    assert main(["build", str(folder / "m.onnx"), "-t", "npu", "-o", "/proc/adcompile/b"]) == 2
    assert "cannot write" in capsys.readouterr().err


VERBS: list[Callable[[Path], list[str]]] = [
    lambda f: ["verify", str(f / "nothing")],
    lambda f: ["verify", str(f / "no")],
    lambda f: ["run", str(f / "nothing"), "--input", "image=x.png", "-o", str(f / "o")],
    lambda f: ["check", str(f / "text.onnx"), "--target", "npu"],
    lambda f: ["check", str(f / "m.onnx"), "--target", "npux"],
    lambda f: ["plan", str(f / "no.onnx"), "--target", "npu"],
    lambda f: ["inspect", str(f / "cut.onnx")],
    lambda f: ["optimize", str(f / "empty.onnx"), "-o", str(f / "o.onnx")],
    lambda f: ["record", str(f / "m.onnx"), "--data", str(f / "nothing"), "-o", str(f / "r")],
    lambda f: ["bench", str(f / "nothing")],
]


@pytest.mark.parametrize("make", VERBS)
def test_other_verbs_answer_bad_input_too(
    folder: Path, make: Callable[[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb that reads a file refuses a bad one with exit code 2 and a sentence."""
    assert main(make(folder)) == 2
    assert "error" in capsys.readouterr().err.lower()
