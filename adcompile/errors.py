"""Every error a user can meet.

    AdcompileError                      what, where, why, fix; an exit code
    ├── InputError            exit 2    bad file, bad option, bad data
    │   ├── ModelError                  the ONNX model cannot be read or is not valid
    │   ├── FormatError                 another file (bank, checkpoint, image, plan, manifest) is wrong
    │   └── UsageError                  options that contradict each other or name nothing
    ├── NegativeAnswer        exit 1    the question was fine, the answer is "no"
    │   ├── BudgetMissed                no choice of what stays in float holds the accuracy budget
    │   ├── LockBroken                  under --locked: the bundle would not be that of the lock
    │   └── Unsupported                 under --strict: something cannot run on the target
    ├── ToolMissing           exit 3    a needed program or package is not installed
    └── PassError             exit 4    a rewrite broke the graph: a defect in a pass, not in the input

A user error is shown without traceback. Anything else that escapes is a bug: it keeps its traceback
and exits with 4 as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AdcompileError(Exception):
    """Base of all errors: says what went wrong, where, why, and what to do next."""

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {k}: {v}" for k, v in self._details() if v]
        return "\n".join(lines)

    def _details(self) -> tuple[tuple[str, str], ...]:
        return (("at", self.where), ("why", self.why), ("fix", self.fix))

    def record(self) -> dict[str, object]:
        """The error as plain data, for ``--json``."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


class InputError(AdcompileError):
    """Something the user gave is wrong."""


class ModelError(InputError):
    """The model file cannot be read, is not valid, or uses what no runtime here knows."""


class FormatError(InputError):
    """A file other than a model is damaged, inconsistent, or of an unknown version."""


class UsageError(InputError):
    """Options or names that do not fit together."""


class NegativeAnswer(AdcompileError):
    """The command worked and its answer is no."""

    exit_code: ClassVar[int] = 1


class BudgetMissed(NegativeAnswer):
    """No choice of what stays in float holds the accuracy budget. ``search`` is what was tried, as
    plain data (``search.json`` of a bundle)."""

    def __init__(
        self, what: str, search: Mapping[str, object], *, why: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.search = search

    def record(self) -> dict[str, object]:
        """The error with the search."""
        return {**super().record(), "search": dict(self.search)}


class LockBroken(NegativeAnswer):
    """Under ``--locked``: the bundle would not be, or is not, that of the lock."""


class Unsupported(NegativeAnswer):
    """Under ``--strict``: the target cannot run something the user insisted on."""


class ToolMissing(AdcompileError):
    """A program or package that this step needs is not installed; says how to get it."""

    exit_code: ClassVar[int] = 3


class PassError(AdcompileError):
    """A pass left an invalid or different graph behind: our defect or a custom pass's."""

    exit_code: ClassVar[int] = 4
