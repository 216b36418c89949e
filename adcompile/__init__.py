"""adcompile: from a trained vision model to a verified bundle for an edge accelerator.

Public names are resolved on first use, so ``import adcompile`` stays cheap and the runtime never
drags in the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adcompile.changes.api import diff
    from adcompile.changes.record import Diff
    from adcompile.compiler import BuildOptions, BuildResult, compile
    from adcompile.errors import AdcompileError
    from adcompile.interfaces import Exactness, Pass, Report, Verdict
    from adcompile.rewrite.rules import Rule, rule
    from adcompile.runtime.bundle import Bundle, load

__version__ = "0.1.0"

_PUBLIC = {
    "AdcompileError": "adcompile.errors",
    "BuildOptions": "adcompile.compiler",
    "BuildResult": "adcompile.compiler",
    "Bundle": "adcompile.runtime.bundle",
    "Diff": "adcompile.changes.record",
    "Exactness": "adcompile.interfaces",
    "Pass": "adcompile.interfaces",
    "Report": "adcompile.interfaces",
    "Rule": "adcompile.rewrite.rules",
    "Verdict": "adcompile.interfaces",
    "compile": "adcompile.compiler",
    "diff": "adcompile.changes.api",
    "load": "adcompile.runtime.bundle",
    "rule": "adcompile.rewrite.rules",
}

__all__ = [
    "AdcompileError",
    "BuildOptions",
    "BuildResult",
    "Bundle",
    "Diff",
    "Exactness",
    "Pass",
    "Report",
    "Rule",
    "Verdict",
    "__version__",
    "compile",
    "diff",
    "load",
    "rule",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'adcompile' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
