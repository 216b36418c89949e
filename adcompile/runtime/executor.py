"""What runs one part. Found by family name in ``adcompile.registry.EXECUTORS``; knows no IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from adcompile.manifest import PartRecord

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One op type of a vendor's placement report: how many nodes the plan put on the device, where the
    runtime ran them, and why."""

    op: str
    planned: int
    ran: str
    why: str = ""

    @property
    def surprise(self) -> bool:
        """True when some of it ran on the CPU against the plan."""
        return "CPU" in self.ran


@runtime_checkable
class Reporting(Protocol):
    """An executor whose runtime says afterwards what it really put on the device."""

    @property
    def placement(self) -> Sequence[ReportLine]: ...


class Executor(Protocol):
    """Opens one part of a bundle and runs it any number of times.

    ``simulated`` is True when the numbers come from a CPU simulation of the device part
    (quantize/dequantize nodes and all) instead of the device itself. ``where`` says in words what
    executes ("ONNX Runtime CPU, simulating npu:stx").
    """

    family: ClassVar[str]
    simulated: bool
    where: str

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Load the part; vendor runtimes are imported here, not at module import.

        Raises ToolMissing when ``options["require_device"] == "true"`` and no device is there.
        """
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; feeds and results are keyed by the value names of the part record."""
        ...

    def close(self) -> None:
        """Free sessions and device memory. Closing twice is harmless."""
        ...
