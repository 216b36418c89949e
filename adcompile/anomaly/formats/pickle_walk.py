"""Reads a pickle as data, without importing or calling anything it names.

A pickle is a program for a small stack machine. This walks that program itself: numbers, texts and
containers become Python values, and whatever would import or call becomes a plain description
(:class:`Named`, :class:`Made`). Tensors and omegaconf objects are recognised from their
descriptions; anything else stays a description and does no harm.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from adcompile.errors import FormatError

MAX_BYTES = 64 << 20
MAX_STEPS = 4_000_000


@dataclass(frozen=True, slots=True)
class Named:
    """A reference to something by module and name. Never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What a call or construction would have made: the callee, its arguments, its state."""

    of: object
    args: tuple[object, ...] = ()
    state: object = None
    items: list[object] = field(default_factory=list[object])
    pairs: dict[object, object] = field(default_factory=dict[object, object])


@dataclass(frozen=True, slots=True)
class Persistent:
    """A reference to data kept outside the pickle (torch keeps its storages so)."""

    key: object


class _Mark:
    pass


_MARK = _Mark()

_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENT = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
        "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip


class _Walker:
    """One pass over the opcodes; ``stack`` ends with exactly the value."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def walk(self, data: bytes) -> object:
        steps = 0
        try:
            for code, argument, _ in pickletools.genops(data):
                steps += 1
                if steps > MAX_STEPS:
                    raise self.bad("too many steps")
                if code.name == "STOP":
                    return self.stack[-1]
                self.step(code.name, argument)
        except (
            IndexError,
            KeyError,
            ValueError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise self.bad(str(error) or type(error).__name__) from error
        raise self.bad("it does not end")

    def bad(self, why: str) -> FormatError:
        return FormatError("the pickle inside the file is damaged", where=self.where, why=why)

    def step(self, name: str, argument: object) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ARGUMENT:
            self.stack.append(argument)
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise self.bad(f"opcode {name} is not used by torch checkpoints")
            action(self, argument)

    def to_mark(self) -> list[object]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise self.bad("mark not found")
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken

    def pop(self) -> object:
        value = self.stack.pop()
        if value is _MARK:
            raise self.bad("unexpected mark")
        return value


def _hashable(value: object) -> object:
    try:
        hash(value)
    except TypeError:
        return repr(type(value))
    return value


def _append(target: object, values: list[object]) -> None:
    if isinstance(target, list):
        target.extend(values)  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(target, Made):
        target.items.extend(values)
    else:
        raise ValueError("append to something that is no list")


def _set_items(target: object, flat: list[object]) -> None:
    pairs = {_hashable(k): v for k, v in zip(flat[::2], flat[1::2], strict=True)}
    if isinstance(target, dict):
        target.update(pairs)  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(target, Made):
        target.pairs.update(pairs)
    else:
        raise ValueError("items set on something that is no mapping")


def _global(w: _Walker, argument: object) -> None:
    module, _, name = str(argument).partition(" ")
    w.stack.append(Named(module, name))


def _stack_global(w: _Walker, argument: object) -> None:
    name, module = w.pop(), w.pop()
    w.stack.append(Named(str(module), str(name)))


def _call(w: _Walker, argument: object) -> None:
    args, callee = w.pop(), w.pop()
    if not isinstance(args, tuple):
        raise ValueError("call without argument tuple")
    w.stack.append(Made(callee, cast("tuple[object, ...]", args)))


def _call_keywords(w: _Walker, argument: object) -> None:
    keywords, args, callee = w.pop(), w.pop(), w.pop()
    if not isinstance(args, tuple):
        raise ValueError("call without argument tuple")
    w.stack.append(Made(callee, cast("tuple[object, ...]", args), state=keywords))


def _build(w: _Walker, argument: object) -> None:
    state = w.pop()
    target = w.stack[-1]
    if isinstance(target, Made):
        target.state = state


def _tuple(count: int) -> Callable[[_Walker, object], None]:
    def make(w: _Walker, argument: object) -> None:
        taken = [w.pop() for _ in range(count)]
        w.stack.append(tuple(reversed(taken)))

    return make


def _put(w: _Walker, argument: object) -> None:
    w.memo[int(str(argument))] = w.stack[-1]


def _get(w: _Walker, argument: object) -> None:
    w.stack.append(w.memo[int(str(argument))])


def _memoize(w: _Walker, argument: object) -> None:
    w.memo[len(w.memo)] = w.stack[-1]


def _append_one(w: _Walker, argument: object) -> None:
    value = w.pop()
    _append(w.stack[-1], [value])


def _append_many(w: _Walker, argument: object) -> None:
    values = w.to_mark()
    _append(w.stack[-1], values)


def _set_one(w: _Walker, argument: object) -> None:
    value, key = w.pop(), w.pop()
    _set_items(w.stack[-1], [key, value])


def _set_many(w: _Walker, argument: object) -> None:
    flat = w.to_mark()
    _set_items(w.stack[-1], flat)


def _dict(w: _Walker, argument: object) -> None:
    made: dict[object, object] = {}
    _set_items(made, w.to_mark())
    w.stack.append(made)


def _drop(w: _Walker, argument: object) -> None:
    w.stack.pop()


def _drop_to_mark(w: _Walker, argument: object) -> None:
    w.to_mark()


def _nothing(w: _Walker, argument: object) -> None:
    return


_ACTIONS: dict[str, Callable[[_Walker, object], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": lambda w, a: w.stack.append(_MARK),
    "POP": _drop,
    "POP_MARK": _drop_to_mark,
    "EMPTY_TUPLE": lambda w, a: w.stack.append(()),
    "TUPLE": lambda w, a: w.stack.append(tuple(w.to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "EMPTY_LIST": lambda w, a: w.stack.append([]),
    "LIST": lambda w, a: w.stack.append(w.to_mark()),
    "APPEND": _append_one,
    "APPENDS": _append_many,
    "EMPTY_DICT": lambda w, a: w.stack.append({}),
    "DICT": _dict,
    "SETITEM": _set_one,
    "SETITEMS": _set_many,
    "EMPTY_SET": lambda w, a: w.stack.append([]),
    "ADDITEMS": _append_many,
    "FROZENSET": lambda w, a: w.stack.append(w.to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_keywords,
    "BUILD": _build,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "PUT": _put,
    "MEMOIZE": _memoize,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GET": _get,
    "BINPERSID": lambda w, a: w.stack.append(Persistent(w.pop())),
}


def walk_pickle(data: bytes, where: str) -> object:
    """The value a pickle describes; FormatError when it is damaged, too large or odd."""
    if len(data) > MAX_BYTES:
        raise FormatError(
            "the pickle inside the file is too large",
            where=where,
            why=f"{len(data)} bytes, limit {MAX_BYTES}",
        )
    return _Walker(where).walk(data)
