"""Statements of generated C++, as data: lines with a comment, and blocks with lines inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Line:
    """One statement; *note* goes above it as a comment."""

    text: str
    note: str = ""


@dataclass
class Block:
    """``head { … }``, with an optional second arm ``else { … }``."""

    head: str
    body: list[Statement]
    note: str = ""
    other: list[Statement] = field(default_factory=list["Statement"])
    has_other: bool = False


Statement = Line | Block

WIDTH = 100
CONTINUATION = 4


def render(statements: list[Statement], indent: int = 2) -> str:
    """The statements as text, indented and wrapped."""
    out: list[str] = []
    for s in statements:
        pad = " " * indent
        if s.note:
            out.append(f"{pad}// {s.note}")
        if isinstance(s, Line):
            out.append(wrap(s.text, indent))
            continue
        out.append(f"{pad}{s.head} {{")
        out.append(render(s.body, indent + 2))
        if s.has_other:
            out.append(f"{pad}}} else {{")
            out.append(render(s.other, indent + 2))
        out.append(f"{pad}}}")
    return "\n".join(line for line in out if line)


def wrap(text: str, indent: int) -> str:
    """Break long statements after commas: those of the outermost call first, deeper ones only in
    an argument that does not fit a line. Continuation lines are indented by four more."""
    lines: list[str] = []
    for part in text.split("\n"):
        inner = len(part) - len(part.lstrip())
        lines += _fill(part.strip(), indent + inner)
    return "\n".join(lines)


def _fill(text: str, indent: int) -> list[str]:
    """*text* on as few lines of WIDTH as its break points allow."""
    room = WIDTH - indent - CONTINUATION
    lines: list[str] = []
    line = " " * indent
    for piece in _pieces(text, room):
        if len(line) + len(piece.rstrip()) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * (indent + CONTINUATION) + piece
        else:
            line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str, room: int) -> list[str]:
    """Text cut at its shallowest break points; a piece longer than *room* is cut deeper."""
    cuts = _break_points(text)
    depths = {depth for _, depth in cuts} or {0}
    deepest = max(depths)

    def split(start: int, end: int, level: int) -> list[str]:
        if end - start <= room or level > deepest:
            return [text[start:end]]
        edges = [start, *(at for at, depth in cuts if start < at < end and depth == level), end]
        found: list[str] = []
        for first, last in pairwise(edges):
            found += split(first, last, level + 1)
        return found

    return split(0, len(text), min(depths))  # below 0 after the brace that closes a lambda


def _break_points(text: str) -> list[tuple[int, int]]:
    """Places after ``, `` and `` = `` with the number of brackets open there.

    An angle bracket counts where it touches a name, as template arguments do; comparisons have
    spaces around theirs. It counts twice: template arguments stay together before those of a call do.
    """
    depth = angles = 0
    found: list[tuple[int, int]] = []
    for before, (i, char) in zip(" " + text, enumerate(text), strict=False):
        depth += (char in "([{") - (char in ")]}")
        if char == "<" and before.isalnum():
            angles += 1
        elif char == ">" and angles and before != " ":
            angles -= 1
        elif char == " " and before in ",=" and i + 1 < len(text):
            found.append((i + 1, depth + 2 * angles))
    return found
