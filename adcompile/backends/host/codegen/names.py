"""Identifiers and comments from a model's names: whatever a model says, it stays data.

A name reaches generated C++ only through :class:`Namer` (letters, digits, single underscores) or
:func:`comment` (a small set of printable ASCII that cannot end a comment or continue a line).
"""

from __future__ import annotations

import re

MAX_IDENTIFIER = 48
MAX_COMMENT = 94


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYWORDS = _words(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class compl concept const consteval constexpr constinit const_cast continue
    co_await co_return co_yield decltype default delete do double dynamic_cast else enum
    explicit export extern false float for friend goto if inline int long mutable namespace new
    noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast requires return short signed sizeof static static_assert static_cast struct
    switch template this thread_local throw true try typedef typeid typename union unsigned
    using virtual void volatile wchar_t while xor xor_eq import module final override linux unix
    errno assert stdin stdout stderr NULL EOF main signbit isnan isinf"""
)
# Names that generated code itself uses; a value of the model must not shadow them.
_OURS = _words(
    """adc op math std parts ws in out input_ports output_ports make kMaxRank
    resources_ workspace_ kNoLimit"""
)
_SUFFIX = re.compile(r"_output_0$")
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
_COMMENT_UNSAFE = re.compile(r"[^A-Za-z0-9_./:,;()\[\]+= -]")


def identifier(name: str, prefix: str = "v") -> str:
    """A valid C++ identifier that resembles *name*; not yet unique."""
    text = _UNSAFE.sub("_", _SUFFIX.sub("", name)).strip("_")
    if len(text) > MAX_IDENTIFIER:
        # The end says most; it starts at a whole word when there is one.
        tail = text[-MAX_IDENTIFIER:]
        text = (tail.partition("_")[2] or tail) if text[-MAX_IDENTIFIER - 1] != "_" else tail
    # A capital first letter would read like a type.
    text = text[:1].lower() + text[1:]
    if not text:
        return prefix
    if text[0].isdigit() or text in _KEYWORDS or text in _OURS:
        return f"{prefix}_{text}"
    return text


class Namer:
    """Gives each key one identifier; a collision gets a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def unique(self, name: str, prefix: str = "v") -> str:
        """A fresh identifier for *name*. Names that differ only in case are kept apart too."""
        base = identifier(name, prefix)
        count = self._taken.get(base.casefold(), 0) + 1
        self._taken[base.casefold()] = count
        if count == 1 and base not in _KEYWORDS and base not in _OURS:
            return base
        candidate = f"{base}_n{count}"
        while candidate.casefold() in self._taken:
            count += 1
            candidate = f"{base}_n{count}"
        self._taken[base.casefold()] = count
        self._taken[candidate.casefold()] = 1
        return candidate


def comment(text: str) -> str:
    """*text* for a ``//`` comment: harmless characters only, bounded length."""
    clean = _COMMENT_UNSAFE.sub("_", text)  # not "?": two of them start a trigraph
    if len(clean) > MAX_COMMENT:
        clean = "..." + clean[-(MAX_COMMENT - 3) :]
    return clean


def type_name(name: str) -> str:
    """A class name (``Host0Part``) for a part name (``host_0``)."""
    words = [w for w in _UNSAFE.sub("_", name).split("_") if w]
    text = "".join(w[0].upper() + w[1:] for w in words) + "Part"
    return f"P{text}" if text[0].isdigit() else text
