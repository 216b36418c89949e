"""Runs a DRP-AI part: only the CPU simulation can be reached from Python.

On the board a part is run by the C++ application of the bundle; there is no Python runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from adcompile.backends.simulation import PartSessions, simulate
from adcompile.errors import ToolMissing, UsageError
from adcompile.manifest import PartRecord
from adcompile.runtime.executor import Array


class DrpaiExecutor:
    """Options: ``require_device`` (always refused), ``threads``."""

    family: ClassVar[str] = "drpai"

    def __init__(self) -> None:
        self.simulated = True
        self.where = "not opened"
        self._sessions: PartSessions | None = None

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Open the simulation. Raises ToolMissing when the device is required."""
        if options.get("require_device") == "true":
            raise ToolMissing(
                "DRP-AI cannot be reached from Python",
                where=f"part {part.name!r}",
                fix="run the C++ application of the bundle on the board",
            )
        self._sessions = simulate(part, bundle, options)
        product = part.options.get("product", "DRP-AI")
        self.where = f"ONNX Runtime CPU, simulating drpai {product} ({part.precision})"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; parts of rows once per row."""
        if self._sessions is None:
            raise UsageError("executor is not open")
        return self._sessions.run(feeds)

    def close(self) -> None:
        """Drop the session."""
        self._sessions = None
