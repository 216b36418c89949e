"""Which code made something: what finished steps and bundles are told apart by."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import adcompile

PACKAGE = Path(__file__).parent


@cache
def code_version() -> str:
    """The version of adcompile; of a working copy also a digest of its sources, computed once.

    An installed package does not change under its version, a checkout (or an editable installation
    of one) does with every edit: what older code made must not be taken for the work of this one.
    """
    working_copy = (PACKAGE.parent / "pyproject.toml").is_file()
    digest = f"+{source_digest(PACKAGE)}" if working_copy else ""
    return adcompile.__version__ + digest


def source_digest(folder: Path) -> str:
    """12 hexadecimal digits over names and contents of all files below *folder*, byte code aside."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            total.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()[:12]
