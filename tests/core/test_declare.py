"""Finding the contract of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from adcompile.contract import CONTRACT_KEY, Contract, Preprocess
from adcompile.declare import find_contract, read_contract
from adcompile.errors import FormatError, UsageError
from adcompile.manifest import TensorSpec
from adcompile.outputs import role_of


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def test_image_inputs_are_recognised_and_the_assumption_is_said() -> None:
    """CHW, NCHW and NHWC images get a pre-processing; the note names what was assumed."""
    contract, notes = find_contract(
        {},
        [spec("a", 3, 32, 48), spec("b", 1, 1, 8, 8), spec("c", "N", 16, 16, 3)],
        None,
        None,
    )
    assert contract.inputs["a"].layout == "chw"
    assert contract.inputs["a"].size == (32, 48)
    assert contract.inputs["b"].channels == "gray"
    assert contract.inputs["c"].layout == "nhwc"
    assert len(notes) == 3
    assert "0…1" in notes[0]


def test_features_are_no_images() -> None:
    """Wrong rank, channel count, dtype or a fixed batch above one is not taken for an image."""
    for other in (
        spec("x", 10),
        spec("x", 1, 64, 8, 8),
        spec("x", 1, 3, 8, 8, dtype="int64"),
        spec("x", 4, 3, 8, 8),
        spec("x", 1, 3, "H", "W"),
    ):
        assert find_contract({}, [other], None, None)[0].inputs == {}


def test_metadata_wins_over_guessing() -> None:
    """A contract stored in the model is used as it is."""
    own = Contract(inputs={"a": Preprocess(size=(8, 8), crop=(8, 8), resize_to=10)})
    found, notes = find_contract({CONTRACT_KEY: own.dump()}, [spec("a", 3, 8, 8)], None, None)
    assert (found, notes) == (own, [])


def test_roles_by_name() -> None:
    """Output names of detectors and anomaly models give their roles."""
    names = ["boxes", "labels", "scores", "masks", "pred_score", "anomaly_map", "layer2", "x"]
    roles = ["boxes", "labels", "scores", "masks", "score", "map", "features", "tensor"]
    assert [role_of(n) for n in names] == roles


@pytest.mark.parametrize(
    "text", ["[", "3", "inputs: {a: {size: [0, 8]}}", "inputs: {a: {size: [8, 8], sise: 1}}"]
)
def test_bad_contract_files(tmp_path: Path, text: str) -> None:
    """Damaged YAML, wrong types, wrong ranges and misspelt keys are refused."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_contract(path)


def test_missing_contract_file(tmp_path: Path) -> None:
    """A path that names nothing is a usage error."""
    with pytest.raises(UsageError):
        read_contract(tmp_path / "no.yaml")


@pytest.mark.parametrize("shape", [(3, 1, 220_000), (1, 1, 0, 8), (1, 3, 65_537, 2)])
def test_signals_are_no_images(shape: tuple[int, ...]) -> None:
    """Sides that no image has: nothing is assumed, and nothing fails."""
    contract, notes = find_contract({}, [spec("a", *shape)], None, None)
    assert contract.inputs == {}
    assert notes == []
