"""Contracts that contradict their graph, by name: what a deployment gets silently wrong.

Each rule is a function over a :class:`Subject`; its id is what ``adcompile lint`` prints and what a
reader can search for. Rules look at the raised graph (``raise-anomaly``), so they see heads of any
exporter. A rule speaks only when it is sure of what it says: no rule guesses from weights.
"""

from adcompile.anomaly.lint.engine import RULES, Issue, lint, subject_of
from adcompile.anomaly.lint.subject import Subject

__all__ = ["RULES", "Issue", "Subject", "lint", "subject_of"]
