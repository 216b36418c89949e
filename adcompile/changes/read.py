"""One of the two bundles of a comparison: its manifest, its plan, and what its networks hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.interfaces import Array
from adcompile.ir.graph import KERNELS, constant
from adcompile.ir.model_io import load_model
from adcompile.lower.violations import DQ, Format, Q, input_format, is_qdq, read_format
from adcompile.manifest import (
    Manifest,
    PartRecord,
    check_files,
    check_seal,
    read_manifest,
)
from adcompile.place.schema import PartPlan, Plan, read_plan
from adcompile.unpack import bundle_folder

PLAN = "plan.yaml"


@dataclass(frozen=True)
class Grid:
    """How one tensor is quantized. ``stored`` are the integers of a weight, None for an activation."""

    dtype: str
    scale: npt.NDArray[np.float64]
    zero_point: npt.NDArray[np.int64]
    stored: Array | None

    @property
    def span(self) -> float:
        """Width of what the grid can hold, of the channel where it is widest."""
        info = np.iinfo(self.dtype)
        return float(self.scale.max()) * (float(info.max) - float(info.min))


@dataclass(frozen=True)
class Side:
    """An opened bundle."""

    path: Path
    manifest: Manifest
    plan: Plan

    @property
    def device_parts(self) -> tuple[PartRecord, ...]:
        """The parts that a device runs."""
        return tuple(part for part in self.manifest.parts if part.placement == "device")

    @cached_property
    def home(self) -> dict[str, PartPlan]:
        """Node name to its part."""
        return {node: part for part in self.plan.parts for node in part.nodes}

    @cached_property
    def op_types(self) -> dict[str, str]:
        """Node name to op type, from the networks of all parts before they were lowered."""
        found: dict[str, str] = {}
        for part in self.manifest.parts:
            model = self._network(part, "model")
            for node in () if model is None else model.graph:
                found[node.name or ""] = node.op_type
        return found

    @cached_property
    def quantized(self) -> dict[str, ir.Model]:
        """Part name to the network with Q/DQ that stands for the device's numbers."""
        networks = {part.name: self._network(part, "simulation") for part in self.device_parts}
        return {
            name: model
            for name, model in networks.items()
            if model is not None and any(is_qdq(node) for node in model.graph)
        }

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """Tensor name to its grid, over all device parts. A weight has its float tensor's name, what is
        quantized on its way out of a part the name of the output."""
        found: dict[str, Grid] = {}
        for model in self.quantized.values():
            made = {value.name for value in model.graph.outputs}
            for node in model.graph:
                value = node.inputs[0] if node.inputs else None
                if value is None or not is_qdq(node):
                    continue
                stored = constant(value)
                if is_qdq(node, DQ) and stored is None:
                    continue  # the Q before it was seen
                form = read_format(node)
                if form is not None and np.dtype(form.dtype).kind in "iu":
                    name = (value.name or "").removesuffix("_quantized")
                    inner = name.removesuffix("_float")
                    found[inner if inner in made else name] = _grid(
                        form, None if is_qdq(node, Q) else stored
                    )
        return found

    @cached_property
    def floats(self) -> dict[str, frozenset[str]]:
        """Part name to the nodes that a quantized part keeps in float: asked for, or found so."""
        asked = self.manifest.options.get("backend.float_nodes", "")
        given = float_nodes({"float_nodes": asked})
        found: dict[str, frozenset[str]] = {}
        for part in self.device_parts:
            names = given | float_nodes(self.plan.options_of(part.name))
            inside = {name for name in names if self._part_of(name) == part.name}
            model = self.quantized.get(part.name)
            seen = set[str]() if model is None else _float_kernels(model)
            found[part.name] = frozenset(inside | seen)
        return found

    def _part_of(self, node: str) -> str:
        return self.home[node].name if node in self.home else ""

    def _network(self, part: PartRecord, use: str) -> ir.Model | None:
        return load_model(self.path / part.files[use]) if use in part.files else None


def read_side(path: Path) -> Side:
    """Open a bundle (a folder or an archive) for comparison; seal and hashes are checked.

    Raises FormatError.
    """
    folder = bundle_folder(path)
    manifest = read_manifest(folder)
    check_seal(folder)
    check_files(folder, manifest)
    return Side(folder, manifest, read_plan(folder / PLAN))


def _grid(form: Format, stored: Array | None) -> Grid:
    scale = np.asarray(form.scale, np.float64).reshape(-1)
    zero = np.asarray(form.zero_point).astype(np.int64).reshape(-1)
    return Grid(form.dtype, scale, zero, stored)


def _float_kernels(model: ir.Model) -> set[str]:
    """Those that do not read both inputs through DequantizeLinear, as quantized ones do."""
    return {
        node.name or ""
        for node in model.graph
        if node.op_type in KERNELS
        and not all(input_format(value) is not None for value in node.inputs[:2])
    }
