"""Layers that a plan may leave on the host: products, convolutions, pools, norms."""

from __future__ import annotations

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.registry import FLOATS, Op, T, Table

SCRATCH = "ws.scratch()"
F = T.FLOAT
_AUTO = {
    "NOTSET": "none",
    "SAME_UPPER": "same_upper",
    "SAME_LOWER": "same_lower",
    "VALID": "valid",
}


def optional(c: Call, i: int) -> str:
    """The address of an input, or ``nullptr``."""
    return f"&{c.arg(i)}" if c.has(i) else "nullptr"


def single(value: float) -> str:
    """A float literal."""
    return literals.number(value, F)


def _window(c: Call, kernel: bool = True) -> str:
    """``op::WindowSpec{…}`` from the attributes of a convolution or pool."""
    names = ("strides", "dilations", "pads")
    lists = [literals.shape(c.attr_ints("kernel_shape") if kernel else [])]
    lists += [literals.shape(c.attr_ints(n)) for n in names]
    auto = "op::AutoPad::" + c.choice("auto_pad", "NOTSET", _AUTO)
    ceil = literals.boolean(c.attr_int("ceil_mode"))
    return "op::WindowSpec" + literals.braces([*lists, auto, ceil])


def _matmul(c: Call) -> str:
    return call("matmul", c.out(), SCRATCH, c.arg(0), c.arg(1))


def _gemm(c: Call) -> str:
    return call(
        f"gemm<{c.cpp()}>",
        c.out(),
        SCRATCH,
        c.arg(0),
        c.arg(1),
        optional(c, 2),
        single(c.attr_float("alpha", 1.0)),
        single(c.attr_float("beta", 1.0)),
        literals.boolean(c.attr_int("transA")),
        literals.boolean(c.attr_int("transB")),
    )


def _conv(c: Call) -> str:
    return call(
        f"conv<{c.cpp()}>",
        c.out(),
        SCRATCH,
        c.arg(0),
        c.arg(1),
        optional(c, 2),
        str(c.attr_int("group", 1)),
        _window(c, kernel=False),
    )


def _conv_transpose(c: Call) -> str:
    return call(
        f"conv_transpose<{c.cpp()}>",
        c.out(),
        SCRATCH,
        c.arg(0),
        c.arg(1),
        optional(c, 2),
        str(c.attr_int("group", 1)),
        _window(c, kernel=False),
        literals.shape(c.attr_ints("output_padding")),
        literals.shape(c.attr_ints("output_shape")),
    )


def _average_pool(c: Call) -> str:
    padded = literals.boolean(c.attr_int("count_include_pad"))
    return call("average_pool", c.out(), SCRATCH, c.arg(0), _window(c), padded)


def _max_pool(c: Call) -> str:
    if len(c.node.outputs) == 1:
        return call("max_pool", c.out(), SCRATCH, c.arg(0), _window(c))
    column_major = literals.boolean(c.attr_int("storage_order"))
    return call("max_pool_indices", c.out(0), c.out(1), c.arg(0), _window(c), column_major)


def _lp_pool(c: Call) -> str:
    return call("lp_pool", c.out(), c.arg(0), _window(c), str(c.attr_int("p", 2)))


def _max_unpool(c: Call) -> str:
    dims = c.shape()
    if dims is None:
        raise c.refuse("the input's shape is not known")
    kernel = c.attr_ints("kernel_shape")
    strides = c.attr_ints("strides") or [1] * len(kernel)
    pads = c.attr_ints("pads") or [0] * (2 * len(kernel))
    spatial = [
        (dims[2 + i] - 1) * strides[i] + k - pads[i] - pads[i + len(kernel)]
        for i, k in enumerate(kernel)
    ]
    inner = literals.shape([*dims[:2], *spatial])
    outer = c.shape_arg(2) if c.has(2) else inner
    return call("max_unpool", c.out(), SCRATCH, c.arg(0), c.arg(1), inner, outer)


def _global(reduction: str) -> Op:
    def emit(c: Call) -> str:
        rank = c.rank()
        if rank is None:
            raise c.refuse("the rank is not known")
        axes = literals.shape(range(2, rank))
        function = f"reduce<op::{reduction}, {c.cpp()}>"
        empty = literals.boolean(rank < 0)
        return call(function, c.out(), SCRATCH, c.arg(0), axes, empty, "true")

    return Op(emit, FLOATS)


def _batch_norm(c: Call) -> str:
    if c.attr_int("training_mode"):
        raise c.refuse("training_mode")
    return call("batch_norm", c.out(), *c.args(), single(c.attr_float("epsilon", 1e-5)))


def _instance_norm(c: Call) -> str:
    return call("instance_norm", c.out(), *c.args(), single(c.attr_float("epsilon", 1e-5)))


def _group_norm(c: Call) -> str:
    extra = [str(c.attr_int("num_groups")), single(c.attr_float("epsilon", 1e-5))]
    return call("group_norm", c.out(), *c.args(), *extra)


def _layer_norm(c: Call) -> str:
    count = len(c.node.outputs)
    spare = [c.out(i) if i < count else c.spare("float") for i in (1, 2)]
    text = call(
        f"layer_norm<{c.cpp()}>",
        c.out(),
        *spare,
        c.arg(0),
        c.arg(1),
        optional(c, 2),
        str(c.attr_int("axis", -1)),
        single(c.attr_float("epsilon", 1e-5)),
    )
    return text if count == 3 else f"std::get<0>({text})" if count == 1 else f"op::front({text})"


def _rms_norm(c: Call) -> str:
    extra = [str(c.attr_int("axis", -1)), single(c.attr_float("epsilon", 1e-5))]
    return call("rms_norm", c.out(), c.arg(0), c.arg(1), *extra)


def _lrn(c: Call) -> str:
    reals = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)]
    numbers = [single(c.attr_float(n, v)) for n, v in reals]
    return call("lrn", c.out(), c.arg(0), str(c.attr_int("size")), *numbers)


def _mean_variance(c: Call) -> str:
    axes = literals.shape(c.attr_ints("axes", (0, 2, 3)))
    return call("mean_variance_norm", c.out(), SCRATCH, c.arg(0), axes)


def _einsum(c: Call) -> str:
    terms, output = _equation(c)
    if len(terms) > 2:
        raise c.refuse("more than two operands")
    order = output + [x for x in dict.fromkeys("".join(map("".join, terms))) if x not in output]
    loops = [literals.shape(order.index(x) for x in term) for term in terms]
    second = loops[1] if len(loops) > 1 else "Shape{}"
    fields = [str(len(order)), str(len(output)), loops[0], second]
    contraction = "op::Contraction" + literals.braces(fields)
    return call(f"einsum<{c.cpp()}>", c.out(), c.arg(0), optional(c, 1), contraction)


def _equation(c: Call) -> tuple[list[list[str]], list[str]]:
    """Letters per operand and of the result; an ellipsis becomes capital letters."""
    text = c.attr_str("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms: list[list[str]] = []
    widest = 0
    for i, term in enumerate(left.split(",")):
        extra = 0
        if "..." in term:
            rank = c.rank(i)
            if rank is None:
                raise c.refuse("an ellipsis over a rank that is not known")
            extra = rank - len(term.replace("...", ""))
        widest = max(widest, extra)
        names = "".join(f"{n}" for n in _dots(extra))
        terms.append(list(term.replace("...", names)))
    if any(not (x.isalpha() or x in _DOTS) for term in terms for x in term):
        raise c.refuse("the equation is not made of letters")
    if arrow:
        output = list(right.replace("...", "".join(_dots(widest))))
    else:
        flat = [x for term in terms for x in term]
        output = _dots(widest) + sorted(x for x in set(flat) if flat.count(x) == 1 and x.isalpha())
    return terms, output


_DOTS = "01234567"


def _dots(count: int) -> list[str]:
    """Loop names of an ellipsis of *count* dimensions, aligned at the right."""
    return list(_DOTS[len(_DOTS) - count :])


TABLE: Table = {
    "MatMul": Op(_matmul, (*FLOATS, T.INT32, T.INT64, T.UINT32, T.UINT64)),
    "Gemm": Op(_gemm, (*FLOATS, T.INT32, T.INT64, T.UINT32, T.UINT64), 7),
    "Conv": Op(_conv, FLOATS),
    "ConvTranspose": Op(_conv_transpose, FLOATS),
    "AveragePool": Op(_average_pool, FLOATS),
    "MaxPool": Op(_max_pool, (*FLOATS, T.INT8, T.UINT8)),
    "LpPool": Op(_lp_pool, FLOATS, 2),
    "MaxUnpool": Op(_max_unpool, FLOATS, 9),
    "GlobalAveragePool": _global("ReduceMean"),
    "GlobalMaxPool": _global("ReduceMax"),
    "BatchNormalization": Op(_batch_norm, FLOATS, 9),
    "InstanceNormalization": Op(_instance_norm, FLOATS),
    "GroupNormalization": Op(_group_norm, FLOATS, 18),
    "LayerNormalization": Op(_layer_norm, FLOATS, 17),
    "RMSNormalization": Op(_rms_norm, FLOATS, 23),
    "LRN": Op(_lrn, FLOATS),
    "MeanVarianceNormalization": Op(_mean_variance, FLOATS, 9),
    "Einsum": Op(_einsum, (*FLOATS, T.INT32, T.INT64), 12),
}
