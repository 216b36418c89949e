"""The operators of domain ``adcompile``: each is an ONNX function with a plain-ONNX body.

A graph that uses them runs in any ONNX runtime; a backend that knows an op replaces the body.
Shapes: N images, P = h·w patches per image, Q = N·P rows (image by image, row-major in the map),
C channels, M bank rows. All tensors are float32 unless stated. Opsets 13 to 21.

KnnSearch(features [Q, C], bank [M, C]) -> distances [Q, k], indices int64 [Q, k]
    attributes: ``k`` int (default 9, at most M), ``block`` int (default 128).
    The k nearest bank rows of each row by *squared* Euclidean distance, ascending. Distances are
    the exact sum of squared differences of the chosen rows (never |x|²-2xy+|y|²), so a row that
    is in the bank has distance 0. At most ``block`` × M selection values exist at a time.
    Among equal distances the lower index comes first when selection can tell (it ranks by
    |y|²-2xy in float32, so neighbours closer than its rounding may swap).
PatchScore(distances [Q, k]) -> score [N], patch_map [N, 1, h, w]
    attribute: ``grid`` ints [h, w]. The map is the first distance; the score is its maximum.
PatchScoreOwn(distances [Q, k]) -> score [N], patch_map [N, 1, h, w]
    attribute: ``grid``. Score = w · s, s the largest first distance, at the first patch that has
    it; over that patch's own k distances d ascending, w = sum(e[:-1]) / sum(e), e = exp(d - d[-1])
    (equal to 1 - softmax of the farthest, without overflow and cancellation). k ≥ 2.
PatchScorePaper(distances [Q, k], indices int64 [Q, k], features [Q, C], bank [M, C])
    -> score [N], patch_map [N, 1, h, w]
    attributes: ``grid``, ``k`` int (default 9, at most M). Distances are *rooted*. Score = w · s;
    with m the nearest bank row of the worst patch x, and b_0…b_{k-1} the k nearest bank rows of m
    (b_0 is m itself), d_i = |x - b_i|, e = exp(d - max d), w = sum(e[1:]) / sum(e). Only column 0
    of distances and indices is read. k ≥ 2.
MahalanobisMap(embedding [N, C, h, w], mean [C, P], inverse [P, C, C]) -> squared [N, 1, h, w]
    Per patch (x - mean)ᵀ · inverse · (x - mean), at least 0. The square root is a Sqrt node.
WhitenedMap(embedding [N, C, h, w], mean [C, P], factor [B, C·(C + 1)/2, 16]) -> squared [N, 1, h, w]
    The same distance through triangular factors: |L · (x - mean)|² with Lᵀ · L = inverse. ``factor``
    is packed as ``whiten.py`` says: lower triangles row by row, 16 patches beside each other, B =
    ⌈P / 16⌉. Half the numbers of ``inverse``, and no cancellation. The body unpacks the factors to
    whole matrices; a runtime that folds constants does that once.
SquaredErrorMap(a [N, C, h, w], b [N, C, h, w]) -> error [N, 1, h, w]
    Mean over channels of (a - b)².
MapUpsampleBlur(patch_map [N, 1, h, w], rows [H, h], columns [w, W]) -> out [N, 1, H, W]
    rows · patch_map · columns. Nearest or bilinear enlargement, zero padding and Gaussian blur with any
    border are all linear and separable, so two constant matrices hold them exactly
    (``maps.upsample_blur_matrices``); most of their entries are zero.
NormalizeScore(x) -> y (any shape)
    attributes: ``threshold``, ``minimum``, ``maximum`` floats.
    clip((x - threshold) / (maximum - minimum) + 0.5, 0, 1).
NormalizeScoreCdf(x) -> y (any shape)
    attributes: ``threshold`` (> 0), ``std`` (> 0) floats.
    Normal CDF of (ln max(x, 1e-30) - ln threshold) / std.

Rooted distances: a plain ``Sqrt`` node stands between KnnSearch and the patch score when the
contract's metric is ``l2``; none when it is ``squared_l2``.
"""

from __future__ import annotations

from functools import lru_cache

import onnx_ir as ir

from adcompile.anomaly.op_bodies import BODIES, NEEDS
from adcompile.errors import UsageError

DOMAIN = "adcompile"
VERSION = 1

NAMES: tuple[str, ...] = tuple(BODIES)
"""Every op of the domain, in the order of the table above."""


@lru_cache(maxsize=64)
def _text(name: str, opset: int) -> str:
    header = f'<opset_import: ["" : {opset}, "{DOMAIN}" : {VERSION}], domain: "{DOMAIN}">'
    return header + BODIES[name]


def function(name: str, opset: int = 17) -> ir.Function:
    """A fresh copy of one op's function, its body written for *opset*."""
    if name not in BODIES:
        raise UsageError(f"no adcompile op is called {name!r}", fix=f"one of {', '.join(NAMES)}")
    if not 13 <= opset <= 21:
        raise UsageError("adcompile ops need opset 13 to 21", why=f"the model has {opset}")
    head = f'<ir_version: 8, opset_import: ["" : {opset}, "{DOMAIN}" : {VERSION}]>\n'
    frame = "frame (float[1] x) => (float[1] y) { y = Identity(x) }\n"
    return ir.from_onnx_text(head + frame + _text(name, opset)).functions[(DOMAIN, name, "")]


def add_functions(model: ir.Model) -> tuple[str, ...]:
    """Give *model* the functions its ``adcompile`` nodes call, and the domain import.

    Nodes in subgraphs count. Functions that are there already stay. Returns the names added.
    """
    wanted = {
        node.op_type
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.domain == DOMAIN
    }
    for name in sorted(wanted):
        wanted.update(NEEDS.get(name, ()))
    if not wanted:
        return ()
    opset = model.opset_imports.get("", 17)
    model.opset_imports.setdefault(DOMAIN, VERSION)
    added: list[str] = []
    for name in (n for n in NAMES if n in wanted):
        if (DOMAIN, name, "") in model.functions:
            continue
        model.functions[(DOMAIN, name, "")] = function(name, opset)
        added.append(name)
    return tuple(added)
