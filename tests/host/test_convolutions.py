"""Convolutions and matrix products of sizes that leave parts of tiles over, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.host.library import HostLibrary
from tests.host.support import CHECKED, Array, assert_like_reference, build, model

# input, weights, attributes, maps
TRANSPOSED = {
    "plain": ((2, 6, 5, 7), (6, 4, 2, 2), "strides = [2, 2]", 4),
    "groups": ((1, 6, 5, 7), (6, 2, 3, 3), "strides = [2, 1], group = 3, pads = [1, 1, 0, 1]", 6),
    "own": ((1, 4, 5, 7), (4, 1, 4, 4), "group = 4, strides = [2, 2], pads = [1, 1, 1, 1]", 4),
    "own_more": ((1, 4, 5, 7), (4, 2, 3, 2), "group = 4, strides = [1, 3], dilations = [2, 1]", 8),
    "line": ((1, 5, 9), (5, 3, 4), "strides = [3], output_padding = [1]", 3),
    "depth": ((1, 2, 3, 4, 5), (2, 3, 2, 2, 3), "strides = [2, 1, 2]", 3),
    "shape": ((1, 3, 5, 6), (3, 4, 3, 3), "strides = [2, 2], output_shape = [10, 12]", 4),
}
PLAIN = {
    "points": ((2, 5, 4, 7), (6, 5, 1, 1), "group = 1"),
    "points_in_groups": ((1, 6, 3, 9), (4, 3, 1, 1), "group = 2"),
    "points_apart": ((1, 3, 5, 6), (4, 3, 1, 1), "strides = [2, 2]"),
    "points_padded": ((1, 3, 5, 6), (4, 3, 1, 1), "pads = [1, 0, 0, 1]"),
    "windows": ((2, 3, 9, 8), (5, 3, 3, 2), "strides = [2, 1], pads = [1, 0, 1, 1]"),
}
PRODUCTS = [(1, 1, 1), (2, 17, 3), (3, 16, 5), (5, 33, 7), (7, 15, 300), (13, 40, 20)]


def dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def transposed(name: str) -> ir.Model:
    x, w, attributes, maps = TRANSPOSED[name]
    free = ", ".join("abcde"[: len(x)])
    return model(
        f"""net (float[{dims(x)}] x, float[{dims(w)}] w, float[{maps}] bias) => (float[{free}] y) {{
          y = ConvTranspose <{attributes}> (x, w, bias) }}"""
    )


def plain(name: str) -> ir.Model:
    x, w, attributes = PLAIN[name]
    return model(
        f"""net (float[{dims(x)}] x, float[{dims(w)}] w, float[{w[0]}] bias) => (float[a, b, c, d] y) {{
          y = Conv <{attributes}> (x, w, bias) }}"""
    )


def product(rows: int, columns: int, depth: int) -> ir.Model:
    return model(
        f"""net (float[{rows}, {depth}] a, float[{depth}, {columns}] b) => (float[m, n] y) {{
          y = MatMul (a, b) }}"""
    )


def models() -> dict[str, ir.Model]:
    made = {name: transposed(name) for name in TRANSPOSED}
    made |= {name: plain(name) for name in PLAIN}
    return made | {f"product_{'_'.join(map(str, size))}": product(*size) for size in PRODUCTS}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """All models in one library, undefined behaviour checked."""
    return build(list(models().items()), tmp_path_factory.mktemp("convolutions"), CHECKED)


@pytest.mark.parametrize("name", models())
def test_equals_onnx_runtime(name: str, library: HostLibrary) -> None:
    """Every case, on one thread and on two."""
    made = models()[name]
    rng = np.random.default_rng(5)
    feeds: dict[str, Array] = {}
    for value in made.graph.inputs:
        shape = [d for d in value.shape or () if isinstance(d, int)]
        feeds[value.name or ""] = rng.random(shape, dtype=np.float32)
    for threads in (1, 2):
        library.threads(threads)
        assert_like_reference(library, name, made, feeds)
