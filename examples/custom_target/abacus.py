"""A whole target family in one file: a chip that does not exist and needs no hardware.

It runs convolutions up to a kernel size, Relu, Add and 2×2 pooling, one image at a time. Everything
else becomes host parts by itself. Its "program" is a text file with one line per node; ONNX Runtime
stands in for the chip, so a bundle can be run and verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from adcompile.fileset import FileSet
from adcompile.interfaces import Facts, LowerContext, Part, Pass, Verdict
from adcompile.ir.model_io import to_bytes
from adcompile.manifest import PartRecord
from adcompile.place.support import Row, Site, Table, judge, one_image, rows_for
from adcompile.target import Target


def _kernel(site: Site) -> Verdict | None:
    limit = site.limit("kernel", 3)
    if max(site.kernel(), default=1) <= limit:
        return None
    return Verdict.no(f"Conv kernel above {limit}", "use abacus:wide", "exact")


def _batch(site: Site) -> Verdict | None:
    dims = site.dims(0)
    return one_image(site, dims, "abacus manual") if dims else None


TABLE = Table(
    family="abacus",
    rows={
        **rows_for("Relu Add", Row(dtypes=("float32",), source="abacus manual")),
        **rows_for("MaxPool", Row(("float32",), rank=(4, 4), outputs=1, source="abacus manual")),
        **rows_for("Conv", Row(("float32",), checks=(_kernel,), source="abacus manual")),
    },
    refused={},
    silent="unsupported",
    silent_reason="is not in the abacus manual",
    source="abacus manual",
    every=(_batch,),
)


class AbacusBackend:
    """The four questions every backend answers: supports, prepare, lower, emit."""

    name: ClassVar[str] = "abacus"

    def supports(self, node: ir.Node, facts: Facts) -> Verdict:
        """Read the table above."""
        return judge(node, facts, TABLE)

    def prepare(self, target: Target) -> Sequence[Pass]:
        """No passes of its own."""
        return ()

    def lower(self, part: Part, ctx: LowerContext) -> Part:
        """The chip computes in float32: nothing to change."""
        return part

    def emit(self, part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
        """The program as text, and the ONNX that stands for the chip."""
        folder = f"parts/{part.name}"
        lines = [f"{number:04} {node.op_type}" for number, node in enumerate(lowered.model.graph)]
        files = {
            "model": out.add(f"{folder}/model.onnx", to_bytes(lowered.model)),
            "program": out.add(f"{folder}/program.txt", "\n".join(lines) + "\n"),
        }
        return part.record("cpu", lowered.precision, files, part.options)
