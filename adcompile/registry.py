"""Name to class, without importing anything until a name is used.

Built-ins are the literal tables below. Others come through the entry points ``adcompile.passes``,
``adcompile.backends`` and ``adcompile.executors``, or from a user's file given as ``path.py:Name``.
A name with two owners is an error that names both.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from adcompile.errors import UsageError


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything of one *kind* ("pass"): the built-in table, and the entry points of *group*."""

    kind: str
    group: str
    built_in: Mapping[str, str]  # name to "module:attribute"

    def names(self) -> dict[str, str]:
        """Built-in names and those of installed plug-ins, each with its reference."""
        found = dict(self.built_in)
        for entry in sorted(entry_points(group=self.group), key=lambda e: e.name):
            if entry.name in found:
                raise UsageError(
                    f"two owners for {entry.name!r}", why=f"{found[entry.name]} and {entry.value}"
                )
            found[entry.name] = entry.value
        return found

    def lookup(self, name: str) -> object:
        """What is registered as *name*, or given as ``FILE.py:Name`` or ``module:Name``.

        An unknown name is a UsageError with the closest ones.
        """
        if ":" in name and (name.split(":")[0].endswith(".py") or "." in name.split(":")[0]):
            return load(name)
        if name.endswith(".py"):
            raise UsageError(
                f"{name!r} is a file, not a {self.kind}", fix=_members(Path(name), self.kind)
            )
        known = self.names()
        if name not in known:
            raise UsageError(f"unknown {self.kind} {name!r}", fix=_closest(name, list(known)))
        return load(known[name])


BACKENDS = Registry(
    "backend",
    "adcompile.backends",
    {
        "cpu": "adcompile.backends.cpu.backend:CpuBackend",
        "trt": "adcompile.backends.trt.backend:TrtBackend",
        "npu": "adcompile.backends.npu.backend:NpuBackend",
        "drpai": "adcompile.backends.drpai.backend:DrpaiBackend",
    },
)

EXECUTORS = Registry(
    "executor",
    "adcompile.executors",
    {
        "cpu": "adcompile.backends.cpu.executor:CpuExecutor",
        "trt": "adcompile.backends.trt.executor:TrtExecutor",
        "npu": "adcompile.backends.npu.executor:NpuExecutor",
        "drpai": "adcompile.backends.drpai.executor:DrpaiExecutor",
    },
)

PASSES = Registry(
    "pass",
    "adcompile.passes",
    {
        "approximations": "adcompile.passes.approximations:Approximations",
        "bind-defaults": "adcompile.passes.bind_defaults:BindDefaults",
        "check-weights": "adcompile.passes.check_weights:CheckWeights",
        "clean-up": "adcompile.passes.clean_up:CleanUp",
        "common-subexpressions": "adcompile.passes.common_subexpressions:CommonSubexpressions",
        "dead-code": "adcompile.passes.dead_code:DeadCode",
        "decode-detections": "adcompile.passes.decode_detections:DecodeDetections",
        "dedupe-constants": "adcompile.passes.dedupe_constants:DedupeConstants",
        "embed-head": "adcompile.passes.embed_head:EmbedHead",
        "fold-affine": "adcompile.passes.fold_affine:FoldAffine",
        "fold-constants": "adcompile.passes.fold_constants:FoldConstants",
        "fold-shapes": "adcompile.passes.fold_shapes:FoldShapes",
        "infer-shapes": "adcompile.passes.infer_shapes:InferShapes",
        "inline-control-flow": "adcompile.passes.inline_control_flow:InlineControlFlow",
        "inline-functions": "adcompile.passes.inline_functions:InlineFunctions",
        "max-pool-1x1": "adcompile.passes.subsampling:MaxPool1x1",
        "max-pool-1x1-to-slice": "adcompile.passes.subsampling:MaxPool1x1ToSlice",
        "maxpool-1x1-as-3x3": "adcompile.passes.subsampling:MaxPool1x1As3x3",
        "merge-reshapes": "adcompile.passes.merge_reshapes:MergeReshapes",
        "name-nodes": "adcompile.passes.name_nodes:NameNodes",
        "raise-anomaly": "adcompile.passes.raise_anomaly:RaiseAnomaly",
        "set-attribute": "adcompile.passes.set_attribute:SetAttribute",
        "specialize": "adcompile.passes.specialize:Specialize",
        "trim-control-flow": "adcompile.passes.trim_control_flow:TrimControlFlow",
        "upsample-to-resize": "adcompile.passes.upsample_to_resize:UpsampleToResize",
    },
)


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


def beside(reference: str, name: str) -> object | None:
    """``module:attribute`` of the package that holds *reference*; None where it has no such."""
    package = reference.rpartition(":")[0].rpartition(".")[0]
    try:
        return load(f"{package}.{name}")
    except UsageError:
        return None


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


def _closest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return (
        "did you mean " + ", ".join(near) + "?" if near else "known: " + ", ".join(sorted(known))
    )
