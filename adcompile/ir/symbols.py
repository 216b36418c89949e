"""Integers that are only partly known: numbers, and symbols for dimensions met at run time.

A symbol stands for the same unknown number wherever it appears. Arithmetic builds further symbols;
equal expressions give the identical object, so ``is`` (and ``==``) decides equality. Symbols carry
a lower bound, because dimensions are never negative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

INT64 = 1 << 63


class Sym:
    """An unknown integer. Two are equal exactly when they are the same object."""

    __slots__ = ("key", "low")

    def __init__(self, key: tuple[object, ...], low: int | None) -> None:
        self.key = key
        self.low = low

    def __repr__(self) -> str:
        head, *rest = self.key
        return f"{head}({', '.join(str(getattr(r, 'name', r)) for r in rest)})"


Elem: TypeAlias = "int | Sym"


class Symbols:
    """Makes symbols and computes with them; one per analysis."""

    def __init__(self) -> None:
        self._table: dict[tuple[object, ...], Sym] = {}

    def make(self, key: tuple[object, ...], low: int | None = None) -> Sym:
        """The symbol for *key*; the same key gives the same symbol."""
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = Sym(key, low)
        return found

    def dim(self, owner: object, axis: int) -> Sym:
        """The unknown dimension *axis* of a value."""
        return self.make(("dim", owner, axis), 0)

    def add(self, a: Elem, b: Elem) -> Elem | None:
        """a + b; None when it leaves int64."""
        if isinstance(a, int) and isinstance(b, int):
            return fit(a + b)
        if a == 0 and isinstance(a, int):
            return b
        if b == 0 and isinstance(b, int):
            return a
        low = None if low_of(a) is None or low_of(b) is None else _low(a) + _low(b)
        return self.make(("add", *_sorted(a, b)), low)

    def sub(self, a: Elem, b: Elem) -> Elem | None:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return fit(a - b)
        if a is b:
            return 0
        if b == 0 and isinstance(b, int):
            return a
        return self.make(("sub", a, b))

    def mul(self, a: Elem, b: Elem) -> Elem | None:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return fit(a * b)
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one in (0, 1):
                return 0 if one == 0 else other
        a_low, b_low = low_of(a), low_of(b)
        positive = a_low is not None and b_low is not None and a_low >= 0 and b_low >= 0
        low = a_low * b_low if positive and a_low is not None and b_low is not None else None
        return self.make(("mul", *_sorted(a, b)), low)

    def div(self, a: Elem, b: Elem) -> Elem | None:
        """Integer division as ONNX does it: towards zero."""
        if isinstance(b, int) and b == 1:
            return a
        if isinstance(a, int) and isinstance(b, int):
            if b == 0:
                return None
            quotient = abs(a) // abs(b)
            return fit(quotient if (a < 0) == (b < 0) else -quotient)
        low = (
            0
            if isinstance(b, int) and b > 0 and (low_of(a) is not None and _low(a) >= 0)
            else None
        )
        return self.make(("div", a, b), low)

    def mod(self, a: Elem, b: Elem) -> Elem | None:
        """Remainder with the divisor's sign (ONNX Mod with fmod=0)."""
        if isinstance(a, int) and isinstance(b, int):
            return None if b == 0 else a % b
        if isinstance(b, int) and b == 1:
            return 0
        return self.make(("mod", a, b))

    def minimum(self, a: Elem, b: Elem) -> Elem | None:
        """The smaller one."""
        if a is b:
            return a
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        for number, other in ((a, b), (b, a)):
            if isinstance(number, int) and (low := low_of(other)) is not None and number <= low:
                return number
        low = None if low_of(a) is None or low_of(b) is None else min(_low(a), _low(b))
        return self.make(("min", *_sorted(a, b)), low)

    def maximum(self, a: Elem, b: Elem) -> Elem | None:
        """The larger one."""
        if a is b:
            return a
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        for number, other in ((a, b), (b, a)):
            if isinstance(number, int) and (low := low_of(other)) is not None and number <= low:
                return other
        lows = [low for low in (low_of(a), low_of(b)) if low is not None]
        return self.make(("max", *_sorted(a, b)), max(lows) if lows else None)


def low_of(a: Elem) -> int | None:
    """A number that *a* is never below; None when nothing is known."""
    return a if isinstance(a, int) else a.low


def _low(a: Elem) -> int:
    low = low_of(a)
    return 0 if low is None else low


def _sorted(a: Elem, b: Elem) -> tuple[Elem, Elem]:
    """A fixed order for the operands of a commutative operation."""
    if isinstance(a, int) or (isinstance(b, Sym) and id(a) > id(b)):
        return b, a
    return a, b


def fit(number: int) -> int | None:
    """*number* when int64 holds it, else None."""
    return number if -INT64 <= number < INT64 else None


def equal(a: Elem, b: Elem) -> int | None:
    """1 or 0 when it is known whether a == b."""
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    if a is b:
        return 1
    for number, other in ((a, b), (b, a)):
        if isinstance(number, int) and (low := low_of(other)) is not None and number < low:
            return 0
    return None


def less(a: Elem, b: Elem) -> int | None:
    """1 or 0 when it is known whether a < b."""
    if isinstance(a, int) and isinstance(b, int):
        return int(a < b)
    if a is b:
        return 0
    if isinstance(a, int) and (low := low_of(b)) is not None and a < low:
        return 1
    if isinstance(b, int) and (low := low_of(a)) is not None and b <= low:
        return 0
    return None


def not_(a: Elem) -> int | None:
    """Logical not of 0 or 1."""
    return 1 - a if isinstance(a, int) and a in (0, 1) else None


def both(a: Elem, b: Elem) -> int | None:
    """Logical and of 0/1 values; known when one is 0."""
    if (isinstance(a, int) and a == 0) or (isinstance(b, int) and b == 0):
        return 0
    return 1 if isinstance(a, int) and isinstance(b, int) else None


def either(a: Elem, b: Elem) -> int | None:
    """Logical or of 0/1 values; known when one is 1."""
    if (isinstance(a, int) and a == 1) or (isinstance(b, int) and b == 1):
        return 1
    return 0 if isinstance(a, int) and isinstance(b, int) else None


Binary: TypeAlias = Callable[[Elem, Elem], "Elem | None"]
