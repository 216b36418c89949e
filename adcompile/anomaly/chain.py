"""A detector that is cut into parts, run part by part, with its features and raw scores visible.

The device parts may be float or lowered: that is how a bank is built from the network that will
really run, and how both are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array
from adcompile.anomaly.parts import Watch
from adcompile.anomaly.samples import Sample
from adcompile.check.emitted import EmittedPart
from adcompile.check.memory import Memory
from adcompile.check.reference import FloatParts
from adcompile.contract import Contract, Preprocess
from adcompile.errors import UsageError
from adcompile.interfaces import Part
from adcompile.ir.graph import tensor_spec
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array as Feed

_NORMALISERS = frozenset({"NormalizeScore", "NormalizeScoreCdf", "Identity"})


@dataclass(frozen=True)
class RawNames:
    """Names of the score [N] and the map [N, 1, H, W] before any normalisation."""

    score: str
    map: str


def raw_names(parts: Sequence[Part], contract: Contract) -> RawNames:
    """What the contract calls score and map, before normalisation; UsageError without a role."""
    score = _raw(parts, _output(contract, "raw_score", "score"))
    return RawNames(score, _raw(parts, _output(contract, "map", "")))


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


class Chain:
    """Parts in execution order as one detector; use it as a context manager.

    Images [n, C, H, W] go in one by one. ``reads`` are names of values inside the parts that are
    handed out besides score and map. Chains that share a *memory* must have the same device parts:
    these run once on an image. Parts named in *instead* run as a bundle would run them.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        raw: RawNames,
        reads: Sequence[str] = (),
        memory: Memory | None = None,
        instead: Mapping[str, EmittedPart] | None = None,
    ) -> None:
        if len(inputs) != 1:
            raise UsageError("a detector with one image input is needed", why=f"{len(inputs)}")
        self.raw = raw
        self._input = inputs[0].name
        self._reads = tuple(reads)
        names = (*reads, raw.score, raw.map)
        opened = [exposed(p, names) for p in parts]
        self._parts = FloatParts(opened, inputs, outputs, memory=memory, instead=instead)

    def __enter__(self) -> Chain:
        self._parts.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._parts.__exit__(*exception)

    def _run(self, image: Array, wanted: Sequence[str]) -> list[Array]:
        kept: dict[str, Array] = {}

        def tap(name: str, array: Feed) -> None:
            if name in wanted:
                kept[name] = np.array(array, dtype=np.float32)

        self._parts.run({self._input: image}, tap=tap)
        return [kept[name] for name in wanted]

    def read(self, images: Array) -> list[list[Array]]:
        """For every image what the head reads, in the order of ``reads``."""
        return [self._run(images[i : i + 1], self._reads) for i in range(len(images))]

    def values(
        self, samples: Sequence[Sample], spec: Preprocess, what: str, watch: Watch
    ) -> list[list[Array]]:
        """:meth:`read` over samples; *watch* is told of each as *what*."""
        found: list[list[Array]] = []
        for images in batches(samples, spec, 1):
            found += self.read(images)
            watch(what, len(found), len(samples))
        return found

    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Raw scores [n] and raw maps [n, H, W]."""
        scores: list[float] = []
        maps: list[Array] = []
        for index in range(len(images)):
            score, heat = self._run(images[index : index + 1], (self.raw.score, self.raw.map))
            scores.append(float(score.reshape(-1)[0]))
            maps.append(heat.reshape(heat.shape[-2:]))
        return np.asarray(scores, dtype=np.float32), np.stack(maps)
