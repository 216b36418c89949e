"""Options that several verbs share: their declarations, and how their text is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.dims import parse_dims
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.job import BuildOptions

ModelPath = Annotated[Path, typer.Argument(help="ONNX file, or a folder written by adcompile fit")]
InputShapes = Annotated[
    list[str] | None,
    typer.Option("--input-shape", help="fix a dynamic input: name=1x3x320x320 (repeat)"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="'NODE attribute=value', changed before all else (repeat)"),
]
DecoderName = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        help="of a detector's raw output: yolov8, yolov5 … (list decoders), NAME{key=value}, or none; "
        "default: the contract's, else what is recognised",
    ),
]
Pins = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        help="NODE=host, device or a precision; NODE is a name, op:TYPE, re:REGEX or role:ROLE "
        "(repeat)",
    ),
]
Passes = Annotated[
    list[str] | None, typer.Option("--pass", help="extra pass: name or file.py:Class (repeat)")
]
Allowed = Annotated[
    list[str] | None,
    typer.Option("--allow", help="allow an approximate rewrite by name (repeat)"),
]
BackendFile = Annotated[
    str | None, typer.Option("--backend", help="own target family: file.py:Class")
]
BackendOptions = Annotated[
    list[str] | None,
    typer.Option("-O", help="NAME=VALUE of the target: adcompile list options (repeat)"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def model_options(
    shapes: list[str] | None,
    settings: list[str] | None = None,
    passes: list[str] | None = None,
    allow: list[str] | None = None,
    backend: str | None = None,
    pins: list[str] | None = None,
    decoder: str | None = None,
) -> BuildOptions:
    """What ``check``, ``plan``, ``inspect`` and ``build`` ask for alike."""
    from adcompile.job import BuildOptions

    return BuildOptions(
        input_shapes=parse_shapes(shapes),
        settings=tuple(settings or ()),
        passes=tuple(passes or ()),
        allow=tuple(allow or ()),
        backend_class=backend,
        pins=parse_pairs(pins or [], "--pin", last=True),
        decoder=decoder,
    )


def parse_shapes(items: list[str] | None) -> dict[str, tuple[int, ...]]:
    """``["image=1x3x320x320"]`` by input name."""
    pairs = parse_pairs(items or [], "--input-shape")
    return {name: parse_shape(text) for name, text in pairs.items()}


def parse_pairs(items: list[str], option: str, *, last: bool = False) -> dict[str, str]:
    """``["a=b"]`` as a dict, cut at the first or *last* "="; no "=" or no name is a UsageError."""
    pairs: dict[str, str] = {}
    for item in items:
        key, sign, value = item.rpartition("=") if last else item.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {item!r} is not NAME=VALUE")
        if key in pairs:
            raise UsageError(f"{option} gives {key!r} twice")
        pairs[key] = value
    return pairs


def parse_words(items: Iterable[str]) -> list[str]:
    """``["a,b", "c"]``, an option that was repeated or has commas in it, as three words."""
    return [word.strip() for item in items for word in item.split(",")]


def parse_shape(text: str) -> tuple[int, ...]:
    """``1x3x320x320`` or ``scalar`` as a tuple; sizes must be 1 … 2^31."""
    shape = parse_dims(text.lower())
    if shape is None:
        raise UsageError(f"--input-shape {text!r} is not like 1x3x320x320 (or scalar)")
    if any(not 1 <= d < 2**31 for d in shape):
        raise UsageError(f"--input-shape {text!r}: every size must be at least 1")
    return shape
