"""What differs between two bundles, as typed records: sections of changes, and what they come to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from adcompile.check.agreement import Row

Value = str | int | float | None
"""What a bundle says of a subject; None where it has no such thing."""

WORSE, BETTER = "worse", "better"


@dataclass(frozen=True, slots=True)
class Topic:
    """A kind of change. ``matters``: someone who runs the bundle can notice it."""

    title: str
    matters: bool


TOPICS: Mapping[str, Topic] = {  # in the order of a report: causes, effects, cost
    "model": Topic("Model and contract", True),
    "target": Topic("Target", True),
    "options": Topic("Options and data of the build", False),
    "rewrites": Topic("Rewrites", False),
    "placement": Topic("Placement: nodes that moved", True),
    "parts": Topic("Parts and boundaries", True),
    "precision": Topic("Precision, and nodes kept in float", True),
    "quantization": Topic("Quantization parameters", True),
    "bank": Topic("Banks, threshold and range", True),
    "accuracy": Topic("Accuracy and verification", True),
    "sizes": Topic("Files", False),
    "tools": Topic("Tool versions", False),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``ratio`` is new over old where that says more than the values.

    ``verdict`` is ``worse`` or ``better`` where one of both is; ``names`` are the nodes it is about.
    """

    subject: str
    old: Value
    new: Value
    note: str = ""
    ratio: float | None = None
    verdict: str = ""
    names: tuple[str, ...] = ()

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``; what does not apply is left out."""
        more: dict[str, object] = {
            "note": self.note,
            "ratio": self.ratio,
            "verdict": self.verdict,
            "names": list(self.names),
        }
        kept = {name: value for name, value in more.items() if value}
        return {"subject": self.subject, "old": self.old, "new": self.new, **kept}


@dataclass(frozen=True, slots=True)
class Section:
    """All changes of one topic (a key of ``TOPICS``). ``summary`` is a few words for the first line."""

    topic: str
    changes: tuple[Change, ...]
    summary: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The heading."""
        return TOPICS[self.topic].title

    @property
    def matters(self) -> bool:
        """True when someone who runs the bundle can notice a change."""
        return TOPICS[self.topic].matters and bool(self.changes)

    @property
    def worse(self) -> tuple[Change, ...]:
        """The changes that are a loss."""
        return tuple(change for change in self.changes if change.verdict == WORSE)

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "topic": self.topic,
            "matters": self.matters,
            "summary": self.summary,
            "notes": list(self.notes),
            "changes": [change.record() for change in self.changes],
        }


@dataclass(frozen=True, slots=True)
class Agreed:
    """Both bundles on the same images: how far NEW's outputs agree with OLD's.

    ``lowest`` is the smallest mean of what users see (see ``check.agreement``), None where the outputs
    cannot be compared; ``note`` says why.
    """

    images: int
    rows: tuple[Row, ...]
    lowest: float | None
    note: str = ""

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        rows = [row.record() for row in self.rows]
        return {"images": self.images, "lowest": self.lowest, "note": self.note, "outputs": rows}


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that differs; only sections with changes or notes are there, in ``TOPICS``' order."""

    old: Path
    new: Path
    sections: tuple[Section, ...]
    agreement: Agreed | None = None

    @property
    def same(self) -> bool:
        """True when every file of both bundles is equal."""
        return not self.sections

    @property
    def matters(self) -> bool:
        """True when a section that matters has changes, or the outputs on images differ."""
        differ = self.agreement is not None and self.agreement.lowest != 1.0
        return differ or any(section.matters for section in self.sections)

    def section(self, topic: str) -> Section | None:
        """The section of *topic*, None when nothing is said about it."""
        return next((section for section in self.sections if section.topic == topic), None)

    def failing(self, topics: Collection[str]) -> tuple[str, ...]:
        """Those of *topics* that changed; ``any`` stands for all that matter.

        Better numbers are no failure: ``accuracy`` is there when something got worse.
        """
        failed = [
            section.topic
            for section in self.sections
            if section.changes
            and (section.topic in topics or ("any" in topics and section.matters))
        ]
        accuracy = self.section("accuracy")
        if "any" not in topics and accuracy is not None and not accuracy.worse:
            failed = [topic for topic in failed if topic != "accuracy"]
        return tuple(failed)

    @property
    def headline(self) -> str:
        """One line: whether anything that matters changed, and what."""
        if self.same and self.agreement is None:
            return "nothing changed: all files are equal"
        found = [_brief(section) for section in self.sections if section.matters]
        if self.agreement is not None:
            found.append(_agreed(self.agreement))
        if found and self.matters:
            return "changed: " + "; ".join(found)
        rest = "only " + ", ".join(section.topic for section in self.sections)
        outputs = "" if self.agreement is None else f"; {_agreed(self.agreement)}"
        return f"nothing that matters changed ({'all files are equal' if self.same else rest}){outputs}"

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "old": str(self.old),
            "new": str(self.new),
            "same": self.same,
            "matters": self.matters,
            "headline": self.headline,
            "sections": [section.record() for section in self.sections],
            "agreement": None if self.agreement is None else self.agreement.record(),
        }


def _brief(section: Section) -> str:
    return f"{section.topic} ({section.summary})" if section.summary else section.topic


def _agreed(found: Agreed) -> str:
    count = "1 image" if found.images == 1 else f"{found.images} images"
    if found.lowest is None:
        return f"outputs cannot be compared: {found.note}"
    return f"outputs agree to {found.lowest:.4g} on {count}"
