"""Registered passes: name to class. Nothing is imported until a name is used."""

from __future__ import annotations

from collections.abc import Mapping

GROUP = "adcompile.passes"  # entry points of installed plug-ins

PASSES: Mapping[str, str] = {
    "dead-code": "adcompile.passes.dead_code:DeadCode",
}
