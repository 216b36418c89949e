"""Outputs that parts gave before, so that the same part does not run on the same input twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from adcompile.runtime.executor import Array

LIMIT = 1 << 28  # bytes of outputs; what comes later is computed again


class Memory:
    """Outputs by part and input. Of use while other parts change and this one does not."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._left = limit
        self._known: dict[str, dict[str, Array]] = {}

    def recall(self, key: str) -> dict[str, Array] | None:
        """What :meth:`keep` was given under *key*; None when nothing was, or no longer fitted."""
        return self._known.get(key)

    def keep(self, key: str, outputs: Mapping[str, Array]) -> None:
        """Remember *outputs*, if there is room."""
        size = sum(array.nbytes for array in outputs.values())
        if size <= self._left:
            self._left -= size
            self._known[key] = dict(outputs)


def key_of(part: str, outputs: tuple[str, ...], feeds: Mapping[str, Array]) -> str:
    """One key for a part, the values it gets and the outputs that are asked of it."""
    digest = hashlib.sha256(repr((part, outputs)).encode())
    for name, array in sorted(feeds.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
