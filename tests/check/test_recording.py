"""Recordings: which images, which rows, what survives an interruption, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.check.calibration_source import kind_of, part_data
from adcompile.check.recorder import record
from adcompile.check.recording import Recording, identity_of
from adcompile.check.reference import FloatParts
from adcompile.cli import main
from adcompile.cli.record import find_sources
from adcompile.errors import AdcompileError, FormatError, InputError, UsageError
from adcompile.interfaces import Part
from adcompile.ir import model_io
from adcompile.ir.graph import tensor_spec
from adcompile.manifest import TensorSpec
from adcompile.runtime.inputs import make_feeds
from tests.check import handmade

WHOLE = handmade.model()
PARTS = handmade.parts(WHOLE)
INPUTS = [tensor_spec(v) for v in WHOLE.graph.inputs]
OUTPUTS = [tensor_spec(v) for v in WHOLE.graph.outputs]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "black.png")
    (folder / "broken.png").write_bytes(b"no image")
    return find_sources(folder, None)[0]


def run(
    images: dict[str, Path],
    folder: Path,
    samples: int = 4,
    rows: int = 5,
    parts: list[Part] | None = None,
    seed: int = 0,
    max_bytes: int = 1 << 30,
) -> Recording:
    chosen = parts or PARTS
    identity = identity_of("sha", chosen, handmade.CONTRACT, seed, rows)
    return record(
        chosen,
        INPUTS,
        OUTPUTS,
        images,
        folder,
        identity=identity,
        contract=handmade.CONTRACT,
        max_samples=samples,
        max_bytes=max_bytes,
    )


def names(recording: Recording) -> list[str]:
    return [sample.source for sample in recording.index.samples]


def test_recorded_rows_are_real_rows(images: dict[str, Path], tmp_path: Path) -> None:
    """Every kept region row is one that the model really produced; inputs and results match."""
    recording = run(images, tmp_path / "r")
    box_head = PARTS[2]
    data = recording.of_part("box_head", box_head.inputs)
    assert len(data) > 0
    with FloatParts(PARTS, INPUTS, OUTPUTS) as chain:
        for sample, feeds in zip(data.samples, data, strict=True):
            values: dict[str, np.ndarray] = {}
            source = make_feeds(INPUTS, handmade.CONTRACT, images[sample.source])[0]
            chain.run(source, tap=values.__setitem__)
            real = {row.tobytes() for row in values["rows"]}
            assert len(feeds["rows"]) == min(5, len(values["rows"]))
            assert all(row.tobytes() in real for row in feeds["rows"])


def test_images_without_regions_are_no_samples_of_the_head(
    images: dict[str, Path], tmp_path: Path
) -> None:
    """The black image is recorded, but gives the head nothing to calibrate on."""
    recording = run({"black.png": images["black.png"]}, tmp_path / "r")
    assert names(recording) == ["black.png"]
    assert len(recording.of_part("backbone", PARTS[0].inputs)) == 1
    with pytest.raises(InputError, match="nothing was recorded for part 'box_head'"):
        recording.of_part("box_head", PARTS[2].inputs)


def test_the_choice_is_random_bounded_and_repeatable(
    images: dict[str, Path], tmp_path: Path
) -> None:
    """The same seed keeps the same images, another seed others; never more than asked for."""
    one, two = run(images, tmp_path / "a"), run(images, tmp_path / "b")
    three = run(images, tmp_path / "c", seed=3)
    assert len(one) == 4
    assert names(one) == names(two)
    assert names(one) != names(three)
    files = [f for s in one.index.samples for f in s.files.values()]
    assert files == [f for s in two.index.samples for f in s.files.values()]


def test_broken_images_are_skipped_and_listed(images: dict[str, Path], tmp_path: Path) -> None:
    """One bad file does not end the recording."""
    recording = run(images, tmp_path / "r", samples=20)
    assert len(recording) == len(images) - 1
    assert "not an image" in recording.index.skipped["broken.png"]


def test_a_stopped_recording_goes_on(images: dict[str, Path], tmp_path: Path) -> None:
    """Samples that are there are not run again; the result is that of an undisturbed run."""
    folder = tmp_path / "r"
    whole = run(images, tmp_path / "whole", samples=6)
    some = dict(list(images.items())[:4])
    run(some, folder, samples=6)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npy")}
    (folder / "samples/half_done").mkdir()
    (folder / "samples/half_done/x.npy").write_bytes(b"cut")
    again = run(images, folder, samples=6)
    assert names(again) == names(whole)
    kept = [p for p in stamps if p.is_file()]
    assert kept
    assert all(p.stat().st_mtime_ns == stamps[p] for p in kept)


def test_fewer_samples_drop_the_last(images: dict[str, Path], tmp_path: Path) -> None:
    """A smaller limit removes files, so the disk stays bounded."""
    folder = tmp_path / "r"
    more = run(images, folder, samples=6)
    less = run(images, folder, samples=2)
    assert names(less) == names(more)[:2]
    assert len(list((folder / "samples").iterdir())) == 2


def test_disk_is_bounded(images: dict[str, Path], tmp_path: Path) -> None:
    """Recording stops when the files take their share."""
    assert len(run(images, tmp_path / "r", samples=20, max_bytes=1)) == 1


def test_other_parts_other_recording(images: dict[str, Path], tmp_path: Path) -> None:
    """A folder is only continued for the same model, parts, contract and row limit."""
    run(images, tmp_path / "r", samples=1)
    with pytest.raises(UsageError, match="different: rows_per_sample"):
        run(images, tmp_path / "r", rows=6)
    other = [handmade.without_rows(part) for part in PARTS]
    with pytest.raises(UsageError, match="different: parts"):
        run(images, tmp_path / "r", parts=other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_bytes(b"")
    with pytest.raises(UsageError, match="not empty"):
        run(images, tmp_path / "full")


def test_nothing_usable(images: dict[str, Path], tmp_path: Path) -> None:
    """Only broken images: an error with the first reasons."""
    with pytest.raises(InputError, match="no image could be recorded") as caught:
        run({"broken.png": images["broken.png"]}, tmp_path / "r")
    assert "broken.png" in str(caught.value)


def test_nan_is_skipped(tmp_path: Path) -> None:
    """A sample whose tensors hold NaN never becomes calibration data."""
    np.save(tmp_path / "nan.npy", np.full((1, 3, 32, 32), np.nan, np.float32))
    with pytest.raises(InputError, match="holds NaN"):
        run({"nan": tmp_path / "nan.npy"}, tmp_path / "r")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index", "schema", "escape"])
def test_damage_is_noticed(images: dict[str, Path], tmp_path: Path, damage: str) -> None:
    """Sizes at opening, hashes while reading, the index always."""
    folder = tmp_path / "r"
    recording = run(images, folder, samples=2)
    file = folder / recording.index.samples[0].tensors["features"]
    index = folder / "recording.json"
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "index":
        index.write_text(index.read_text()[:-20])
    elif damage == "schema":
        index.write_text(json.dumps({**json.loads(index.read_text()), "schema_version": 9}))
    else:
        raw = json.loads(index.read_text())
        raw["samples"][0]["folder"] = "../outside"
        index.write_text(json.dumps(raw))
    with pytest.raises(FormatError):
        list(Recording.open(folder).of_part("host_0", PARTS[1].inputs))


def test_unknown_tensor_of_a_part(images: dict[str, Path], tmp_path: Path) -> None:
    """A part of another plan is told what is missing."""
    recording = run(images, tmp_path / "r", samples=1)
    spec = TensorSpec(name="elsewhere", dtype="float32", shape=(1,))
    with pytest.raises(InputError, match="nothing was recorded for part 'x'"):
        recording.of_part("x", [spec])


def model_io_folder(root: Path) -> Path:
    """Arrays as R4's evaluation script leaves them."""
    rng = np.random.default_rng(0)
    for number, rows in enumerate((3, 0, 5)):
        folder = root / f"{number:012d}"
        folder.mkdir(parents=True)
        np.save(folder / "input_backbone.npy", rng.random((1, 3, 32, 32), np.float32))
        np.save(folder / "box_features.npy", rng.random((rows, 8), np.float32))
        np.save(folder / "boxes.npy", rng.random((rows, 4), np.float32))
    return root


def test_model_io_folders(tmp_path: Path) -> None:
    """Files are matched by the one shape that fits; rows stay as they are, empty ones left out."""
    root = model_io_folder(tmp_path / "model_io")
    assert kind_of(root) == "arrays"
    head = list(part_data(root, "box_head", PARTS[2].inputs))
    assert [sample["rows"].shape for sample in head] == [(3, 8), (5, 8)]
    backbone = list(part_data(root, "backbone", PARTS[0].inputs))
    assert [sample["image"].shape for sample in backbone] == [(1, 3, 32, 32)] * 3
    spec = TensorSpec(name="mask_features", dtype="float32", shape=("n", 9))
    with pytest.raises(InputError, match="no array fits") as caught:
        part_data(root, "mask_head", [spec])
    assert "box_features [3, 8]" in str(caught.value)
    for folder in root.iterdir():
        np.save(folder / "more.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(InputError, match="several arrays fit"):
        part_data(root, "box_head", PARTS[2].inputs)
    named = TensorSpec(name="more", dtype="float32", shape=("n", 8))
    assert len(part_data(root, "x", [named])) == 3


def test_kinds_of_calibration(images: dict[str, Path], tmp_path: Path) -> None:
    """A recording, arrays and images are told apart; nothing at all is an error."""
    run(images, tmp_path / "r", samples=1)
    assert kind_of(tmp_path / "r") == "recording"
    assert kind_of(next(iter(images.values())).parent) == "images"
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(AdcompileError):
            kind_of(path)


def coco(folder: Path, names_: list[str]) -> Path:
    entries = [
        {"id": n, "file_name": name, "width": 30, "height": 20} for n, name in enumerate(names_)
    ]
    path = folder / "ann.json"
    categories = [{"id": 1, "name": "thing"}]
    path.write_text(json.dumps({"images": entries, "annotations": [], "categories": categories}))
    return path


def test_sources(images: dict[str, Path], tmp_path: Path) -> None:
    """A COCO file names images; missing ones are noted; folders are searched to the bottom."""
    folder = next(iter(images.values())).parent
    path = coco(tmp_path, ["0.png", "gone.png"])
    found, notes = find_sources(path, folder)
    assert list(found) == ["0.png"]
    assert notes == ["1 images of ann.json are not there"]
    with pytest.raises(InputError):
        find_sources(coco(tmp_path, ["gone.png"]), folder)
    with pytest.raises(UsageError):
        find_sources(folder, folder)
    with pytest.raises(InputError):
        find_sources(tmp_path / "none", None)


def test_record_on_the_command_line(
    images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plans, records, and says what was skipped."""
    model_io.save_model(WHOLE, tmp_path / "m.onnx")
    folder = next(iter(images.values())).parent
    argv = ["record", str(tmp_path / "m.onnx"), "--data", str(folder), "-o", str(tmp_path / "r")]
    assert main([*argv, "--target", "trt", "--max-samples", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["samples"]) == 3
    assert "image" in told["tensors"]
    assert main([*argv, "--target", "trt", "--max-samples", "20"]) == 0
    assert "skipped broken.png" in capsys.readouterr().out


def test_a_full_recording_says_so(
    images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--max-gib ends it, and the next run goes on; --rows belongs to what a recording is of."""
    model_io.save_model(WHOLE, tmp_path / "m.onnx")
    folder = next(iter(images.values())).parent
    argv = ["record", str(tmp_path / "m.onnx"), "--data", str(folder), "-o", str(tmp_path / "r")]
    argv += ["--target", "trt", "--max-samples", "3"]
    assert main([*argv, "--max-gib", "1e-9"]) == 0
    told = capsys.readouterr().out
    assert "1 samples" in told
    assert "stopped at --max-gib with 2 images left" in told
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["samples"]) == 3
    assert not any("max-gib" in note for note in told["notes"])
    assert main([*argv, "--rows", "5"]) == 2
    assert "rows_per_sample" in capsys.readouterr().err
