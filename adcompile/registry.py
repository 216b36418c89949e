"""Name to class, without importing anything until a name is used.

Built-ins are the literal tables below. Others come through the entry points ``adcompile.passes``
and ``adcompile.backends``, or from a user's file given as ``path.py:Name``. A name with two owners
is an error that names both.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from adcompile.errors import UsageError

BACKENDS: Mapping[str, str] = {
    "cpu": "adcompile.backends.cpu.backend:CpuBackend",
    "trt": "adcompile.backends.trt.backend:TrtBackend",
    "npu": "adcompile.backends.npu.backend:NpuBackend",
    "drpai": "adcompile.backends.drpai.backend:DrpaiBackend",
}

EXECUTORS: Mapping[str, str] = {
    "cpu": "adcompile.backends.cpu.executor:CpuExecutor",
    "trt": "adcompile.backends.trt.executor:TrtExecutor",
    "npu": "adcompile.backends.npu.executor:NpuExecutor",
    "drpai": "adcompile.backends.drpai.executor:DrpaiExecutor",
}


def load(reference: str) -> object:
    """Import ``module:attribute`` (or ``file.py:attribute``) and return the attribute."""
    module_name, _, attribute = reference.rpartition(":")
    if not module_name:
        raise UsageError(
            "not a reference", where=reference, fix="write module:Name or file.py:Name"
        )
    if module_name.endswith(".py"):
        module = _load_file(Path(module_name))
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UsageError("no such module", where=module_name, why=str(error)) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(
            f"no {attribute!r} in {module_name}", fix=_closest(attribute, known)
        ) from None


def _load_file(path: Path) -> object:
    if not path.is_file():
        raise UsageError("no such file", where=str(path))
    name = f"adcompile_user_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is about that file
        del sys.modules[name]
        raise UsageError(
            "the file cannot be imported", where=str(path), why=f"{type(error).__name__}: {error}"
        ) from error
    return module


def _members(path: Path, kind: str) -> str:
    """How to name one of the classes that a user's file defines."""
    module = _load_file(path)
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == getattr(module, "__name__", "")
    ]
    return f"write {path}:NAME; its classes: {', '.join(own)}" if own else f"it defines no {kind}"


def names(table: Mapping[str, str], group: str) -> dict[str, str]:
    """Built-in names and those of installed plug-ins, each with its reference."""
    found = dict(table)
    for entry in sorted(entry_points(group=group), key=lambda e: e.name):
        if entry.name in found:
            raise UsageError(
                f"two owners for {entry.name!r}", why=f"{found[entry.name]} and {entry.value}"
            )
        found[entry.name] = entry.value
    return found


def lookup(name: str, table: Mapping[str, str], group: str, kind: str) -> object:
    """The object registered as *name*; an unknown name is a UsageError with the closest ones."""
    if ":" in name and (name.split(":")[0].endswith(".py") or "." in name.split(":")[0]):
        return load(name)
    if name.endswith(".py"):
        raise UsageError(f"{name!r} is a file, not a {kind}", fix=_members(Path(name), kind))
    known = names(table, group)
    if name not in known:
        raise UsageError(f"unknown {kind} {name!r}", fix=_closest(name, list(known)))
    return load(known[name])


def _closest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return (
        "did you mean " + ", ".join(near) + "?" if near else "known: " + ", ".join(sorted(known))
    )
