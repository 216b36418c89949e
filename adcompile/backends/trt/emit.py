"""Files and actions of a TensorRT part."""

from __future__ import annotations

import json

from adcompile.backends.trt.options import Wishes, read_options
from adcompile.backends.trt.plugins import read_plugins, replaced, with_plugins
from adcompile.backends.trt.trtexec import build_options, has_option, parse_version
from adcompile.errors import UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part
from adcompile.ir.emit import add_model
from adcompile.manifest import PYTHON, ActionRecord, PartRecord, TensorSpec
from adcompile.render import render, to_json

WORKSPACE_MIB = 2048  # of a recipe, unless asked otherwise
Profile = dict[str, list[list[int]]]


def emit_part(part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
    """Add typed ONNX, plan action or recipe, expected inputs and outputs, readme."""
    folder = f"parts/{part.name}"
    files = {"model": add_model(out, f"{folder}/model.onnx", part.model)}
    if lowered.model is part.model:
        files["simulation"] = files["model"]
    else:
        name = f"{folder}/model.{lowered.precision}.onnx"
        files["simulation"] = add_model(out, name, lowered.model)
    read = _for_tensorrt(folder, files, lowered, ctx, out)
    typed = read.rpartition("/")[2]
    wishes = read_options(ctx)
    profile = make_profile(part.inputs, wishes.rows)
    here = ctx.target.facts.get("build") == "here"
    files["io"] = out.add(f"{folder}/io.json", _interface(part, profile))
    files["plan"] = f"{folder}/model.plan"
    if here:
        out.act(_plan_action(part, read, files["plan"], profile, wishes, ctx))
    else:
        script = _recipe(part, lowered, typed, profile, wishes, ctx)
        files["recipe"] = out.add(f"{folder}/build.sh", script, executable=True)
        out.act(
            ActionRecord(
                name=f"build plan of {part.name}",
                part=part.name,
                tool="trtexec",
                argv=("sh", f"{folder}/build.sh"),
                inputs=(read,),
                outputs=(files["plan"],),
                detail=f"a plan is built on the board: run {folder}/build.sh there",
            )
        )
    values = {"part": part, "precision": lowered.precision, "target": ctx.target, "typed": typed}
    values |= {"here": here, "profile": profile}
    files["readme"] = out.add(f"{folder}/README.md", render("trt/README.md.j2", values))
    options = {"tensorrt": ctx.target.toolchain, "sm": ctx.target.facts.get("sm", "")}
    return part.record("trt", lowered.precision, files, options)


def _for_tensorrt(
    folder: str, files: dict[str, str], lowered: Part, ctx: LowerContext, out: FileSet
) -> str:
    """The file that TensorRT reads: the simulated one, or a copy of it with the user's plugins."""
    plugins = read_plugins(ctx.options.get("plugins", ""))
    count = replaced(lowered.model, plugins)
    if not count:
        return files["simulation"]
    files["plugins"] = out.add(
        f"{folder}/model.plugins.onnx", with_plugins(lowered.model, plugins)
    )
    ctx.report.note(f"{lowered.name}: {count} nodes are plugins in the file that TensorRT reads")
    return files["plugins"]


def make_profile(inputs: tuple[TensorSpec, ...], rows: tuple[int, int, int]) -> Profile:
    """Smallest, usual and largest shape of every input with a free dimension; else nothing.

    *rows* are the numbers for the first dimension. Another free dimension is a UsageError: it must be
    fixed first.
    """
    profile: Profile = {}
    for spec in inputs:
        free = [i for i, d in enumerate(spec.shape) if isinstance(d, str)]
        if not free:
            continue
        if free != [0]:
            raise UsageError(
                "TensorRT needs a range for a free dimension",
                where=f"input {spec.name!r} {spec.shape}",
                fix="fix it with --input-shape",
            )
        tail = [d for d in spec.shape[1:] if isinstance(d, int)]
        profile[spec.name] = [[count, *tail] for count in rows]
    if profile:
        for spec in inputs:
            fixed = [d for d in spec.shape if isinstance(d, int)]
            profile.setdefault(spec.name, [fixed, fixed, fixed])
    return profile


def _interface(part: Part, profile: Profile) -> str:
    data = {
        "inputs": [s.model_dump(mode="json") for s in part.inputs],
        "outputs": [s.model_dump(mode="json") for s in part.outputs],
        "profile": profile,
    }
    return to_json(data) + "\n"


def _plan_action(
    part: Part, read: str, plan: str, profile: Profile, wishes: Wishes, ctx: LowerContext
) -> ActionRecord:
    argv = [
        PYTHON,
        "-m",
        "adcompile.backends.trt.build_plan",
        "--package",
        "tensorrt_rtx",
        "--onnx",
        read,
        "--output",
        plan,
        "--sm",
        ctx.target.facts.get("sm", ""),
    ]
    if library := ctx.options.get("plugin_library", ""):
        argv += ["--plugins", library]
    if wishes.workspace_mib is not None:
        argv += ["--workspace-mib", str(wishes.workspace_mib)]
    if profile:
        argv += ["--profile", json.dumps(profile, sort_keys=True, separators=(",", ":"))]
    return ActionRecord(
        name=f"build plan of {part.name}",
        part=part.name,
        tool="python:tensorrt_rtx",
        argv=tuple(argv),
        inputs=(read,),
        outputs=(plan,),
    )


def _recipe(
    part: Part, lowered: Part, typed: str, profile: Profile, wishes: Wishes, ctx: LowerContext
) -> str:
    version = parse_version(ctx.target.toolchain)
    options = build_options(
        version,
        lowered.precision,
        profile=profile,
        dla_core=wishes.dla_core,
        plugins=ctx.options.get("plugin_library", ""),
        workspace_mib=wishes.workspace_mib or WORKSPACE_MIB,
        opt_level=wishes.opt_level,
    )
    values = {
        "part": part,
        "typed": typed,
        "options": options,
        "hints": _hints(lowered.precision, wishes),
        "version": f"{version[0]}.{version[1]}",
        "major": version[0],
        "minor": version[1],
        "timing_cache": has_option("--timingCacheFile", version),
        "target": ctx.target,
    }
    return render("trt/build.sh.j2", values)


def _hints(precision: str, wishes: Wishes) -> list[str]:
    """What to try when trtexec fails, likeliest first; each is something to build again with."""
    hints: list[str] = []
    if wishes.dla_core is not None:
        hints.append("build for the GPU first: without -O dla_core")
    hints.append("out of memory: -O workspace_mib with a smaller number, or close other programs")
    if precision != "fp32":
        float_one = "fp16" if precision == "int8" else "fp32"
        hints.append(f"another precision shows whether {precision} is the reason: {float_one}")
    hints.append("a node that it cannot build: pin it to the host with --pin NODE=host")
    return hints
