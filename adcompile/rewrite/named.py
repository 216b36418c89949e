"""Every name that a report, a manifest or ``--allow`` can hold, and what stands behind it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from adcompile import registry
from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Pass
from adcompile.rewrite.pipeline import known_passes, rules_of
from adcompile.rewrite.rules import Rule


@dataclass(frozen=True)
class Named:
    """What a name means.

    ``kind`` is ``rule``, ``pass``, ``step`` (of a pass) or ``lowering``; ``holder`` the pass or the
    target family it belongs to. ``rule`` and ``owner`` (the class of the pass) are what can be tried
    on a model: a lowering has neither.
    """

    name: str
    kind: str
    holder: str
    exactness: Exactness
    summary: str
    detail: str = ""
    rule: Rule | None = None
    owner: type[Pass] | None = None

    @property
    def place(self) -> str:
        """Kind and holder in words."""
        words = {"rule": "rule of pass", "step": "step of pass", "lowering": "lowering for"}
        return "pass" if self.kind == "pass" else f"{words[self.kind]} {self.holder}"


def named() -> dict[str, Named]:
    """All of them by name. A rule of two passes is listed under the first; a name that several
    target families use names them all."""
    found: dict[str, Named] = {}
    for each in (*_of_passes(), *_of_lowering()):
        found.setdefault(each.name, each)
    return found


def find_named(name: str) -> Named:
    """What *name* stands for; UsageError with the closest names."""
    known = named()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = "did you mean " + ", ".join(near) + "?" if near else ""
        raise UsageError(
            f"no rule or pass {name!r}", fix=hint or "adcompile list rules, adcompile list passes"
        )
    return known[name]


def _of_passes() -> Iterator[Named]:
    for name, kind in sorted(known_passes().items()):
        for rule in rules_of(kind):
            doc = inspect.getdoc(rule.build) or ""
            yield Named(
                rule.name, "rule", name, rule.exactness, rule.summary, doc, rule=rule, owner=kind
            )
        for step, what in kind.steps.items():
            yield Named(step, "step", name, kind.exactness, what, owner=kind)
        doc = inspect.getdoc(kind) or ""
        yield Named(name, "pass", name, kind.exactness, kind.summary, doc, owner=kind)


def _of_lowering() -> Iterator[Named]:
    """From the module ``lowering`` beside each registered backend, where it lists its rewrites."""
    families: dict[str, list[str]] = {}
    facts: dict[str, tuple[Exactness, str]] = {}
    for family, reference in registry.BACKENDS.names().items():
        table = registry.beside(reference, "lowering:REWRITES")
        if table is None:
            continue  # a family that lowers nothing itself
        for name, fact in cast("Mapping[str, tuple[Exactness, str]]", table).items():
            families.setdefault(name, []).append(family)
            facts.setdefault(name, fact)
    for name, owners in sorted(families.items()):
        exactness, what = facts[name]
        yield Named(name, "lowering", ", ".join(owners), exactness, what)
