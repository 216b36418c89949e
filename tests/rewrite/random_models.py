"""Random ONNX models for differential tests: shared values, several outputs, If and Loop, empty and
0-d tensors, bool and integer types, shape arithmetic, and inputs with open dimensions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "f": TensorProto.FLOAT,
    "i": TensorProto.INT64,
    "b": TensorProto.BOOL,
}
UNARY = {
    "f": ("Relu", "Neg", "Abs", "Sigmoid", "Identity", "Floor"),
    "i": ("Neg", "Abs", "Identity"),
    "b": ("Not", "Identity"),
}
BINARY = {
    "f": ("Add", "Sub", "Mul", "Max", "Min"),
    "i": ("Add", "Sub", "Mul"),
    "b": ("And", "Or", "Xor"),
}
NUMPY = {"f": np.float32, "i": np.int64, "b": np.bool_}


@dataclass(frozen=True)
class Var:
    """A value: name, kind (f, i, b), and the shape it has for the feeds that go with the model."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass
class Scope:
    """One graph under construction; ``outer`` values may be captured."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    values: list[Var] = field(default_factory=list)


class Builder:
    """Draws a model from a seeded generator; every operator added is valid for the feeds."""

    def __init__(self, seed: int, size: int) -> None:
        self.rng = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.count = 0
        self.depth = 0
        self.scope = Scope()
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}
        for _ in range(self.rng.randint(1, 3)):
            self._input()
        for _ in range(size):
            self._step()

    def model(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        """The finished model, with some of its values as outputs, and its feeds."""
        made = [v for v in self.scope.values if v.name.startswith("v")]
        inputs = [v for v in self.scope.values if v.name.startswith("in")]
        if not made:
            made = [self._node("Identity", [inputs[0]], inputs[0].kind, inputs[0].shape)]
        chosen = self.rng.sample(made, min(len(made), self.rng.randint(1, 4)))
        if made[-1] not in chosen:
            chosen.append(made[-1])
        outputs = [_open_output(v) for v in chosen]
        graph = helper.make_graph(
            self.scope.nodes, "random", self.inputs, outputs, self.scope.initializers
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return model, self.feeds

    # values

    def _name(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def _array(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        if kind == "f":
            return self.numpy.normal(size=shape).astype(np.float32)
        low, high = (0, 2) if kind == "b" else (-3, 4)
        return self.numpy.integers(low, high, shape).astype(NUMPY[kind])

    def _shape(self) -> tuple[int, ...]:
        return tuple(
            self.rng.choice((0, 1, 1, 2, 2, 3, 3)) for _ in range(self.rng.choice((0, 1, 2, 2, 3)))
        )

    def _input(self) -> None:
        kind, shape = self.rng.choice("fffib"), self._shape()
        name = self._name("in")
        dims = [f"s{self.rng.randint(0, 5)}" if self.rng.random() < 0.4 else d for d in shape]
        # one symbol means one size
        sizes: dict[str, int] = getattr(self, "sizes", {})
        self.sizes = sizes
        dims = [
            d if not isinstance(d, str) or sizes.setdefault(d, n) == n else n
            for d, n in zip(dims, shape, strict=True)
        ]
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[kind], dims))
        self.feeds[name] = self._array(kind, shape)
        self.scope.values.append(Var(name, kind, shape))

    def _constant(self, array: np.ndarray) -> str:
        name = self._name("c")
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.rng.random() < 0.3:
            self.scope.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.scope.initializers.append(tensor)
        return name

    def _ints(self, *numbers: int) -> str:
        return self._constant(np.asarray(numbers, dtype=np.int64))

    def _pick(self, kinds: str = "fib", test: Callable[[Var], bool] | None = None) -> Var | None:
        found = [v for v in self.scope.values if v.kind in kinds and (test is None or test(v))]
        return self.rng.choice(found) if found else None

    def _node(
        self,
        op: str,
        inputs: list[Var | str],
        kind: str,
        shape: tuple[int, ...],
        **attributes: object,
    ) -> Var:
        names = [v.name if isinstance(v, Var) else v for v in inputs]
        result = Var(self._name(), kind, shape)
        self.scope.nodes.append(helper.make_node(op, names, [result.name], **attributes))
        self.scope.values.append(result)
        return result

    # operators

    def _step(self) -> None:
        choices: list[tuple[int, Callable[[], object]]] = [
            (4, self._unary),
            (5, self._binary),
            (3, self._neutral),
            (2, self._compare),
            (2, self._cast),
            (2, self._concat),
            (3, self._transpose),
            (4, self._reshape),
            (4, self._computed_reshape),
            (3, self._unsqueeze),
            (3, self._squeeze),
            (2, self._slice),
            (2, self._gather),
            (2, self._expand),
            (2, self._split),
            (2, self._reduce),
            (2, self._where),
            (2, self._shape_of),
            (1, self._constant_value),
            (1, self._filled),
            (1, self._matmul),
            (1, self._pad),
            (2 if self.depth < 2 else 0, self._if),
            (2 if self.depth < 2 else 0, self._loop),
            (2 if self.depth < 2 else 0, self._scan),
        ]
        weights = [weight for weight, _ in choices]
        (_, act) = self.rng.choices(choices, weights)[0]
        act()

    def _unary(self) -> None:
        if x := self._pick():
            self._node(self.rng.choice(UNARY[x.kind]), [x], x.kind, x.shape)

    def _binary(self) -> None:
        x = self._pick()
        if x is None:
            return
        y = self._pick(x.kind, lambda v: _broadcast(x.shape, v.shape) is not None)
        shape = _broadcast(x.shape, y.shape) if y else None
        if y is None or shape is None:
            return
        self._node(self.rng.choice(BINARY[x.kind]), [x, y], x.kind, shape)

    def _neutral(self) -> None:
        x = self._pick("fi")
        if x is None:
            return
        op = self.rng.choice(("Mul", "Add", "Sub", "Div"))
        number = 1 if op in ("Mul", "Div") else 0
        if self.rng.random() < 0.3:
            number = 2
        rank = self.rng.randint(0, len(x.shape) + 1)
        c = self._constant(np.full((1,) * rank, number, dtype=NUMPY[x.kind]))
        shape = _broadcast(x.shape, (1,) * rank) or ()
        self._node(op, [x, c], x.kind, shape)

    def _compare(self) -> None:
        x = self._pick("fi")
        y = self._pick(x.kind, lambda v: _broadcast(x.shape, v.shape) is not None) if x else None
        if x and y:
            shape = _broadcast(x.shape, y.shape) or ()
            self._node(self.rng.choice(("Equal", "Less", "Greater")), [x, y], "b", shape)

    def _cast(self) -> None:
        if x := self._pick("ib"):
            kind = self.rng.choice("fib")
            self._node("Cast", [x], kind, x.shape, to=TYPES[kind])

    def _concat(self) -> None:
        x = self._pick(test=lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis = self.rng.randrange(len(x.shape))

        def fits(v: Var) -> bool:
            return len(v.shape) == len(x.shape) and _without(v.shape, axis) == _without(
                x.shape, axis
            )

        parts = [x] + [v for _ in range(self.rng.randint(0, 2)) if (v := self._pick(x.kind, fits))]
        total = sum(v.shape[axis] for v in parts)
        shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
        written = axis - len(x.shape) if self.rng.random() < 0.5 else axis
        self._node("Concat", list(parts), x.kind, shape, axis=written)

    def _transpose(self) -> None:
        if x := self._pick(test=lambda v: len(v.shape) > 0):
            perm = list(range(len(x.shape)))
            self.rng.shuffle(perm)
            self._node("Transpose", [x], x.kind, tuple(x.shape[p] for p in perm), perm=perm)

    def _target(self, size: int) -> tuple[int, ...]:
        if size == 0:
            return self.rng.choice(((0,), (0, 2), (1, 0)))
        factors = [1] * self.rng.randint(0, 2)
        while size > 1:
            divisor = self.rng.choice([d for d in range(2, size + 1) if size % d == 0])
            factors.append(divisor)
            size //= divisor
        self.rng.shuffle(factors)
        return tuple(factors)

    def _reshape(self) -> None:
        x = self._pick()
        if x is None:
            return
        size = int(np.prod(x.shape))
        shape = self._target(size)
        written = list(shape)
        if size and written and self.rng.random() < 0.5:
            written[self.rng.randrange(len(written))] = -1
        zero = {"allowzero": 1} if size == 0 else {}
        if self.rng.random() < 0.2 and x.shape:
            axis = self.rng.randrange(len(x.shape) + 1)
            flat = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
            self._node("Flatten", [x], x.kind, flat, axis=axis)
            return
        self._node("Reshape", [x, self._ints(*written)], x.kind, shape, **zero)

    def _computed_reshape(self) -> None:
        """Reshape to a target that is put together from Shape, as exporters write it."""
        x = self._pick(test=lambda v: len(v.shape) >= 2 and 0 not in v.shape)
        if x is None:
            return
        shape = self._node("Shape", [x], "i", (len(x.shape),))
        axis = self.rng.randrange(len(x.shape))
        index = self._constant(np.asarray(axis, dtype=np.int64))
        dim = self._node("Gather", [shape, index], "i", ())
        row = self._node("Unsqueeze", [dim, self._ints(0)], "i", (1,))
        rest = int(np.prod(_without(x.shape, axis)))
        second = self._ints(self.rng.choice((-1, rest)))
        target = self._node("Concat", [row, second], "i", (2,), axis=0)
        self._node("Reshape", [x, target], x.kind, (x.shape[axis], rest))

    def _unsqueeze(self) -> None:
        if x := self._pick():
            axis = self.rng.randint(0, len(x.shape))
            shape = (*x.shape[:axis], 1, *x.shape[axis:])
            self._node("Unsqueeze", [x, self._ints(axis)], x.kind, shape)

    def _squeeze(self) -> None:
        x = self._pick(test=lambda v: 1 in v.shape)
        if x is None:
            return
        axes = [i for i, d in enumerate(x.shape) if d == 1]
        axis = self.rng.choice(axes)
        if self.rng.random() < 0.3:
            shape = tuple(d for d in x.shape if d != 1)
            self._node("Squeeze", [x], x.kind, shape)
        else:
            written = axis - len(x.shape) if self.rng.random() < 0.5 else axis
            self._node("Squeeze", [x, self._ints(written)], x.kind, _without(x.shape, axis))

    def _slice(self) -> None:
        x = self._pick(test=lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis = self.rng.randrange(len(x.shape))
        start, end = self.rng.choice((0, 0, 1, -1)), self.rng.choice((1, 2, -1, 2**62))
        step = self.rng.choice((1, 1, 1, 2, -1))
        size = len(_cut(range(x.shape[axis]), start, end, step))
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        operands = [self._ints(n) for n in (start, end, axis, step)]
        self._node("Slice", [x, *operands], x.kind, shape)

    def _gather(self) -> None:
        x = self._pick(test=lambda v: len(v.shape) > 0 and min(v.shape) > 0)
        if x is None:
            return
        axis = self.rng.randrange(len(x.shape))
        shape = self.rng.choice(((), (1,), (2,)))
        index = self.numpy.integers(-x.shape[axis], x.shape[axis], shape).astype(np.int64)
        result = (*x.shape[:axis], *shape, *x.shape[axis + 1 :])
        self._node("Gather", [x, self._constant(index)], x.kind, result, axis=axis)

    def _expand(self) -> None:
        x = self._pick()
        if x is None:
            return
        target = tuple(self.rng.choice((1, 2)) if d == 1 else d for d in x.shape)
        if self.rng.random() < 0.4:
            target = (self.rng.choice((1, 2)), *target)
        shape = _broadcast(x.shape, target) or ()
        self._node("Expand", [x, self._ints(*target)], x.kind, shape)

    def _split(self) -> None:
        x = self._pick(test=lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis = self.rng.randrange(len(x.shape))
        first = self.rng.randint(0, x.shape[axis])
        sizes = (first, x.shape[axis] - first)
        results = [
            Var(self._name(), x.kind, (*x.shape[:axis], s, *x.shape[axis + 1 :])) for s in sizes
        ]
        self.scope.nodes.append(
            helper.make_node(
                "Split", [x.name, self._ints(*sizes)], [v.name for v in results], axis=axis
            )
        )
        self.scope.values += results

    def _reduce(self) -> None:
        x = self._pick("fi", lambda v: len(v.shape) > 0 and 0 not in v.shape)
        if x is None:
            return
        axis, keep = self.rng.randrange(len(x.shape)), self.rng.randint(0, 1)
        shape = (*x.shape[:axis], *((1,) if keep else ()), *x.shape[axis + 1 :])
        if self.rng.random() < 0.5:
            self._node("ReduceSum", [x, self._ints(axis)], x.kind, shape, keepdims=keep)
        else:
            op = self.rng.choice(("ReduceMax", "ReduceMin"))
            self._node(op, [x], x.kind, shape, axes=[axis], keepdims=keep)

    def _where(self) -> None:
        x = self._pick("fi")
        y = self._pick(x.kind, lambda v: v.shape == x.shape) if x else None
        test = self._pick("b", lambda v: _broadcast(v.shape, x.shape) == x.shape) if x else None
        if x and y:
            condition: Var | str = test or self._constant(np.asarray(self.rng.random() < 0.5))
            self._node("Where", [condition, x, y], x.kind, x.shape)

    def _shape_of(self) -> None:
        if x := self._pick():
            if self.rng.random() < 0.3:
                self._node("Size", [x], "i", ())
            else:
                self._node("Shape", [x], "i", (len(x.shape),))

    def _constant_value(self) -> None:
        kind, shape = self.rng.choice("fib"), self._shape()
        name = self._constant(self._array(kind, shape))
        self.scope.values.append(Var(name, kind, shape))

    def _filled(self) -> None:
        if x := self._pick():
            shape = self._node("Shape", [x], "i", (len(x.shape),))
            value = helper.make_tensor(
                "value", TensorProto.FLOAT, [1], [self.rng.choice((0.0, 1.0))]
            )
            self._node("ConstantOfShape", [shape], "f", x.shape, value=value)

    def _matmul(self) -> None:
        if x := self._pick("f", lambda v: len(v.shape) == 2 and 0 not in v.shape):
            w = self._constant(self._array("f", (x.shape[1], 2)))
            y = self._node("MatMul", [x, w], "f", (x.shape[0], 2))
            b = self._constant(self._array("f", (2,)))
            self._node("Add", [y, b], "f", y.shape)

    def _pad(self) -> None:
        if x := self._pick("f", lambda v: len(v.shape) in (1, 2)):
            pads = [self.rng.choice((0, 0, 1)) for _ in range(2 * len(x.shape))]
            half = len(x.shape)
            shape = tuple(d + pads[i] + pads[i + half] for i, d in enumerate(x.shape))
            self._node("Pad", [x, self._ints(*pads)], "f", shape)

    # control flow

    def _branch(self, captured: list[Var], steps: int) -> tuple[Scope, list[Var]]:
        """A nested scope that sees *captured*; returns it with the values it made."""
        outer, self.scope = self.scope, Scope(values=list(captured))
        self.depth += 1
        for _ in range(steps):
            self._step()
        self.depth -= 1
        inner, self.scope = self.scope, outer
        return inner, [v for v in inner.values if v not in captured]

    def _result(self, scope: Scope, like: Var, made: list[Var]) -> str:
        """A value made in *scope* of *like*'s kind and shape."""
        fits = [
            v for v in made if v.kind == like.kind and v.shape == like.shape and v.name[0] == "v"
        ]
        if fits and self.rng.random() < 0.8:
            return self.rng.choice(fits).name
        name = self._name()
        scope.nodes.append(helper.make_node("Identity", [like.name], [name]))
        return name

    def _if(self) -> None:
        like = [v for _ in range(self.rng.randint(1, 2)) if (v := self._pick())]
        if not like:
            return
        condition = self._pick("b", lambda v: v.shape == ())
        if condition is None or self.rng.random() < 0.4:
            name = self._constant(np.asarray(self.rng.random() < 0.5))
        else:
            name = condition.name
        graphs = []
        for title in ("then", "else"):
            scope, made = self._branch(self.scope.values, self.rng.randint(0, 3))
            results = [self._result(scope, v, made) for v in like]
            if len(set(results)) < len(results):
                extra = self._name()
                scope.nodes.append(helper.make_node("Identity", [results[-1]], [extra]))
                results[-1] = extra
            outputs = [
                helper.make_tensor_value_info(n, TYPES[v.kind], None)
                for n, v in zip(results, like, strict=True)
            ]
            graphs.append(helper.make_graph(scope.nodes, title, [], outputs, scope.initializers))
        results_ = [Var(self._name(), v.kind, v.shape) for v in like]
        self.scope.nodes.append(
            helper.make_node(
                "If",
                [name],
                [v.name for v in results_],
                then_branch=graphs[0],
                else_branch=graphs[1],
            )
        )
        self.scope.values += results_

    def _loop(self) -> None:
        start = [v for _ in range(self.rng.randint(0, 2)) if (v := self._pick())]
        trips = self.rng.choice((0, 1, 1, 2, 3))
        trip_name = self._constant(np.asarray(trips, dtype=np.int64))
        condition = self.rng.choice(("", self._constant(np.asarray(True))))
        iteration, test = Var(self._name("it"), "i", ()), Var(self._name("ok"), "b", ())
        carried = [Var(self._name("k"), v.kind, v.shape) for v in start]
        formal = [iteration, test, *carried]
        scope, made = self._branch([*self.scope.values, *formal], self.rng.randint(0, 3))
        going = self._name()
        scope.nodes.append(helper.make_node("Identity", [test.name], [going]))
        results = [self._result(scope, v, [m for m in made]) for v in carried]
        for i, name in enumerate(results):
            if name in results[:i]:
                results[i] = self._name()
                scope.nodes.append(helper.make_node("Identity", [name], [results[i]]))
        scans = (
            [v for v in made if v.name[0] == "v" and v.name not in results][:1] if trips else []
        )
        outputs = [helper.make_tensor_value_info(going, TensorProto.BOOL, [])]
        outputs += [
            helper.make_tensor_value_info(n, TYPES[v.kind], None)
            for n, v in zip(results, carried, strict=True)
        ]
        outputs += [helper.make_tensor_value_info(v.name, TYPES[v.kind], None) for v in scans]
        inputs = [
            helper.make_tensor_value_info(v.name, TYPES[v.kind], [] if i < 2 else None)
            for i, v in enumerate(formal)
        ]
        body = helper.make_graph(scope.nodes, "body", inputs, outputs, scope.initializers)
        results_ = [Var(self._name(), v.kind, v.shape) for v in start]
        results_ += [Var(self._name(), v.kind, (trips, *v.shape)) for v in scans]
        if not results_:
            return
        names = [v.name for v in start]
        self.scope.nodes.append(
            helper.make_node(
                "Loop", [trip_name, condition, *names], [v.name for v in results_], body=body
            )
        )
        self.scope.values += results_

    def _scan(self) -> None:
        first = self._pick(test=lambda v: len(v.shape) > 0 and v.shape[0] > 0)
        if first is None:
            return
        turns = first.shape[0]
        second = self._pick(test=lambda v: len(v.shape) > 0 and v.shape[0] == turns)
        sequences = [first, *([second] if second and self.rng.random() < 0.5 else [])]
        start = [v for _ in range(self.rng.randint(0, 2)) if (v := self._pick())]
        carried = [Var(self._name("k"), v.kind, v.shape) for v in start]
        slices = [Var(self._name("s"), v.kind, v.shape[1:]) for v in sequences]
        formal = [*carried, *slices]
        scope, made = self._branch([*self.scope.values, *formal], self.rng.randint(0, 3))
        results = [self._result(scope, v, list(made)) for v in carried]
        for i, name in enumerate(results):
            if name in results[:i]:
                results[i] = self._name()
                scope.nodes.append(helper.make_node("Identity", [name], [results[i]]))
        scans = [v for v in made if v.name[0] == "v" and v.name not in results][:2]
        kinds = [*carried, *scans]
        if not kinds:
            return
        names = [*results, *(v.name for v in scans)]
        outputs = [
            helper.make_tensor_value_info(n, TYPES[v.kind], v.shape)
            for n, v in zip(names, kinds, strict=True)
        ]
        inputs = [helper.make_tensor_value_info(v.name, TYPES[v.kind], v.shape) for v in formal]
        body = helper.make_graph(scope.nodes, "body", inputs, outputs, scope.initializers)
        results_ = [Var(self._name(), v.kind, v.shape) for v in start]
        results_ += [Var(self._name(), v.kind, (turns, *v.shape)) for v in scans]
        directions = [self.rng.randint(0, 1) for _ in sequences]
        self.scope.nodes.append(
            helper.make_node(
                "Scan",
                [v.name for v in (*start, *sequences)],
                [v.name for v in results_],
                body=body,
                num_scan_inputs=len(sequences),
                scan_input_directions=directions,
            )
        )
        self.scope.values += results_


def _open_output(value: Var) -> onnx.ValueInfoProto:
    """An output declared with its rank only."""
    dims = [f"{value.name}_{i}" for i in range(len(value.shape))]
    return helper.make_tensor_value_info(value.name, TYPES[value.kind], dims)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return tuple(np.broadcast_shapes(a, b))
    except ValueError:
        return None


def _cut(items: range, start: int, end: int, step: int) -> range:
    size = len(items)
    if step > 0:
        return items[min(max(start + size if start < 0 else start, 0), size) : min(
            max(end + size if end < 0 else end, 0), size) : step]  # fmt: skip
    first = min(max(start + size if start < 0 else start, -1), size - 1)
    last = min(max(end + size if end < 0 else end, -1), size - 1)
    return range(first, last, step)


def random_model(seed: int, size: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A valid model of about *size* operators and feeds for it."""
    return Builder(seed, size).model()
