"""Statements of generated C++, as data: lines with a comment, and blocks with lines inside."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """Break a long statement after commas, continuation lines indented by six more."""
    pad = " " * indent
    if "\n" in text:
        return "\n".join(pad + line if line else line for line in text.split("\n"))
    lines: list[str] = []
    line = pad
    for piece in _pieces(text):
        if len(line) + len(piece.rstrip()) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * (indent + 6) + piece
        else:
            line += piece
    lines.append(line.rstrip())
    return "\n".join(lines)


def _pieces(text: str) -> list[str]:
    """Text cut after every comma-space and every ``= ``."""
    pieces: list[str] = []
    start = 0
    for i in range(1, len(text)):
        if text[i - 1] == " " and text[i - 2] in ",=" and i > start:
            pieces.append(text[start:i])
            start = i
    pieces.append(text[start:])
    return pieces
