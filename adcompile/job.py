"""The state of one build and its steps, in the order of ``adcompile.compiler``.

Each step reads what earlier ones left in the job and adds its own part. Nothing but ``staged`` …
``finish`` touches the output folder.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from adcompile.cache import StepCache
from adcompile.contract import Contract
from adcompile.declare import find_contract
from adcompile.errors import UsageError
from adcompile.interfaces import Array, Backend, Part, Pass, Report
from adcompile.ir import graph, model_io
from adcompile.manifest import Manifest, ModelRecord, PartRecord
from adcompile.place.targets import Target, resolve_target

Watch = Callable[[str], None]


class Serializable(Protocol):
    """An ``onnx.ModelProto`` or anything that turns into its bytes."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - the protobuf name


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user may ask of a build; the defaults work.

    ``precision`` None means the target's first. ``calib`` is a folder of images, a recording or
    ``model_io`` folders; ``golden`` images or ``.npz`` files to record reference data from.
    ``pins`` maps a node name, ``op:TYPE`` or ``re:REGEX`` to ``host`` or ``device``.
    """

    precision: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    calib: Path | None = None
    golden: tuple[Path, ...] = ()
    golden_count: int = 2
    preprocess: str | None = None
    contract: Contract | None = None
    plan: Path | None = None
    pins: Mapping[str, str] = field(default_factory=dict[str, str])
    allow: tuple[str, ...] = ()
    passes: tuple[str | Pass, ...] = ()
    backend_class: str | None = None
    backend_options: Mapping[str, str] = field(default_factory=dict[str, str])
    budget: str | None = None
    data: Path | None = None
    verify: str = "auto"
    strict: bool = False
    host_code: bool = True
    force: bool = False
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.verify not in {"auto", "none"}:
            raise UsageError(f"--verify {self.verify!r}", fix="auto or none")
        wrong = {v for v in self.pins.values()} - {"host", "device"}
        if wrong:
            raise UsageError(f"cannot pin to {', '.join(sorted(wrong))}", fix="host or device")


@dataclass
class BuildResult:
    """Where the bundle is, what it holds, and whether it matches its golden data."""

    path: Path
    manifest: Manifest
    ok: bool
    notes: list[str]
    steps: list[tuple[str, str, str]]
    seconds: float

    def record(self) -> dict[str, object]:
        """The result as plain data, for ``--json``."""
        return {
            "bundle": str(self.path),
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "notes": self.notes,
            "steps": [{"step": s, "state": t, "reason": r} for s, t, r in self.steps],
            "manifest": self.manifest.model_dump(mode="json"),
        }
