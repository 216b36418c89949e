"""The reference backend: ONNX Runtime runs every node. Read this one first.

A backend answers three questions: which nodes can its target run (:meth:`supports`), which passes
make more of them legal (:meth:`prepare`), and which files does a part become (:meth:`lower`,
:meth:`emit`). This one supports everything, changes nothing, and emits the part as ``model.onnx``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import onnx_ir as ir

from adcompile.backend_options import PLACEMENT
from adcompile.fileset import FileSet
from adcompile.interfaces import Facts, LowerContext, Part, Pass, Verdict
from adcompile.ir.emit import add_model
from adcompile.manifest import PartRecord
from adcompile.target import Target


class CpuBackend:
    """Runs parts with ONNX Runtime on the host CPU."""

    name: ClassVar[str] = "cpu"
    options: ClassVar[Mapping[str, str]] = PLACEMENT

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Everything: ONNX Runtime is what defines the meaning of a model here."""
        return Verdict.yes("ONNX Runtime's CPU provider")

    def prepare(self, target: Target) -> Sequence[Pass]:
        """No passes are needed."""
        return ()

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """The part itself: fp32 is the only precision."""
        return part

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """Write ``parts/<name>/model.onnx``."""
        file = add_model(out, f"parts/{part.name}/model.onnx", lowered.model)
        return part.record(self.name, lowered.precision, {"model": file})
