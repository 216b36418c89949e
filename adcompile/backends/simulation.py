"""CPU simulation of a device part: its Q/DQ or typed ONNX, executed by ONNX Runtime.

Every vendor executor falls back to this when its device is absent, and says so in ``where``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from adcompile.backends.rows import parse_sizes, run_rows
from adcompile.errors import FormatError, UsageError
from adcompile.manifest import PartRecord, check_bundle_path
from adcompile.runtime.executor import Array
from adcompile.runtime.session import Session, open_session

# 8-bit products must not saturate on processors without the dot-product instructions
EXACT_INTEGERS = {"session.x64quantprecision": "1"}

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
    """The session of a part, or one per compiled row count."""

    def __init__(self, part: PartRecord, bundle: Path, use: str, opener: Opener) -> None:
        self.part = part
        text = part.options.get("row_sizes", "")
        self.sizes = parse_sizes(text) if text else ()
        self._sessions: dict[int, Session] = {}
        if len(self.sizes) > 1:
            for size in self.sizes:
                path = bundle_file(part, bundle, f"{use}_{size}")
                self._sessions[size] = opener(path)
        else:
            self._sessions[self.sizes[0] if self.sizes else 0] = opener(
                bundle_file(part, bundle, use)
            )

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of the first session."""
        return next(iter(self._sessions.values())).providers

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once, or once per chunk of rows."""
        if not self.sizes:
            return self._sessions[0].run(feeds)
        return run_rows(
            lambda chunk, batch: self._sessions[batch].run(chunk),
            feeds,
            self.part.inputs,
            self.part.outputs,
            self.sizes,
        )


def simulate(part: PartRecord, bundle: Path, options: Mapping[str, str]) -> PartSessions:
    """Open the part's simulation model on the CPU."""
    threads = threads_of(options)

    def opener(path: Path) -> Session:
        return open_session(path, threads=threads, config=EXACT_INTEGERS, where=part.name)

    return PartSessions(part, bundle, "simulation", opener)
