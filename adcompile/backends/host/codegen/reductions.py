"""Reductions and normalisation along axes."""

from __future__ import annotations

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.registry import BOOL, FLOATS, NUMBERS, Op, T, Table

SCRATCH = "ws.scratch()"
_WIDE = (*FLOATS, T.INT32, T.INT64, T.UINT32, T.UINT64)


def _reduce(name: str) -> Op:
    def emit(c: Call) -> str:
        by_input = c.opset >= (13 if name == "ReduceSum" else 18)
        if by_input and c.has(1):
            axes = c.shape_arg(1)
            known = c.ints(1)
            if known is None:
                count = c.shape(1)
                empty = "false" if count and count[0] else f"{c.arg(1)}.size() == 0"
            else:
                empty = literals.boolean(not known)
        else:
            given = c.attr_ints("axes")
            axes, empty = literals.shape(given), literals.boolean(not given)
        if c.attr_int("noop_with_empty_axes"):
            empty = "false"
        keep = literals.boolean(c.attr_int("keepdims", 1))
        function = f"reduce<op::{name}, {c.cpp()}>"
        return call(function, c.out(), SCRATCH, c.arg(0), axes, empty, keep)

    types = NUMBERS + BOOL if name in {"ReduceMax", "ReduceMin"} else _WIDE
    return Op(emit, types)


def _along(function: str) -> Op:
    def emit(c: Call) -> str:
        rank = c.rank()
        if rank is None:
            raise c.refuse("the rank is not known")
        old = c.opset < 13
        axis = c.attr_int("axis", 1 if old else -1) % max(rank, 1)
        last = rank if old else axis + 1
        return call(function, c.out(), SCRATCH, c.arg(0), str(axis), str(last))

    return Op(emit, FLOATS)


def _lp_normalize(c: Call) -> str:
    extra = [str(c.attr_int("axis", -1)), str(c.attr_int("p", 2))]
    return call("lp_normalize", c.out(), SCRATCH, c.arg(0), *extra)


NAMES = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)

TABLE: Table = {name: _reduce(name) for name in NAMES} | {
    "Softmax": _along("softmax"),
    "LogSoftmax": _along("log_softmax"),
    "Hardmax": _along("hardmax"),
    "LpNormalization": Op(_lp_normalize, FLOATS),
}
