"""Pass options as text: ``name{key=value,key=[a,b]}``, printed and parsed without loss.

Values are bare words, JSON strings in double quotes, or lists in square brackets. The fields of the
pass's dataclass say what is allowed: bool, int, float, str, and tuples of them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import TypeVar, get_args, get_origin, get_type_hints

from adcompile.errors import UsageError
from adcompile.interfaces import Pass

_BARE = re.compile(r"[A-Za-z0-9_./:+*-]+")
_SPACE = re.compile(r"\s*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')

P = TypeVar("P", bound=Pass)


class Reader:
    """Walks over pipeline text; every complaint shows the place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def skip(self) -> None:
        """Pass over white space."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position

    def peek(self) -> str:
        """The next character, "" at the end."""
        self.skip()
        return self.text[self.position : self.position + 1]

    def take(self, char: str) -> bool:
        """Consume *char* when it comes next."""
        if char and self.peek() == char:
            self.position += 1
            return True
        return False

    def expect(self, char: str) -> None:
        """Consume *char* or complain."""
        if not self.take(char):
            raise self.error(f"expected {char!r}")

    def word(self, what: str) -> str:
        """A bare word or a quoted string."""
        self.skip()
        quoted = _STRING.match(self.text, self.position)
        if quoted:
            self.position = quoted.end()
            try:
                return str(json.loads(quoted.group()))
            except ValueError as error:
                raise self.error("bad string") from error
        bare = _BARE.match(self.text, self.position)
        if not bare:
            raise self.error(f"expected {what}")
        self.position = bare.end()
        return bare.group()

    def error(self, why: str) -> UsageError:
        """A UsageError that points at the current place."""
        shown = self.text[self.position : self.position + 20]
        return UsageError(
            "cannot read the pipeline",
            where=f"position {self.position}, at {shown!r}",
            why=why,
            fix='write passes as name,name{key=value},(name,name)*; quote odd values with "',
        )


def read_options(reader: Reader) -> dict[str, str | list[str]]:
    """The ``{key=value,…}`` after a pass name; empty when there is none."""
    found: dict[str, str | list[str]] = {}
    if not reader.take("{"):
        return found
    while not reader.take("}"):
        key = reader.word("an option name")
        reader.expect("=")
        if key in found:
            raise reader.error(f"option {key} is given twice")
        found[key] = _read_list(reader) if reader.peek() == "[" else reader.word("a value")
        if not reader.take(",") and reader.peek() != "}":
            raise reader.error("expected ',' or '}'")
    return found


def _read_list(reader: Reader) -> list[str]:
    reader.expect("[")
    items: list[str] = []
    while not reader.take("]"):
        items.append(reader.word("a list item"))
        if not reader.take(",") and reader.peek() != "]":
            raise reader.error("expected ',' or ']'")
    return items


def make_pass(kind: type[P], options: Mapping[str, str | list[str]]) -> P:
    """Build a pass from option texts. An unknown key or a wrong value is a UsageError."""
    if not dataclasses.is_dataclass(kind):
        raise UsageError("not a pass", where=repr(kind), why="a pass is a frozen dataclass")
    hints = get_type_hints(kind)
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    title = kind.name
    values: dict[str, object] = {}
    for key, text in options.items():
        field = fields.get(key)
        if field is None:
            known = ", ".join(sorted(fields)) or "it has no options"
            raise UsageError(f"pass {title} has no option {key!r}", fix=f"known: {known}")
        values[field.name] = _convert(text, hints[field.name], f"{title}{{{key}}}")
    missing = [
        key
        for key, f in fields.items()
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"pass {title} needs {', '.join(missing)}")
    build: Callable[..., P] = kind
    return build(**values)


def _convert(text: str | list[str], kind: object, where: str) -> object:
    if get_origin(kind) is tuple:
        if isinstance(text, str):
            raise UsageError("expected a list in square brackets", where=where)
        return tuple(_convert(item, get_args(kind)[0], where) for item in text)
    if isinstance(text, list):
        raise UsageError("expected one value, not a list", where=where)
    converter = _CONVERTERS.get(kind)
    if converter is None:
        raise UsageError("option of this type cannot be written as text", where=where)
    try:
        return converter(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not {getattr(kind, '__name__', kind)}", where=where
        ) from error


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_CONVERTERS: Mapping[object, Callable[[str], object]] = {
    bool: _bool,
    int: int,
    float: float,
    str: str,
}


def print_pass(each: Pass) -> str:
    """The text that :func:`make_pass` reads back; options at their default are left out."""
    parts: list[str] = []
    if dataclasses.is_dataclass(each):
        for field in dataclasses.fields(each):
            value: object = getattr(each, field.name)
            default: object = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if value != default or type(value) is not type(default):
                parts.append(f"{field.name.replace('_', '-')}={_print(value)}")
    return f"{each.name}{{{','.join(parts)}}}" if parts else each.name


def _print(value: object) -> str:
    if isinstance(value, tuple):
        items: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return "[" + ",".join(_print(item) for item in items) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)
