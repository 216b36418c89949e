"""Reasons as text: what reports group by."""

from __future__ import annotations


def short(reason: str) -> str:
    """A reason without the detail in parentheses at its end."""
    head, _, tail = reason.rpartition(" (")
    return head if tail.endswith(")") and head else reason
