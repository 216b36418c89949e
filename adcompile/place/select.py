"""How a user names nodes: ``name:NODE``, ``op:TYPE``, ``re:REGEX``, ``role:ROLE``, a bare word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.ir.graph import provenance

MAX_REGEX = 500


def matches(
    nodes: Sequence[ir.Node],
    selectors: Sequence[str],
    roles: Mapping[str, set[int]],
) -> set[int]:
    """Positions of the nodes that any selector names. One that names nothing is a UsageError.

    Names are those of the node or of the source nodes it was made from; *roles* maps what a part is
    ("mask_head") to positions. A bare word is a node name if there is one, else an op type.
    """
    found: set[int] = set()
    for selector in selectors:
        kind, _, word = selector.partition(":")
        places = roles.get(word, set()) if kind == "role" else _select(nodes, selector)
        if not places:
            raise UsageError(f"selector {selector!r} names no node", fix=_hint(nodes, selector))
        found |= places
    return found


def _select(nodes: Sequence[ir.Node], selector: str) -> set[int]:
    kind, colon, word = selector.partition(":")
    if colon and kind == "name":
        return _named(nodes, word)
    if colon and kind == "op":
        return {i for i, node in enumerate(nodes) if node.op_type == word}
    if colon and kind == "re":
        return _by_regex(nodes, word)
    return _named(nodes, selector) or {
        i for i, node in enumerate(nodes) if node.op_type == selector
    }


def _named(nodes: Sequence[ir.Node], name: str) -> set[int]:
    own = {i for i, node in enumerate(nodes) if node.name == name}
    return own or {i for i, node in enumerate(nodes) if name in provenance(node)}


def _by_regex(nodes: Sequence[ir.Node], text: str) -> set[int]:
    if len(text) > MAX_REGEX:
        raise UsageError("regular expression too long", why=f"over {MAX_REGEX} characters")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(
            f"not a regular expression: {text!r}", why=str(error), fix="see Python's re module"
        ) from error
    return {
        i
        for i, node in enumerate(nodes)
        if any(pattern.search(name) for name in {node.name or "", *provenance(node)})
    }


def _hint(nodes: Sequence[ir.Node], selector: str) -> str:
    word = selector.partition(":")[2] or selector
    known = [n.name or "" for n in nodes] + sorted({n.op_type for n in nodes})
    near = difflib.get_close_matches(word, known, n=3)
    if near:
        return "did you mean " + ", ".join(near) + "?"
    return "use name:NODE, op:TYPE or re:REGEX; `adcompile check MODEL --all` lists nodes"
