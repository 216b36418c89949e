"""Opening the ONNX files of a device part, and its CPU simulation.

Every vendor executor falls back to the simulation (Q/DQ or typed ONNX in ONNX Runtime) when its device
is absent, and says so in ``where``. A part of regions may have one file per compiled number of rows, or
work on a mosaic of them; both are hidden here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from adcompile.errors import FormatError, UsageError
from adcompile.manifest import PartRecord, check_bundle_path
from adcompile.runtime.executor import Array
from adcompile.runtime.roi import empty
from adcompile.runtime.session import EXACT_INTEGERS, Session, open_session
from adcompile.runtime.tiles import Mosaic, pack, parse_mosaic, unpack

Opener = Callable[[Path], Session]


def bundle_file(part: PartRecord, bundle: Path, use: str) -> Path:
    """The path of a part's file; FormatError when the part has none for this use."""
    if use not in part.files:
        raise FormatError(
            f"part {part.name!r} has no {use} file",
            why=f"it has {', '.join(sorted(part.files)) or 'none'}",
            fix="build the bundle again",
        )
    return bundle / check_bundle_path(part.files[use])


def threads_of(options: Mapping[str, str]) -> int | None:
    """The option ``threads``; None when it is not given."""
    text = options.get("threads", "")
    if not text:
        return None
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise UsageError(f"{text!r} threads", fix="give 1 … 256")
    return int(text)


class PartSessions:
    """The session of a part, or one per compiled number of rows.

    *use* names the file ("device", "simulation"); files for a number of rows are called
    ``<use>_<rows>``. Sessions are opened when they are first needed.
    """

    def __init__(self, part: PartRecord, bundle: Path, use: str, opener: Opener) -> None:
        self.part = part
        text = part.options.get("mosaic", "")
        self.mosaic: Mosaic | None = parse_mosaic(text) if text else None
        self._opener = opener
        prefix = f"{use}_"
        sized = [n.removeprefix(prefix) for n in part.files if n.startswith(prefix)]
        self._paths = {int(n): bundle_file(part, bundle, prefix + n) for n in sized if n.isdigit()}
        if not self._paths:
            self._paths = {0: bundle_file(part, bundle, use)}
        self._sessions: dict[int, Session] = {}
        self._session(min(self._paths))

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of the first session."""
        return next(iter(self._sessions.values())).providers

    def _session(self, rows: int) -> Session:
        if rows not in self._sessions:
            self._sessions[rows] = self._opener(self._paths[rows])
        return self._sessions[rows]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once (a mosaic: once per image). No rows: empty results without a call."""
        if not self.part.rows:
            return self._session(min(self._paths)).run(feeds)
        count = min((feeds[s.name].shape[0] for s in self.part.inputs), default=0)
        if count == 0:
            return {spec.name: empty(spec) for spec in self.part.outputs}
        if self.mosaic is not None:
            return self._run_mosaic(self.mosaic, feeds, count)
        if count not in self._paths and 0 not in self._paths:
            raise FormatError(
                f"part {self.part.name!r} has no model for {count} rows",
                why=f"compiled for {', '.join(map(str, sorted(self._paths)))}",
                fix="check roi_policy and roi_buckets of the plan",
            )
        return self._session(count if count in self._paths else 0).run(feeds)

    def _run_mosaic(
        self, mosaic: Mosaic, feeds: Mapping[str, Array], count: int
    ) -> dict[str, Array]:
        pieces: dict[str, list[Array]] = {name: [] for name in mosaic.outputs}
        start = 0
        while start < count:
            grid = mosaic.grid_for(count - start)
            capacity = grid[0] * grid[1]
            rows = min(capacity, count - start)
            images = {
                name: pack(feeds[name][start : start + rows], spec, grid)
                for name, spec in mosaic.inputs.items()
            }
            session = self._session(capacity if capacity in self._paths else 0)
            results = session.run(images)
            for name, spec in mosaic.outputs.items():
                pieces[name].append(unpack(results[name], spec, grid, rows))
            start += rows
        return {name: np.concatenate(parts) for name, parts in pieces.items()}


def simulate(part: PartRecord, bundle: Path, options: Mapping[str, str]) -> PartSessions:
    """Open the part's simulation model on the CPU."""
    threads = threads_of(options)

    def opener(path: Path) -> Session:
        return open_session(path, threads=threads, config=EXACT_INTEGERS, where=part.name)

    return PartSessions(part, bundle, "simulation", opener)
