"""What a rule gets and gives, and the list of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.anomaly.lint import input_rules, output_rules, score_rules
from adcompile.anomaly.lint.subject import Complaint, Subject
from adcompile.anomaly.recognise.describe import describe
from adcompile.contract import Contract

Rule = Callable[[Subject], Iterator[Complaint]]


@dataclass(frozen=True, slots=True)
class Issue:
    """One contradiction: the rule's id, where it is, what is wrong, what to do."""

    rule: str
    where: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where}: {self.why}; {self.fix}"

    def record(self) -> dict[str, str]:
        """Plain data, for ``--json``."""
        return {"rule": self.rule, "where": self.where, "why": self.why, "fix": self.fix}


RULES: dict[str, Rule] = {
    **input_rules.RULES,
    **score_rules.RULES,
    **output_rules.RULES,
}
"""Rule id to rule, in the order they are printed."""


def subject_of(model: ir.Model, contract: Contract) -> Subject:
    """What the rules look at: the raised *model*, and the contract somebody declared (or none)."""
    found = describe(model, contract.model_copy(update={"score": None, "roles": {}}))
    return Subject(model, contract, found.score, found.roles)


def lint(subject: Subject) -> list[Issue]:
    """Every contradiction, in the order of the rules."""
    return [
        Issue(name, complaint.where, complaint.why, complaint.fix)
        for name, rule in RULES.items()
        for complaint in rule(subject)
    ]
