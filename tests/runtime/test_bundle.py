"""Opening and running a bundle: order of parts, checks, errors, what is simulated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.check.reference import opened
from adcompile.errors import AdcompileError, FormatError, InputError, ToolMissing, UsageError
from adcompile.manifest import read_manifest
from adcompile.runtime.bundle import load
from tests.check import handmade


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write_bundle(tmp_path_factory.mktemp("bundle"))


def image(seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_parts_give_what_the_whole_model_gives(bundle: Path) -> None:
    """Split execution equals ONNX Runtime on the unsplit model, detection by detection."""
    with load(bundle) as opened_bundle, opened(handmade.model()) as whole:
        feeds, _ = opened_bundle.feeds(image())
        expected, found = whole.run(feeds), opened_bundle(image())
    assert list(found) == ["boxes", "labels", "scores", "masks"]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
    assert len(found["boxes"]) > 0


@pytest.mark.parametrize(
    "options",
    [{"roi_policy": "loop"}, {"roi_policy": "bucket", "roi_buckets": "1,8,32"}],
)
def test_roi_policies_agree(bundle: Path, tmp_path: Path, options: dict[str, str]) -> None:
    """A head run row by row or in buckets gives what it gives at once; calls are counted."""
    other = handmade.write_bundle(tmp_path / "b", options={"box_head": options})
    with load(bundle) as one, load(other) as two:
        feeds, _ = one.feeds(image())
        first, second = one.run(feeds), two.run(feeds)
    for name, array in first.outputs.items():
        np.testing.assert_allclose(second.outputs[name], array, rtol=1e-5, atol=1e-6)
    assert second.parts[2].calls > first.parts[2].calls == 1


def test_zero_detections(bundle: Path) -> None:
    """An image without detections gives empty arrays of the right shape and no device call."""
    with load(bundle) as opened_bundle:
        result = opened_bundle.run({"image": np.zeros((1, 3, 32, 32), np.float32)})
    shapes = {name: array.shape for name, array in result.outputs.items()}
    assert shapes == {"boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 1, 4, 4)}
    assert result.outputs["labels"].dtype == np.int64
    assert [part.calls for part in result.parts] == [1, 1, 0, 1]


def test_bytes_and_taps(bundle: Path) -> None:
    """Every tensor between the parts can be seen; bytes are counted."""
    seen: dict[str, tuple[int, ...]] = {}
    with load(bundle) as opened_bundle:
        feeds, _ = opened_bundle.feeds(image())
        result = opened_bundle.run(feeds, tap=lambda n, a: seen.__setitem__(n, a.shape))
    assert list(seen)[:2] == ["image", "features"]
    assert {"rows", "boxes", "logits", "pixels", "labels"} <= set(seen)
    assert result.parts[0].bytes_in == 3 * 32 * 32 * 4
    assert result.parts[0].bytes_out == 8 * 16 * 16 * 4


def test_public_load(bundle: Path) -> None:
    """``adcompile.load`` is the same function; arrays, images and files are taken."""
    with adcompile.load(bundle, threads=1) as opened_bundle:
        tensor = opened_bundle.feeds(image())[0]["image"]
        by_image, by_tensor = opened_bundle({"image": image()}), opened_bundle(tensor)
    assert np.array_equal(by_image["scores"], by_tensor["scores"])


def test_files_as_inputs(bundle: Path, tmp_path: Path) -> None:
    """.npy and .npz files hold tensors; wrong ones are named."""
    with load(bundle) as opened_bundle:
        tensor = opened_bundle.feeds(image())[0]["image"]
        np.save(tmp_path / "x.npy", tensor)
        np.savez(tmp_path / "x.npz", image=tensor)
        np.savez(tmp_path / "wrong.npz", picture=tensor)
        one, two = opened_bundle(tmp_path / "x.npy"), opened_bundle(str(tmp_path / "x.npz"))
        assert np.array_equal(one["boxes"], two["boxes"])
        with pytest.raises(UsageError, match="unknown: picture; missing: image"):
            opened_bundle(tmp_path / "wrong.npz")
        np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object))
        (tmp_path / "t.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
        (tmp_path / "z.npz").write_bytes(b"PK\x03\x04garbage")
        for name in ("o.npy", "t.npy", "z.npz"):
            with pytest.raises(FormatError):
                opened_bundle(tmp_path / name)
        with pytest.raises(InputError, match="no such array file"):
            opened_bundle(tmp_path / "missing.npy")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((1, 3, 32, 31), np.float32), "wrong shape"),
        (np.zeros((3, 32, 32), np.float32), "wrong shape"),
        (np.zeros((1, 3, 32, 32), np.float64), "wrong type"),
        ("not an array at all.gif", "no such image file"),
        (7, "cannot use a int"),
    ],
)
def test_wrong_inputs_are_named(bundle: Path, value: object, message: str) -> None:
    """Shape, type, kind and existence of an input are checked before anything runs."""
    with load(bundle) as opened_bundle, pytest.raises(InputError, match=message):
        opened_bundle({"image": value})


def test_wrong_names(bundle: Path) -> None:
    """Unknown and missing inputs are listed with what the bundle has."""
    with load(bundle) as opened_bundle, pytest.raises(UsageError) as caught:
        opened_bundle({"img": image()})
    assert "img" in str(caught.value)
    assert "image: float32 [1, 3, 32, 32]" in str(caught.value)


def test_simulation_is_said(tmp_path: Path) -> None:
    """Device parts run by the CPU are named; "require" refuses; host parts are no simulation."""
    path = handmade.write_bundle(tmp_path / "b", executor="npu")
    with load(path, "simulate") as opened_bundle:
        assert opened_bundle.simulated == ("backbone", "box_head")
        assert "simulating cpu:host" in opened_bundle.where["backbone"]
        assert opened_bundle.where["host_0"] == "ONNX Runtime CPU"
    other = handmade.write_bundle(tmp_path / "c", executor="boards.r.us")
    with load(other) as opened_bundle:
        assert opened_bundle.simulated == ("backbone", "box_head")
    with load(other, "require") as opened_bundle, pytest.raises(AdcompileError):
        opened_bundle(image())
    with pytest.raises(UsageError, match="unknown device mode"):
        load(other, "gpu")


def test_require_on_the_simulator_is_refused(tmp_path: Path) -> None:
    """The CPU executor never stands in for a device that was required."""
    from adcompile.backends.cpu.executor import CpuExecutor

    path = handmade.write_bundle(tmp_path / "b", executor="npu")
    part = read_manifest(path).parts[0]
    with pytest.raises(ToolMissing, match="needs a device"):
        CpuExecutor().open(part, path, {"require_device": "true"})


def test_parts_that_do_not_fit_together(bundle: Path, tmp_path: Path) -> None:
    """A part that reads what nobody makes, or makes what exists, is found before running."""
    manifest = read_manifest(bundle)
    for parts in (manifest.parts[1:], (*manifest.parts, manifest.parts[0])):
        broken = manifest.model_copy(update={"parts": parts, "files": {}, "golden": ()})
        (tmp_path / "manifest.json").write_text(broken.dump())
        with pytest.raises(FormatError):
            load(tmp_path, check=False)


def test_closing_twice_and_using_again(bundle: Path) -> None:
    """A closed bundle opens its parts again when it is used."""
    opened_bundle = load(bundle)
    first = opened_bundle(image())
    opened_bundle.close()
    opened_bundle.close()
    assert np.array_equal(opened_bundle(image())["scores"], first["scores"])
    opened_bundle.close()


def test_running_needs_no_compiler(bundle: Path) -> None:
    """A board that runs a bundle imports neither onnx nor the IR nor the compiler."""
    code = (
        "import sys, numpy as np, adcompile\n"
        f"b = adcompile.load({str(bundle)!r})\n"
        "b({'image': np.zeros((1,3,32,32), np.float32)})\n"
        "bad = [m for m in ('onnx', 'onnx_ir', 'adcompile.compiler', 'adcompile.ir.graph',"
        " 'adcompile.interfaces', 'torch') if m in sys.modules]\n"
        "print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_command_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run writes arrays, detections in image pixels and a drawing; bench prints every part."""
    from PIL import Image

    from adcompile.cli import main

    Image.fromarray(image()).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    argv = ["run", str(bundle), "--input", f"image={tmp_path / 'photo.png'}", "-o", str(out)]
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["runs"][0]
    assert np.load(out / "boxes.npy").shape[0] == told["detections_total"]
    assert (out / "detections.png").is_file()
    restored = np.load(out / "detections.npz")["boxes"]
    assert restored[:, 2].max() <= 50
    assert restored[:, 3].max() <= 40
    assert main(argv) == 0
    assert "detections.png" in capsys.readouterr().out
    assert main(["bench", str(bundle), "--runs", "3", "--warmup", "1", "--json"]) == 0
    timed = json.loads(capsys.readouterr().out)
    assert timed["runs"] == 3
    assert [part["name"] for part in timed["parts"]] == [name for name, *_ in handmade.PARTS]
    assert timed["prepared"] is None
    photo = f"image={tmp_path / 'photo.png'}"
    assert main(["bench", str(bundle), "-i", photo, "--runs", "2", "--json"]) == 0
    timed = json.loads(capsys.readouterr().out)
    assert timed["prepared"]["p50_ms"] > 0
    assert timed["prepared"]["bytes_out"] == timed["total"]["bytes_in"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["run", "BUNDLE", "-i", "img=photo.png"], 2),
        (["run", "BUNDLE", "-i", "missing.png"], 2),
        (["run", "nowhere", "-i", "x.png"], 2),
        (["bench", "BUNDLE", "--runs", "0"], 2),
        (["verify", "nowhere"], 2),
    ],
)
def test_command_line_errors(
    bundle: Path, argv: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """User errors end in exit code 2 and a sentence, never a traceback."""
    from adcompile.cli import main

    assert main([str(bundle) if a == "BUNDLE" else a for a in argv]) == code
    assert "Traceback" not in capsys.readouterr().err
