"""The float and the quantized network side by side, node by node, on a few calibration samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.evaluate import open_model
from adcompile.ir.extract import extract
from adcompile.ir.graph import is_constant
from adcompile.lower.grid import Grid
from adcompile.lower.observe import Floats
from adcompile.lower.points import Points
from adcompile.lower.threads import workers


@dataclass(frozen=True)
class Results:
    """Outputs of one node on both sides, by name, a list over samples."""

    exact: dict[str, list[Array]]
    rounded: dict[str, list[Array]]


class Tape:
    """Live values of both networks. A value is forgotten after its last reader.

    ``exact[name]`` and ``rounded[name]`` are lists over samples. On the rounded side a value that
    has a grid for all its readers is kept on it; with a grid for some readers it is rounded when
    one of those asks.
    """

    def __init__(
        self,
        model: ir.Model,
        points: Points,
        grids: Mapping[str, Grid],
        samples: Sequence[Mapping[str, Array]],
    ) -> None:
        self.model = model
        self._points = points
        self._grids = grids
        self.count = len(samples)
        self._pool = ThreadPoolExecutor(workers())
        self.exact: dict[str, list[Array]] = {}
        self.rounded: dict[str, list[Array]] = {}
        self._left: Counter[str] = Counter()
        for node in model.graph:
            self._left.update(v.name or "" for v in node.inputs if v is not None)
        for value in model.graph.inputs:
            name = value.name or ""
            if not is_constant(value):
                self._put(name, [np.asarray(s[name]) for s in samples], None)

    def _put(self, name: str, exact: list[Array], rounded: list[Array] | None) -> None:
        if not self._left[name]:
            return
        self.exact[name] = exact
        raw = exact if rounded is None else rounded
        grid = self._grids.get(name)
        everyone = name in self._points.readers and self._points.readers[name] is None
        self.rounded[name] = [grid.rounded(x) for x in raw] if grid and everyone else raw

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def read(self, node: ir.Node, index: int, sample: int, *, exact: bool) -> Array:
        """What *node* gets at input *index* on one side."""
        value = node.inputs[index]
        name = (value.name if value is not None else "") or ""
        if exact:
            return self.exact[name][sample]
        array = self.rounded[name][sample]
        edges = self._points.readers.get(name)
        if edges and (node.name or "", index) in edges:
            return self._grids[name].rounded(array)
        return array

    def run(self, node: ir.Node, constants: Mapping[int, Floats]) -> Results:
        """Execute *node* on both sides; *constants* replace weights on the rounded side."""
        fed = [
            (i, v)
            for i, v in enumerate(node.inputs)
            if v is not None and (not is_constant(v) or i in constants)
        ]
        made = [v for v in node.outputs if v.name]
        part = extract(self.model, [node], list(dict.fromkeys(v for _, v in fed)), made, "node")
        for value in (*part.graph.inputs, *part.graph.outputs):
            value.shape = None
        session = open_model(part, optimize=True, threads=1)
        names = [v.name or "" for v in made]

        def call(job: tuple[bool, int]) -> list[Array]:
            exact, sample = job
            feeds: dict[str, Array] = {}
            for index, value in fed:
                if index in constants:
                    feeds[value.name or ""] = _float(value) if exact else constants[index]
                else:
                    feeds[value.name or ""] = self.read(node, index, sample, exact=exact)
            return session.run(names, feeds)

        jobs = [(exact, sample) for exact in (True, False) for sample in range(self.count)]
        arrays = list(self._pool.map(call, jobs))
        columns = [
            {n: [a[i] for a in half] for i, n in enumerate(names)}
            for half in (arrays[: self.count], arrays[self.count :])
        ]
        return Results(columns[0], columns[1])

    def keep(self, node: ir.Node, results: Results) -> None:
        """Take in what *node* made, and drop what nobody reads any more."""
        for name, exact in results.exact.items():
            self._put(name, exact, results.rounded[name])
        self._forget(node)

    def _forget(self, node: ir.Node) -> None:
        for value in node.inputs:
            name = (value.name if value is not None else "") or ""
            self._left[name] -= 1
            if self._left[name] <= 0:
                self.exact.pop(name, None)
                self.rounded.pop(name, None)


def _float(value: ir.Value) -> Floats:
    tensor = value.const_value
    assert tensor is not None
    return np.asarray(tensor.numpy(), np.float32)
