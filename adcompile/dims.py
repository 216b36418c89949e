"""The text of a tensor's shape, as options and the specialize pass write it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DIMS = re.compile(r"\d+(x\d+)*")
_SCALAR = "scalar"


def parse_dims(text: str) -> tuple[int, ...] | None:
    """``1x3x320x320``, or ``scalar`` for no dimensions; None for any other text."""
    if text == _SCALAR:
        return ()
    return tuple(map(int, text.split("x"))) if _DIMS.fullmatch(text) else None


def dims_text(dims: Iterable[int]) -> str:
    """The text that :func:`parse_dims` reads."""
    return "x".join(map(str, dims)) or _SCALAR
