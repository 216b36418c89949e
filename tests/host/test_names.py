"""Text of a model never becomes code: identifiers, comments and literals hold for any input."""

from __future__ import annotations

import re
import struct

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcompile.backends.host.codegen.literals import index, number
from adcompile.backends.host.codegen.names import (
    MAX_COMMENT,
    Namer,
    comment,
    identifier,
    type_name,
)
from adcompile.backends.host.codegen.writer import cpp_string

ANY_TEXT = st.text(max_size=60)


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT)
def test_identifier_is_always_legal(text: str) -> None:
    """Letters, digits and single underscores, no keyword, no reserved form."""
    name = identifier(text)
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]*(_[a-zA-Z0-9]+)*", name)
    assert name not in {"if", "for", "class", "std", "op", "ws", "in", "out"}


@settings(deadline=None, max_examples=40)
@given(st.lists(ANY_TEXT, max_size=12))
def test_namer_never_repeats(texts: list[str]) -> None:
    """Different values get different identifiers, even where case is ignored."""
    namer = Namer()
    names = [namer.unique(t) for t in [*texts, *texts]]
    assert len({n.casefold() for n in names}) == len(names)


def test_numbered_names_do_not_collide_with_given_ones() -> None:
    """A model may hold the very name that numbering would make."""
    namer = Namer()
    names = [namer.unique(t) for t in ("x", "x_n2", "x", "x", "X")]
    assert len({n.casefold() for n in names}) == 5


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT)
def test_comment_stays_one_harmless_line(text: str) -> None:
    """No line break, no continuation, no comment end, no trigraph, bounded."""
    clean = comment(text)
    assert len(clean) <= MAX_COMMENT
    assert not set(clean) & set("\n\r\\*?\"'<>#")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30))
def test_cpp_string_reads_back(text: str) -> None:
    """The literal's bytes are the text's bytes."""
    body = cpp_string(text)
    assert re.fullmatch(r"(?:[ -!#-\[\]-~]|\\[0-7]{3})*", body)
    assert "?" not in body
    plain = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), body)
    assert plain.encode("latin-1") == text.encode("utf-8", "surrogatepass")


@settings(deadline=None, max_examples=80)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_literal_keeps_every_bit(value: float) -> None:
    """Shortest decimal text, read as float, gives the same bits."""
    text = number(np.float32(value), ir.DataType.FLOAT)
    assert text.endswith("f")
    assert struct.pack("f", np.float32(text[:-1])) == struct.pack("f", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-(2**63), "std::numeric_limits<Index>::min()"),
        (2**63 - 1, "kNoLimit"),
        (-1, "-1"),
        (2**40, "1099511627776ll"),
    ],
)
def test_index_literals(value: int, text: str) -> None:
    """The extremes have no decimal literal in C++."""
    assert index(value) == text


def test_part_types_cannot_shadow_the_library() -> None:
    """A part called `shape` does not become the class Shape."""
    assert type_name("shape") == "ShapePart"
    assert type_name("0 bad") == "P0BadPart"
