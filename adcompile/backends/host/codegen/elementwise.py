"""Elementwise operators: the C++ text for one element."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call
from adcompile.backends.host.codegen.registry import (
    ANY,
    BOOL,
    FLOATS,
    INTS,
    NUMBERS,
    SIGNED,
    UNSIGNED,
    Expression,
    Op,
    Reads,
    T,
    Table,
)

Types = tuple[T, ...]
_SIXTEEN = {T.FLOAT16, T.BFLOAT16}


def real(call: Call, text: str) -> str:
    """An operand in the type that arithmetic uses: 16-bit floats become float."""
    return f"static_cast<float>({text})" if call.dtype() in _SIXTEEN else text


def _format(pattern: str) -> Expression:
    """Operands into ``{0}``, ``{1}`` …"""
    return lambda call, x: pattern.format(*x)


def _real(pattern: str, **attributes: float) -> Expression:
    """Like :func:`_format`, on floats; attributes of that name (with defaults) fill ``{name}``."""

    def text(call: Call, x: Sequence[str]) -> str:
        kind = T.DOUBLE if call.dtype() is T.DOUBLE else T.FLOAT
        given = {k: call.real(call.attr_float(k, v), kind) for k, v in attributes.items()}
        return pattern.format(*(real(call, a) for a in x), **given)

    return text


def _arithmetic(symbol: str, function: str) -> Expression:
    """An infix operator on reals, a wrapping function on integers."""

    def text(call: Call, x: Sequence[str]) -> str:
        if call.dtype() in FLOATS:
            return f"{x[0]} {symbol} {x[1]}"
        return f"math::{function}({x[0]}, {x[1]})"

    return text


def _fold(join: Callable[[Call, str, str], str]) -> Expression:
    """A variadic operator as a left fold."""

    def text(call: Call, x: Sequence[str]) -> str:
        result = x[0]
        for operand in x[1:]:
            result = join(call, result, operand)
        return result

    return text


def _plus(call: Call, a: str, b: str) -> str:
    if call.dtype() in _SIXTEEN:
        return f"{call.cpp()}({a} + {b})"
    return f"({a} + {b})" if call.dtype() in FLOATS else f"math::add({a}, {b})"


def _mean(call: Call, x: Sequence[str]) -> str:
    total = _fold(_plus)(call, x)
    return f"{total} / {call.real(float(len(x)))}"


def _clip(call: Call, x: Sequence[str]) -> str:
    given = iter(x[1:])
    bounds: list[str | None] = [next(given) if call.has(i) else None for i in (1, 2)]
    for i, name in enumerate(("min", "max")):
        if call.given(name):  # opset < 11
            bounds[i] = call.real(call.attr_float(name))
    text = x[0]
    if bounds[0] is not None:
        text = f"math::max({text}, {bounds[0]})"
    if bounds[1] is not None:
        text = f"math::min({text}, {bounds[1]})"
    return text


def _power(call: Call, x: Sequence[str]) -> str:
    known = call.constant(1)
    if known is not None and known.size == 1 and call.dtype() in FLOATS:
        exponent = float(known.reshape(-1)[0])
        base = real(call, x[0])
        if exponent == 2.0:
            return f"{base} * {base}"
        if exponent == 1.0:
            return x[0]
        if exponent == 0.5:
            return f"std::sqrt({base})"
    return f"math::pow({x[0]}, {x[1]})"


def _modulo(call: Call, x: Sequence[str]) -> str:
    return f"math::{'fmod' if call.attr_int('fmod') else 'mod'}({x[0]}, {x[1]})"


def _shift(call: Call, x: Sequence[str]) -> str:
    function = call.choice("direction", "", {"LEFT": "shift_left", "RIGHT": "shift_right"})
    return f"math::{function}({x[0]}, {x[1]})"


def _cast(call: Call, x: Sequence[str]) -> str:
    to = call.out_dtype()
    return x[0] if to is call.dtype() else f"math::cast<{literals.cpp_type(to).cpp}>({x[0]})"


def _gelu(call: Call, x: Sequence[str]) -> str:
    function = call.choice("approximate", "none", {"none": "gelu", "tanh": "gelu_tanh"})
    return f"math::{function}({real(call, x[0])})"


def _infinite(call: Call, x: Sequence[str]) -> str:
    tests: list[str] = []
    operand = real(call, x[0])
    if call.attr_int("detect_positive", 1):
        tests.append(f"({operand} > 0 && std::isinf({operand}))")
    if call.attr_int("detect_negative", 1):
        tests.append(f"({operand} < 0 && std::isinf({operand}))")
    return " || ".join(tests) or "false"


def _relu(call: Call, x: Sequence[str]) -> str:
    return f"math::max({x[0]}, {call.real(0)})"


def _unary_minus(call: Call, x: Sequence[str]) -> str:
    return f"-{real(call, x[0])}" if call.dtype() in FLOATS else f"math::neg({x[0]})"


def _prelu(call: Call, x: Sequence[str]) -> str:
    product = f"{x[0]} * {x[1]}" if call.dtype() in FLOATS else f"math::mul({x[0]}, {x[1]})"
    if call.dtype() in _SIXTEEN:
        product = f"{call.cpp()}({product})"
    return f"{x[0]} < {call.real(0)} ? {product} : {x[0]}"


def _swish(call: Call, x: Sequence[str]) -> str:
    kind = T.DOUBLE if call.dtype() is T.DOUBLE else T.FLOAT
    operand = real(call, x[0])
    alpha = call.attr_float("alpha", 1.0)
    scaled = operand if alpha == 1.0 else f"{call.real(alpha, kind)} * {operand}"
    return f"{operand} * math::sigmoid({scaled})"


def _op(types: Types, expression: Expression, since: int = 1, reads: Reads | None = None) -> Op:
    return Op(None, types, since, expression=expression, reads=reads)


def _first_input(node: ir.Node) -> Sequence[ir.Value | None]:
    return node.inputs[:1]


SELU_ALPHA, SELU_GAMMA = 1.6732631921768188, 1.0507010221481323
NAN_TEST = "{0} != {0}"

UNARY: Table = {
    "Abs": _op(NUMBERS, _format("math::abs({0})")),
    "Neg": _op(FLOATS + SIGNED, _unary_minus),
    "Sign": _op(NUMBERS, _format("math::sign({0})"), 9),
    "Floor": _op(FLOATS, _real("std::floor({0})")),
    "Ceil": _op(FLOATS, _real("std::ceil({0})")),
    "Round": _op(FLOATS, _real("std::nearbyint({0})"), 11),
    "Sqrt": _op(FLOATS, _real("std::sqrt({0})")),
    "Reciprocal": _op(FLOATS, _real("1 / {0}")),
    "Exp": _op(FLOATS, _real("math::exp({0})")),
    "Log": _op(FLOATS, _real("std::log({0})")),
    "Erf": _op(FLOATS, _real("std::erf({0})"), 9),
    "Sin": _op(FLOATS, _real("std::sin({0})"), 7),
    "Cos": _op(FLOATS, _real("std::cos({0})"), 7),
    "Tan": _op(FLOATS, _real("std::tan({0})"), 7),
    "Asin": _op(FLOATS, _real("std::asin({0})"), 7),
    "Acos": _op(FLOATS, _real("std::acos({0})"), 7),
    "Atan": _op(FLOATS, _real("std::atan({0})"), 7),
    "Sinh": _op(FLOATS, _real("std::sinh({0})"), 9),
    "Cosh": _op(FLOATS, _real("std::cosh({0})"), 9),
    "Tanh": _op(FLOATS, _real("math::tanh({0})")),
    "Asinh": _op(FLOATS, _real("std::asinh({0})"), 9),
    "Acosh": _op(FLOATS, _real("std::acosh({0})"), 9),
    "Atanh": _op(FLOATS, _real("std::atanh({0})"), 9),
    "Sigmoid": _op(FLOATS, _real("math::sigmoid({0})")),
    "Relu": _op(FLOATS + SIGNED, _relu),
    "LeakyRelu": _op(FLOATS, _real("{0} < 0 ? {alpha} * {0} : {0}", alpha=0.01)),
    "ThresholdedRelu": _op(FLOATS, _real("{0} > {alpha} ? {0} : 0", alpha=1.0), 10),
    "Elu": _op(FLOATS, _real("math::elu({0}, {alpha})", alpha=1.0)),
    "Celu": _op(FLOATS, _real("math::celu({0}, {alpha})", alpha=1.0), 12),
    "Selu": _op(
        FLOATS,
        _real("math::selu({0}, {alpha}, {gamma})", alpha=SELU_ALPHA, gamma=SELU_GAMMA),
    ),
    "HardSigmoid": _op(
        FLOATS, _real("math::hard_sigmoid({0}, {alpha}, {beta})", alpha=0.2, beta=0.5)
    ),
    "HardSwish": _op(
        FLOATS,
        _real("{0} * math::hard_sigmoid({0}, decltype({0}){{1}} / 6, decltype({0}){{0.5}})"),
        14,
    ),
    "Softplus": _op(FLOATS, _real("math::softplus({0})")),
    "Softsign": _op(FLOATS, _real("{0} / (1 + std::fabs({0}))")),
    "Mish": _op(FLOATS, _real("{0} * math::tanh(math::softplus({0}))"), 18),
    "Gelu": _op(FLOATS, _gelu, 20),
    "Swish": _op(FLOATS, _swish, 24),
    "Shrink": _op(FLOATS, _real("math::shrink({0}, {bias}, {lambd})", bias=0.0, lambd=0.5), 9),
    "Not": _op(BOOL, _format("!{0}")),
    "BitwiseNot": _op(INTS, lambda c, x: f"static_cast<{c.cpp()}>(~{x[0]})", 18),
    "IsNaN": _op(FLOATS, _real(NAN_TEST), 9),
    "IsInf": _op(FLOATS, _infinite, 10),
    "Cast": _op(ANY, _cast, 6),
    "CastLike": _op(ANY, _cast, 15, reads=_first_input),
}

BINARY: Table = {
    "Add": _op(NUMBERS, _arithmetic("+", "add"), 7),
    "Sub": _op(NUMBERS, _arithmetic("-", "sub"), 7),
    "Mul": _op(NUMBERS, _arithmetic("*", "mul"), 7),
    "Div": _op(NUMBERS, _arithmetic("/", "div"), 7),
    "Mod": _op(NUMBERS, _modulo, 10),
    "Pow": _op(FLOATS + INTS, _power, 7),
    "And": _op(BOOL, _format("{0} && {1}"), 7),
    "Or": _op(BOOL, _format("{0} || {1}"), 7),
    "Xor": _op(BOOL, _format("{0} != {1}"), 7),
    "Equal": _op(ANY, _format("{0} == {1}"), 7),
    "Greater": _op(NUMBERS, _format("{0} > {1}"), 7),
    "GreaterOrEqual": _op(NUMBERS, _format("{0} >= {1}"), 12),
    "Less": _op(NUMBERS, _format("{0} < {1}"), 7),
    "LessOrEqual": _op(NUMBERS, _format("{0} <= {1}"), 12),
    "PRelu": _op(FLOATS, _prelu, 7),
    "BitShift": _op(UNSIGNED, _shift, 11),
    "BitwiseAnd": _op(INTS, lambda c, x: f"static_cast<{c.cpp()}>({x[0]} & {x[1]})", 18),
    "BitwiseOr": _op(INTS, lambda c, x: f"static_cast<{c.cpp()}>({x[0]} | {x[1]})", 18),
    "BitwiseXor": _op(INTS, lambda c, x: f"static_cast<{c.cpp()}>({x[0]} ^ {x[1]})", 18),
}

VARIADIC: Table = {
    "Max": _op(NUMBERS, _fold(lambda c, a, b: f"math::max({a}, {b})"), 8),
    "Min": _op(NUMBERS, _fold(lambda c, a, b: f"math::min({a}, {b})"), 8),
    "Sum": _op(FLOATS, _fold(_plus), 8),
    "Mean": _op(FLOATS, _mean, 8),
    "Clip": _op(NUMBERS, _clip, 6),
    "Where": Op(None, ANY, 9, key=1, expression=_format("{0} ? {1} : {2}")),
}

TABLE: Table = UNARY | BINARY | VARIADIC
