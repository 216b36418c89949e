"""A detector that is cut into parts, run part by part, with its features and raw scores visible.

The device parts may be float or lowered: that is how a bank is built from the network that will
really run, and how both are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Array
from adcompile.anomaly.recognise.describe import head_nodes
from adcompile.check.reference import FloatParts
from adcompile.contract import Contract
from adcompile.errors import ModelError, UsageError
from adcompile.interfaces import Part
from adcompile.ir.graph import constant, is_constant, static_shape, tensor_spec
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array as Feed

_NORMALISERS = frozenset({"NormalizeScore", "NormalizeScoreCdf", "Identity"})


@dataclass(frozen=True)
class Head:
    """Names of the values and constants of a detector's head, and the part that holds it.

    ``features`` are rows [Q, C] (``knn``) or the embedding [N, C, h, w] (``gaussian``);
    ``constants`` the initializers: bank, or mean and inverse. ``raw_score`` and ``raw_map`` are
    the values before any normalisation. ``rows_per_image`` is Q for one image.
    """

    part: str
    kind: str
    features: str
    constants: tuple[str, ...]
    raw_score: str
    raw_map: str
    rows_per_image: int = 1


def find_head(parts: Sequence[Part], contract: Contract) -> Head:
    """The head in the host parts; UsageError when there is none that can be rebuilt."""
    for part in parts:
        if part.placement != "host":
            continue
        found = _constants_of(part.model)
        if found is None:
            continue
        kind, features, constants = found
        values = {v.name: v for n in part.model.graph for v in n.inputs if v is not None}
        score = _raw(parts, _output(contract, "raw_score", "score"))
        heat = _raw(parts, _output(contract, "map", ""))
        shape = static_shape(values.get(features))
        count = shape[0] if shape else 1
        return Head(part.name, kind, features, constants, score, heat, count)
    raise UsageError(
        "the model has no bank and no statistics to rebuild on the host",
        fix="--data is for PatchCore and PaDiM with --head host",
    )


def _constants_of(model: ir.Model) -> tuple[str, str, tuple[str, ...]] | None:
    for node in head_nodes(model, "KnnSearch", "MahalanobisMap"):
        first, *rest = node.inputs
        if first is None or not all(is_constant(v) for v in rest):
            continue
        kind = "knn" if node.op_type == "KnnSearch" else "gaussian"
        return kind, first.name or "", tuple(v.name or "" for v in rest if v is not None)
    return None


def _output(contract: Contract, role: str, instead: str) -> str:
    names = {r: n for n, r in contract.roles.items()}
    name = names.get(role) or names.get(instead, "")
    if not name:
        raise UsageError(
            f"the contract names no output with the role {role}",
            fix="give the roles of the outputs in a contract (--contract)",
        )
    return name


def _raw(parts: Sequence[Part], name: str) -> str:
    """The value behind an output, before its normalisation."""
    for part in parts:
        for value in part.model.graph.outputs:
            node = value.producer()
            if value.name == name and node is not None and node.op_type in _NORMALISERS:
                source = node.inputs[0]
                assert source is not None
                return source.name or ""
    return name


def exposed(part: Part, names: Sequence[str]) -> Part:
    """The part with inner values called *names* as additional outputs (those it makes)."""
    model = part.model.clone()
    present = {value.name for value in model.graph.outputs}
    made = {value.name: value for node in model.graph for value in node.outputs}
    specs: list[TensorSpec] = []
    for name in dict.fromkeys(names):
        if name in made and name not in present:
            model.graph.outputs.append(made[name])
            specs.append(tensor_spec(made[name]))
    return replace(part, model=model, outputs=(*part.outputs, *specs))


def with_constants(part: Part, arrays: Mapping[str, Array]) -> Part:
    """The part with other arrays behind the named initializers."""
    model = part.model.clone()
    for name, array in arrays.items():
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(np.ascontiguousarray(array), name=name)
        value.shape = ir.Shape(array.shape)
    return replace(part, model=model)


def constants_of(parts: Sequence[Part], head: Head) -> list[Array]:
    """The arrays of the head, in the order of its constants."""
    part = next(p for p in parts if p.name == head.part)
    found = [constant(part.model.graph.initializers[name]) for name in head.constants]
    if any(array is None for array in found):
        raise ModelError("the head's constants cannot be read", where=head.part)
    return [np.asarray(array, dtype=np.float32) for array in found]


class Chain:
    """Parts in execution order as one detector; use it as a context manager.

    Images [n, C, H, W] go in one run of the parts' batch size at a time.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        head: Head,
    ) -> None:
        if len(inputs) != 1:
            raise UsageError("a detector with one image input is needed", why=f"{len(inputs)}")
        self._input = inputs[0].name
        self._head = head
        names = (head.features, head.raw_score, head.raw_map)
        self._parts = FloatParts([exposed(p, names) for p in parts], inputs, outputs)

    def __enter__(self) -> Chain:
        self._parts.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._parts.__exit__(*exception)

    def _run(self, image: Array) -> dict[str, Feed]:
        wanted = {self._head.features, self._head.raw_score, self._head.raw_map}
        kept: dict[str, Feed] = {}

        def tap(name: str, array: Feed) -> None:
            if name in wanted:
                kept[name] = np.array(array)

        self._parts.run({self._input: image}, tap=tap)
        return kept

    def features(self, images: Array) -> list[Array]:
        """What the head reads of every image, one array per image."""
        found = [self._run(images[i : i + 1])[self._head.features] for i in range(len(images))]
        return [np.asarray(array, dtype=np.float32) for array in found]

    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Raw scores [n] and raw maps [n, H, W]."""
        scores: list[float] = []
        maps: list[Array] = []
        for index in range(len(images)):
            found = self._run(images[index : index + 1])
            scores.append(float(found[self._head.raw_score].reshape(-1)[0]))
            heat = np.asarray(found[self._head.raw_map], dtype=np.float32)
            maps.append(heat.reshape(heat.shape[-2:]))
        return np.asarray(scores, dtype=np.float32), np.stack(maps)
