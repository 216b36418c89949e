"""What the exporter of Ultralytics writes into a model's metadata: task, names, sizes.

The values are Python literals (``{0: 'person', 1: 'car'}``). They come from a file that anybody may
have written, so they are parsed as literals only, within limits; what is not as documented is ignored.
Source: https://docs.ultralytics.com/modes/export/ and the ``metadata_props`` of exported models.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard, cast

from adcompile.contract import MAX_SIDE

MAX_LITERAL = 1 << 18  # characters
MAX_DEPTH = 4  # nested brackets
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class Exported:
    """``task`` is detect, segment, classify, pose or obb ("" when the model does not say); ``names``
    label 0 first; ``size`` height and width of the images it was made for; ``finished``: exported
    end-to-end, so that nothing is left to decode but rows."""

    task: str = ""
    names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    finished: bool = False


def read_exported(metadata: Mapping[str, str]) -> Exported | None:
    """The metadata of an Ultralytics export; None for other models."""
    if "stride" not in metadata or "names" not in metadata:
        return None
    return Exported(
        task=metadata.get("task", ""),
        names=_names(literal(metadata["names"])),
        size=_size(literal(metadata.get("imgsz", ""))),
        finished=literal(metadata.get("end2end", "")) is True,
    )


def literal(text: str) -> object:
    """The Python literal in *text*; None when it is none, too long or too deep."""
    if len(text) > MAX_LITERAL or _depth(text) > MAX_DEPTH:
        return None
    try:
        return cast("object", ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _depth(text: str) -> int:
    """Most brackets open at once; those inside strings count too, which only refuses more."""
    deepest = depth = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _names(value: object) -> tuple[str, ...]:
    """Names of a list, or of a mapping from 0, 1, 2 …; none when labels are missing, or a name cannot
    be printed (control characters, half of a surrogate pair: no file could hold it)."""
    if isinstance(value, list):
        value = dict(enumerate(cast("list[object]", value)))
    if not isinstance(value, dict) or len(cast("dict[object, object]", value)) > MAX_CLASSES:
        return ()
    table = cast("dict[object, object]", value)
    names = [table.get(label) for label in range(len(table))]
    return tuple(n for n in names if _is_name(n)) if all(map(_is_name, names)) else ()


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable()


def _size(value: object) -> tuple[int, int] | None:
    if not isinstance(value, (list, tuple)):
        return None
    sides = tuple(cast("list[object]", value))
    if len(sides) != 2 or not all(isinstance(s, int) and 0 < s <= MAX_SIDE for s in sides):
        return None
    return cast("tuple[int, int]", sides)
