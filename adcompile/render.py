"""Templates to text: jinja2 with undefined names as errors, and one quoting filter per language.

Templates hold structure only. Values arrive ready; anything that comes from a model passes through
``c_identifier``, ``c_string``, ``sh_quote``, ``py_literal`` or ``json`` on its way into text.
"""

from __future__ import annotations

import functools
import json
import keyword
import re
import shlex
from collections.abc import Callable, Mapping

import jinja2

from adcompile.errors import UsageError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_C_WORDS = _words(
    """alignas alignof and asm auto bool break case catch char class const constexpr continue
    decltype default delete do double else enum explicit export extern false float for friend
    goto if inline int long mutable namespace new noexcept not nullptr operator or private
    protected public register return short signed sizeof static struct switch template this
    throw true try typedef typename union unsigned using virtual void volatile while xor"""
)


def c_identifier(text: object) -> str:
    """A legal C++ identifier made from *text*: other characters become ``_``.

    Distinct texts may collide.
    """
    name = re.sub(r"[^0-9A-Za-z]+", "_", str(text)).strip("_")
    if not name or name[0].isdigit():
        name = f"n{name}" if not name else f"n_{name}"
    return f"{name}_" if name in _C_WORDS or keyword.iskeyword(name) else name


def c_string(text: object) -> str:
    """A C string literal; everything but plain printable ASCII is written as an octal escape."""
    out: list[str] = []
    for byte in str(text).encode("utf-8"):
        char = chr(byte)
        if char in '"\\?' or not 32 <= byte < 127:
            out.append(f"\\{byte:03o}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def sh_quote(text: object) -> str:
    """One word of a POSIX shell command line. Control characters are refused."""
    word = str(text)
    if any(ord(c) < 32 or ord(c) == 127 for c in word):
        raise UsageError("control character in a shell word", where=repr(word))
    return shlex.quote(word)


def py_literal(value: object) -> str:
    """A Python literal of plain data: numbers, text, None, lists, tuples, dicts."""
    if isinstance(value, dict):
        items: list[tuple[object, object]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        inside = ", ".join(f"{py_literal(k)}: {py_literal(v)}" for k, v in items)
        return "{" + inside + "}"
    if isinstance(value, (list, tuple)):
        parts = [py_literal(x) for x in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if isinstance(value, tuple):
            return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"
        return "[" + ", ".join(parts) + "]"
    if value is None or isinstance(value, (bool, int, float, str)):
        return ascii(value)
    raise UsageError("not plain data", where=type(value).__name__)


def to_json(value: object) -> str:
    """Indented JSON with sorted keys; NaN and infinity are refused."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False)


def one_line(text: object) -> str:
    """Text for a comment or a table cell: control characters and line ends become spaces."""
    flat = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in str(text))
    return flat.replace("\u2028", " ").replace("\u2029", " ").replace("*/", "* /")


_FILTERS: Mapping[str, Callable[[object], str]] = {
    "c_identifier": c_identifier,
    "c_string": c_string,
    "sh_quote": sh_quote,
    "py_literal": py_literal,
    "json": to_json,
    "one_line": one_line,
}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("adcompile", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FILTERS)
    return environment


@functools.cache
def _pages() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("adcompile", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,  # HTML: text from a model or a file name is never markup
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(template: str, values: Mapping[str, object]) -> str:
    """Render an HTML page of ``adcompile/templates``; values are escaped."""
    return _pages().get_template(template).render(dict(values))


def render(template: str, values: Mapping[str, object]) -> str:
    """Render ``adcompile/templates/<template>``. A name the values lack is an error."""
    try:
        return _environment().get_template(template).render(dict(values))
    except jinja2.UndefinedError as error:
        raise UsageError(
            "a template needs a value it was not given", where=template, why=str(error)
        ) from error
