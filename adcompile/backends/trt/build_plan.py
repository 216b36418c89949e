"""Build a TensorRT plan from ONNX: ``python -m adcompile.backends.trt.build_plan``.

Runs in a process of its own, because a parser may crash on a file it does not like. Uses
``tensorrt_rtx`` (also on machines without a GPU) or ``tensorrt``, whichever is asked for. Features
are found by attribute, not by version.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adcompile.backends.trt.vendor_log import NotCreated, create, error_log, last_words

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = ("tensorrt_rtx", "tensorrt")
TOOL_MISSING = 3
FAILED = 1
_WORKSPACE_MIB = 1024


def installed() -> str | None:
    """The TensorRT package of this machine, RTX first; None when there is none."""
    return next((name for name in PACKAGES if importlib.util.find_spec(name)), None)


def main(arguments: list[str] | None = None) -> int:
    """Build; returns 0, 1 (refused, reason on stderr) or 3 (no TensorRT that loads)."""
    options = _parser().parse_args(arguments)
    name = options.package or installed()
    if name is None or not importlib.util.find_spec(name):
        sys.stderr.write("no TensorRT package is installed (pip install tensorrt-rtx)\n")
        return TOOL_MISSING
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        sys.stderr.write(f"{name} is installed but does not load: {error}\n")
        return TOOL_MISSING
    try:
        if options.plugins:
            ctypes.CDLL(options.plugins, mode=ctypes.RTLD_GLOBAL)  # registers its plugins
        plan = build(
            trt,
            Path(options.onnx),
            options.sm,
            json.loads(options.profile),
            options.workspace_mib,
        )
    except (BuildRefused, OSError) as refusal:
        sys.stderr.write(f"{refusal}\n")
        return FAILED
    Path(options.output).write_bytes(plan)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_plan")
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--sm", default="", help="compute capability, for example 8.9")
    parser.add_argument("--profile", default="{}", help='{"input": [min, opt, max]} as JSON')
    parser.add_argument("--package", default="", choices=["", *PACKAGES])
    parser.add_argument("--workspace-mib", type=int, default=_WORKSPACE_MIB)
    parser.add_argument("--plugins", default="", help="shared library with the plugins in use")
    return parser


class BuildRefused(Exception):
    """The parser or the builder said no; the text has its messages."""


def build(
    trt: ModuleType,
    onnx: Path,
    sm: str,
    profile: dict[str, list[list[int]]],
    workspace_mib: int,
) -> bytes:
    """The serialized plan of *onnx*.

    *sm* is a compute capability such as ``8.9`` ("": this machine's GPU), *profile* input names to
    least, best and largest shape. Raises BuildRefused with the vendor's own words.
    """
    log = error_log(trt)
    try:
        builder = create(log, trt.Builder, log)
        network = create(log, builder.create_network, _network_flags(trt))
        parser = create(log, trt.OnnxParser, network, log)
        config = create(log, builder.create_builder_config)
    except NotCreated as error:
        raise BuildRefused(
            f"TensorRT does not start; the driver may be too old for it: {error}"
        ) from error
    if not parser.parse(onnx.read_bytes(), str(onnx)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BuildRefused("parser: " + ("; ".join(errors) or "no reason given"))
    _configure(trt, config, sm, workspace_mib << 20)
    if profile:
        shapes = builder.create_optimization_profile()
        for name, (low, best, high) in profile.items():
            shapes.set_shape(name, tuple(low), tuple(best), tuple(high))
        config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildRefused("builder: " + last_words(log, "no reason given"))
    return bytes(plan)


def _configure(trt: ModuleType, config: Any, sm: str, workspace: int) -> None:
    """Workspace (bytes) and the GPU to build for, as far as this TensorRT has a choice."""
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    else:
        config.max_workspace_size = workspace
    if sm and hasattr(trt, "ComputeCapability") and hasattr(config, "num_compute_capabilities"):
        wanted = getattr(trt.ComputeCapability, "SM" + sm.replace(".", ""), None)
        if wanted is None:
            raise BuildRefused(f"this TensorRT does not build for compute capability {sm}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(wanted, 0)


def _network_flags(trt: ModuleType) -> int:
    """Explicit batch where it still exists. Typing follows the builder's default."""
    flags = 0
    kinds = trt.NetworkDefinitionCreationFlag
    if hasattr(kinds, "EXPLICIT_BATCH"):
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if hasattr(kinds, "STRONGLY_TYPED") and not hasattr(trt.BuilderFlag, "FP16"):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


if __name__ == "__main__":
    raise SystemExit(main())
