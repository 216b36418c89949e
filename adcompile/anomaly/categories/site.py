"""Where a bundle searches: the host part with the bank or the statistics, and how to feed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Array
from adcompile.anomaly.ops import DOMAIN
from adcompile.anomaly.statistics import ROLES
from adcompile.contract import Preprocess
from adcompile.errors import ModelError, Unsupported
from adcompile.ir import model_io
from adcompile.ir.constants import refill
from adcompile.ir.extract import extract
from adcompile.manifest import PartRecord
from adcompile.runtime.bundle import Bundle
from adcompile.runtime.executor import Array as Tensor
from adcompile.runtime.runner import Flow, step
from adcompile.runtime.session import open_session

Kind = Literal["patchcore", "padim"]
_OPS: Mapping[str, tuple[Kind, tuple[str, ...]]] = {
    "KnnSearch": ("patchcore", ("bank",)),
    **{name: ("padim", roles) for name, roles in ROLES.items()},
}


@dataclass(frozen=True, eq=False)
class Site:
    """The search of a bundle. ``constants`` maps "bank", "mean", "factor" … to initializer names."""

    kind: Kind
    index: int
    part: PartRecord
    model: ir.Model
    query: ir.Value
    constants: Mapping[str, str]

    def constant(self, role: str) -> Array:
        """The array in the bundle."""
        value = self.model.graph.initializers[self.constants[role]].const_value
        assert value is not None
        return np.asarray(value.numpy(), dtype=np.float32)

    def replaced(self, arrays: Mapping[str, Array]) -> ir.Model:
        """A copy of the part's model with other constants."""
        copy = self.model.clone()
        for role, array in arrays.items():
            refill(copy.graph.initializers[self.constants[role]], array)
        return copy


def find_site(bundle: Bundle) -> Site:
    """The search in the bundle's host parts. Raises Unsupported when there is none of ours."""
    found: list[Site] = []
    for index, part in enumerate(bundle.manifest.parts):
        if part.placement != "host" or "model" not in part.files:
            continue
        model = model_io.load_model(bundle.path / part.files["model"])
        found += [
            _site(node, index, part, model)
            for node in model.graph
            if node.domain == DOMAIN and node.op_type in _OPS
        ]
    if len(found) == 1:
        return found[0]
    score = bundle.manifest.contract.score
    what = "a model without score" if score is None else score.method
    raise Unsupported(
        "the bundle cannot hold categories",
        where=str(bundle.path),
        why=f"{what}: {len(found)} searches with a constant bank in its host parts, one is needed",
        fix="PatchCore and PaDiM with the head on the host have categories; "
        "other models need a bundle each",
    )


def _site(node: ir.Node, index: int, part: PartRecord, model: ir.Model) -> Site:
    kind, roles = _OPS[node.op_type]
    query, *constants = node.inputs
    names: dict[str, str] = {}
    for role, value in zip(roles, constants, strict=True):
        if value is None or value.name is None or not value.is_initializer():
            raise ModelError("the search's bank is no constant", where=node.name or node.op_type)
        names[role] = value.name
    assert query is not None
    return Site(kind, index, part, model, query, names)


class Engine:
    """A bundle up to its search: images to what the search is asked for, through the real parts.

    Device parts run as the bundle runs them (quantized, simulated or on the device), so a bank
    made from these rows fits the bundle.
    """

    def __init__(self, bundle: Bundle, site: Site) -> None:
        self.bundle = bundle
        self.site = site
        spec = bundle.inputs[0]
        self.input = spec.name
        self.batch = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else None
        self._query = open_session(model_io.to_bytes(cut_at(site.model, site.query)))

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the input."""
        rules = self.bundle.manifest.contract.inputs
        if self.input not in rules:
            raise ModelError("the contract does not say how an image becomes the input")
        return rules[self.input]

    def boundary(self, images: Tensor) -> dict[str, Tensor]:
        """The values that enter the search's part, for images [n, C, H, W] of one batch."""
        flow = Flow({self.input: images})
        for index in range(self.site.index):
            part = self.bundle.manifest.parts[index]
            step(self.bundle.schedule, index, self.bundle.executor(part), flow)
        return {spec.name: flow.values[spec.name] for spec in self.site.part.inputs}

    def query(self, boundary: Mapping[str, Tensor]) -> Array:
        """What the search is asked for: rows [n·h·w, C], or the embedding [n, C, h, w]."""
        feeds = {spec.name: boundary[spec.name] for spec in self._query.inputs}
        return np.asarray(next(iter(self._query.run(feeds).values())), dtype=np.float32)

    def head(self, model: ir.Model) -> Callable[[Array], tuple[Array, Array]]:
        """Images to raw scores [n] and maps [n, H, W], with *model* in place of the search's part."""
        session = open_session(model_io.to_bytes(model))
        roles = {role: name for name, role in self.bundle.manifest.contract.roles.items()}
        names = (roles["raw_score"], roles["map"])
        made = {spec.name for spec in session.outputs}
        if not made.issuperset(names):
            raise Unsupported(
                "score and map are not made in the part that searches", where=self.site.part.name
            )

        def predict(images: Array) -> tuple[Array, Array]:
            scores: list[Array] = []
            maps: list[Array] = []
            for one in self.batches(images):
                found = session.run(self.boundary(one), names)
                scores.append(np.asarray(found[names[0]], np.float32).reshape(-1))
                maps.append(np.asarray(found[names[1]], np.float32)[:, 0])
            return np.concatenate(scores), np.concatenate(maps)

        return predict

    def batches(self, images: Array) -> list[Array]:
        """*images* in pieces of the engine's own batch size."""
        step_size = self.batch or len(images)
        return [images[i : i + step_size] for i in range(0, len(images), step_size)]

    def queries(self, images: Array) -> list[Array]:
        """The query of every batch of *images*."""
        return [self.query(self.boundary(one)) for one in self.batches(images)]


def cut_at(model: ir.Model, query: ir.Value) -> ir.Model:
    """The model cut off at one of its values, which becomes the only output; inputs stay."""
    needed: set[ir.Node] = set()
    pending = [query.producer()]
    while pending:
        node = pending.pop()
        if node is None or node in needed:
            continue
        needed.add(node)
        pending += [value.producer() for value in node.inputs if value is not None]
    return extract(model, needed, list(model.graph.inputs), [query], "query")


def query_of(model: ir.Model, kind: Kind) -> ir.Value | None:
    """What the model's search of this kind is asked for; None when it has no such search."""
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type in _OPS and _OPS[node.op_type][0] == kind:
            return node.inputs[0]
    return None
