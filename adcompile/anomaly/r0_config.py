"""R0's training configuration as ours: its names, its backbones, and what it says besides."""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.anomaly.config import OTHER_NAMES
from adcompile.errors import FormatError

_OWN = ("coreset_sampling_ratio", "num_neighbors", "input_size", "backborn_id", "batch_size")
# read by --data, or answered by --output
_ELSEWHERE = frozenset(
    {"train", "val", "test", "save_weights_root_path", "auto_save_weights_path",
     "save_weights_path_suffix", "save_weights_filename"}
)  # fmt: skip
_LAYERS = ("layer2", "layer3")


def is_r0(values: Mapping[str, object]) -> bool:
    """True for a configuration in R0's words that says more than where the images are."""
    return any(name in values for name in _OWN)


def from_r0(values: Mapping[str, object]) -> dict[str, object]:
    """R0's values under our names. Raises FormatError for an unknown name, or an image that is no
    square, which R0's own network does not take either."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if name in _ELSEWHERE or value is None:
            continue
        if name not in _OWN and name != "device":
            raise FormatError("R0's configuration has no such value", where=name)
        found[OTHER_NAMES.get(name, name)] = _side(value) if name == "input_size" else value
    if "backbone" in found and not str(found["backbone"]).endswith("_onnx"):
        found["layers"] = _LAYERS
    return found


def _side(value: object) -> object:
    """``[224, 224]`` or ``224`` as one side in pixels."""
    if not isinstance(value, list):
        return value
    sides: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    if len(sides) != 2 or sides[0] != sides[1]:
        raise FormatError("images must be square", where="input_size", why=str(sides))
    return sides[0]
