"""What ``eval`` sets side by side: bundles and ONNX files, opened alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adcompile.manifest import MANIFEST

if TYPE_CHECKING:
    from adcompile.contract import Contract
    from adcompile.manifest import TensorSpec
    from adcompile.runtime.executor import Array


@dataclass(frozen=True, slots=True)
class Column:
    """A bundle in one device mode, or an ONNX file, under a label of its own."""

    path: Path
    label: str
    mode: str


@dataclass(frozen=True)
class Subject:
    """A column that was opened."""

    label: str
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    inputs: Sequence[TensorSpec]
    contract: Contract
    is_bundle: bool


@dataclass(frozen=True)
class Subjects:
    """The files and folders that were named, and how they are to run: *device* mode, options of the
    executors, and the decoder of an ONNX file's raw detections (None: as contract or model say)."""

    paths: Sequence[Path]
    device: str = "auto"
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    decoder: str | None = None

    def columns(self) -> list[Column]:
        """One per file; two for a bundle whose device is here: it is also simulated."""
        found: dict[str, Column] = {}
        for path in self.paths:
            for label, mode in self._modes(path):
                while label in found:
                    label += "'"
                found[label] = Column(path, label, mode)
        return list(found.values())

    def _modes(self, path: Path) -> list[tuple[str, str]]:
        if not (path / MANIFEST).is_file():
            return [(path.name, self.device)]
        from adcompile.runtime.bundle import load

        with load(path, self.device, options=self.options, check=False) as bundle:
            parts = [p.name for p in bundle.manifest.parts if p.placement == "device"]
            simulated = set(bundle.simulated)
            target = bundle.manifest.target
        if not parts:
            return [(path.name, self.device)]
        if simulated.issuperset(parts):
            return [(f"{path.name} (simulated)", self.device)]
        real = (f"{path.name} on {target}", self.device)
        if self.device != "auto":
            return [real]
        return [(f"{path.name} (simulated)", "simulate"), real]

    def open(self, column: Column, stack: ExitStack) -> Subject:
        """Load it; *stack* closes it. An ONNX file beside a bundle that decodes is decoded alike."""
        path, label = column.path, column.label
        if (path / MANIFEST).is_file():
            from adcompile.runtime.bundle import load

            bundle = stack.enter_context(load(path, column.mode, options=self.options))
            contract = bundle.manifest.contract
            return Subject(label, lambda f: bundle.run(f).outputs, bundle.inputs, contract, True)
        from adcompile.cli.reference import decoding_contract, open_reference
        from adcompile.steps.load import model_file

        given = decoding_contract(self.paths)
        session, specs, contract = open_reference(model_file(path), self.decoder, given)
        return Subject(label, session.run, specs, contract, False)
