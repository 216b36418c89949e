"""ONNX Runtime on the CPU: host parts, reference bundles, and the simulation of device parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from adcompile.backends.simulation import PartSessions, simulate
from adcompile.errors import FormatError, ToolMissing
from adcompile.manifest import PartRecord, check_bundle_path
from adcompile.runtime.executor import Array
from adcompile.runtime.session import Session, open_session

USES = ("simulation", "model")  # of ``PartRecord.files``, in order of preference


class CpuExecutor:
    """Runs the part's "simulation" model when it has one, else its "model".

    A part may have models for fixed row counts, ``simulation@8``; the one whose count is fed runs.
    Options: ``threads``, ``target`` (for :attr:`where`), ``require_device``.
    """

    family: ClassVar[str] = "cpu"

    def __init__(self) -> None:
        self.simulated = False
        self.where = "ONNX Runtime CPU"
        self._session: Session | None = None
        self._fixed: dict[int, Session] = {}
        self._row_input = ""
        self._packed: PartSessions | None = None

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Open the part's sessions."""
        self.simulated = part.placement == "device" and part.executor != self.family
        if self.simulated:
            self.where += ", simulating " + options.get("target", part.executor)
            if options.get("require_device") == "true":
                raise ToolMissing(
                    f"part {part.name} needs a device",
                    why=f"no {part.executor} runtime is used here",
                    fix="run on the board, or allow the simulation (--device auto)",
                )
        if any(use.startswith("simulation_") for use in part.files):
            self._packed = simulate(part, bundle, options)  # one file per number of rows
            return
        threads = int(options["threads"]) if options.get("threads") else None
        for name in part.files:
            use, at, rows = name.partition("@")
            if use in USES and at and rows.isdigit():
                file = bundle / check_bundle_path(part.files[name])
                self._fixed[int(rows)] = open_session(file, threads=threads, where=part.name)
        main = next((part.files[use] for use in USES if use in part.files), None)
        if main is not None:
            file = bundle / check_bundle_path(main)
            self._session = open_session(file, threads=threads, where=part.name)
        elif not self._fixed:
            raise FormatError("part has no ONNX model to run", where=f"part {part.name}")
        self._row_input = part.inputs[0].name if part.inputs else ""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once."""
        if self._packed is not None:
            return self._packed.run(feeds)
        return self._choose(feeds).run(feeds)

    def _choose(self, feeds: Mapping[str, Array]) -> Session:
        if self._fixed:
            rows = len(feeds[self._row_input])
            if rows in self._fixed:
                return self._fixed[rows]
        if self._session is None:
            raise FormatError("part is not open, or has no model for this number of rows")
        return self._session

    def close(self) -> None:
        """Drop the sessions."""
        self._session = self._packed = None
        self._fixed.clear()
