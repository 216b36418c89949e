"""Find the contract of a model: declared in its metadata, given by the user, or assumed.

What was assumed is said, because a wrong assumption here is the commonest deployment defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from adcompile.contract import (
    CONTRACT_KEY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_SIDE,
    Contract,
    Preprocess,
    parse_contract,
)
from adcompile.errors import FormatError, UsageError
from adcompile.manifest import TensorSpec

PREPROCESS_PRESETS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...], float]] = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0 / 255.0),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD, 1.0 / 255.0),
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0),
}

MAX_CONTRACT_BYTES = 1 << 20


def read_contract(path: Path) -> Contract:
    """Read a contract from a YAML or JSON file."""
    if not path.is_file():
        raise UsageError("no such contract file", where=str(path))
    if path.stat().st_size > MAX_CONTRACT_BYTES:
        raise FormatError("contract file too large", where=str(path))
    try:
        data: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError("contract is not YAML", where=str(path), why=str(error)) from error
    if not isinstance(data, dict):
        raise FormatError("contract is not a mapping", where=str(path))
    try:
        return Contract.model_validate(data)
    except ValueError as error:
        raise FormatError("contract is not valid", where=str(path), why=str(error)) from error


def find_contract(
    metadata: Mapping[str, str],
    inputs: Sequence[TensorSpec],
    given: Contract | None,
    preset: str | None,
    *,
    trained: Mapping[str, object] | None = None,
) -> tuple[Contract, list[str]]:
    """The contract and the sentences that say what was assumed.

    Order: *given*, the model's metadata, then an assumption from the inputs' shapes with *preset*
    ("unit", "imagenet", "raw") for image inputs; *trained* is what is known of how such models see
    colour images (fields of Preprocess).
    """
    if given is not None:
        return given, []
    if CONTRACT_KEY in metadata and preset is None:
        return parse_contract(metadata[CONTRACT_KEY], "model metadata"), []
    notes: list[str] = []
    found: dict[str, Preprocess] = {}
    for spec in inputs:
        guess = _guess(spec, preset or "unit")
        if guess is not None:
            if guess.channels != "gray":
                guess = guess.model_copy(update=trained or {})
            found[spec.name] = guess
            if preset is None:
                notes.append(f"input {spec.name!r}: assumed {_in_words(guess)}")
    return Contract(inputs=found), notes


def _in_words(rule: Preprocess) -> str:
    colours = {"rgb": "RGB", "bgr": "BGR", "gray": "gray"}[rule.channels]
    numbers = "0…255" if rule.scale == 1.0 else "scaled to 0…1"
    fitted = {
        "letterbox": "letterboxed (aspect kept, centred, padded with 114) to",
        "shorter": "shorter side resized, centre cropped to",
    }.get(rule.resize, "stretched to")
    height, width = rule.size
    return f"{colours} {numbers}, {fitted} {height}×{width} (give --preprocess or --contract)"


def _guess(spec: TensorSpec, preset: str) -> Preprocess | None:
    if preset not in PREPROCESS_PRESETS:
        raise UsageError(
            f"unknown pre-processing {preset!r}", fix="known: " + ", ".join(PREPROCESS_PRESETS)
        )
    shape = spec.shape
    if spec.dtype not in {"float32", "float16"} or len(shape) not in {3, 4}:
        return None
    batched = len(shape) == 4
    if batched and isinstance(shape[0], int) and shape[0] != 1:
        return None
    channels, height, width = shape[-3:]
    chw = channels in (1, 3)
    if not chw:
        height, width, channels = shape[-3:]
    if channels not in (1, 3) or not isinstance(height, int) or not isinstance(width, int):
        return None
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        return None  # a signal, not an image
    mean, std, scale = PREPROCESS_PRESETS[preset]
    gray = channels == 1
    layout = ("n" if batched else "") + ("chw" if chw else "hwc")
    return Preprocess.model_validate(
        {
            "size": (height, width),
            "channels": "gray" if gray else "rgb",
            "mean": mean[:1] if gray else mean,
            "std": std[:1] if gray else std,
            "scale": scale,
            "layout": layout,
            "dtype": spec.dtype,
        }
    )
