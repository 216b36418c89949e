"""What a run leaves behind: arrays, decisions, heat maps in the pixels of the original image."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from adcompile.cli import main
from adcompile.cli.run import parse_inputs
from adcompile.contract import Contract, Preprocess, Score
from adcompile.errors import InputError, UsageError
from adcompile.manifest import Manifest, ModelRecord, TensorSpec
from adcompile.runtime.decision import decide
from adcompile.runtime.deliver import deliver
from adcompile.runtime.heatmap import colours, plain_map, to_picture
from adcompile.runtime.preprocess import place
from tests.check import handmade


def manifest(**score: object) -> Manifest:
    rule = Score.model_validate({"method": "patchcore", **score}) if score else None
    return Manifest(
        adcompile="0",
        model=ModelRecord(name="m", sha256="", opset=17, inputs=(), outputs=()),
        contract=Contract(roles={"s": "score", "m": "map"}, score=rule),
        target="cpu:host",
        parts=(),
    )


def outputs(value: float) -> dict[str, np.ndarray]:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    return {"s": np.array([value], np.float32), "m": ramp}


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.9, "anomalous"), (0.5, "anomalous"), (0.1, "normal"), (np.nan, "anomalous")],
)
def test_decision(tmp_path: Path, value: float, word: str) -> None:
    """The contract's comparison decides; a score that is no number is never "normal"."""
    told = deliver(manifest(threshold=0.5), outputs(value), None).summary
    assert told["decision"] == word


def test_top_classes() -> None:
    """A row of class scores gives the five highest with their names; other outputs give none."""
    plain = manifest()
    contract = plain.contract.model_copy(update={"roles": {}, "classes": ("cat", "dog")})
    scores = np.array([[0.1, 3.0, 2.0, 0.0, -1.0, -2.0]], np.float32)
    named = plain.model_copy(update={"contract": contract})
    told = deliver(named, {"logits": scores}, None).summary["classes"]
    best = cast("list[dict[str, object]]", told)
    assert [(each["label"], each["class"]) for each in best[:2]] == [(1, "dog"), (2, "")]
    assert len(best) == 5
    assert "classes" not in deliver(named, {"features": scores[0]}, None).summary


def test_no_threshold_no_decision() -> None:
    """Without a threshold the score is given alone."""
    assert "decision" not in deliver(manifest(), outputs(1.0), None).summary
    assert "decision" not in deliver(manifest(k=3), outputs(1.0), None).summary
    assert not decide(np.array([1e9]), Score(method="vae")).any()


def test_heat_map_over_the_original(tmp_path: Path) -> None:
    """The drawing has the size of the image that was given, not of the tensor."""
    pixels = np.full((30, 50, 3), 128, np.uint8)
    for resize in ("stretch", "letterbox"):
        rule = Preprocess.model_validate({"size": (16, 16), "resize": resize})
        _, where = place(pixels, rule)
        told = deliver(manifest(), outputs(0.1), tmp_path, pixels, where)
        assert told.files == ["s.npy", "m.npy", "heatmap.png"]
        drawn = np.asarray(Image.open(tmp_path / "heatmap.png"))
        assert drawn.shape == (30, 50, 3)
        assert np.ptp(drawn.astype(int), axis=(0, 1)).max() > 20


def test_heat_map_on_the_contracts_scale(tmp_path: Path) -> None:
    """Far below the threshold nothing is warm; above it the same map has red in it."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    _, where = place(pixels, Preprocess(size=(16, 16)))
    warmest: list[int] = []
    for limit in (1e3, 0.5):
        folder = tmp_path / str(limit)
        folder.mkdir()
        deliver(manifest(threshold=limit), outputs(0.1), folder, pixels, where)
        with Image.open(folder / "heatmap.png") as image:
            warmest.append(int(np.asarray(image)[..., 0].max()))
    assert warmest[0] == 0
    assert warmest[1] > 80


def test_letterbox_padding_is_not_drawn() -> None:
    """A map that is hot only in the padding is cold all over the picture."""
    _, where = place(
        np.zeros((10, 40, 3), np.uint8), Preprocess(size=(40, 40), resize="letterbox")
    )
    values = np.zeros((40, 40), np.float32)
    values[:15], values[-15:] = 9.0, 9.0
    assert to_picture(values, where).max() == 0.0


def test_maps_and_colours() -> None:
    """Only one plane can be drawn; NaN has a colour; the ends are blue and red."""
    with pytest.raises(InputError, match="cannot be drawn"):
        plain_map(np.zeros((2, 4, 4), np.float32))
    found = colours(np.array([0.0, 1.0, np.nan, 7.0]))
    assert found[0, 2] > found[0, 0]
    assert found[1, 0] > found[1, 2]
    assert np.array_equal(found[2], found[0])
    assert np.array_equal(found[3], found[1])


def test_unwritable_folder(tmp_path: Path) -> None:
    """A result that cannot be written is a clear error."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write"):
        deliver(manifest(), outputs(0.1), tmp_path / "file")


ONE = [TensorSpec(name="image", dtype="float32", shape=(1,))]
TWO = [*ONE, TensorSpec(name="other", dtype="float32", shape=(1,))]


def test_inputs_of_the_command_line(tmp_path: Path) -> None:
    """Names may be left out for one input; folders stand for their images; clashes are errors."""
    for name in ("b.png", "a.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert [label for label, _ in parse_inputs([str(tmp_path)], ONE)] == ["a", "b"]
    odd = tmp_path / "x=y.png"
    odd.write_bytes(b"")
    assert parse_inputs([str(odd)], ONE) == [("x=y", {"image": odd})]
    pairs = ["image=a.npy", "other=b.npy"]
    assert parse_inputs(pairs, TWO) == [("run", {"image": Path("a.npy"), "other": Path("b.npy")})]
    for wrong in (["a.npy"], ["imge=a.npy"], ["image=a.npy", "image=b.npy"]):
        with pytest.raises(UsageError):
            parse_inputs(wrong, TWO)


def test_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every image gets a folder of its own."""
    bundle = handmade.write_bundle(tmp_path / "bundle")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one.png", "two.png"):
        Image.new("RGB", (40, 20), "gray").save(photos / name)
    out = tmp_path / "out"
    assert main(["run", str(bundle), "-i", str(photos), "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["0000_one", "0001_two"]
    assert all((p / "boxes.npy").is_file() for p in out.iterdir())
    assert "one.png" in capsys.readouterr().out.replace("\n", "")
