"""Files of an NPU part: float model, lowered model, session options, readme."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import onnx_ir as ir

from adcompile.backend_options import float_nodes
from adcompile.backends.npu.lowering import packed_layout
from adcompile.backends.npu.options import chip_of, release_of, session_plan
from adcompile.backends.npu.session import SessionPlan, cache_identity
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part
from adcompile.ir.emit import add_model, model_digest
from adcompile.ir.model_io import to_bytes
from adcompile.ir.opset import settled
from adcompile.lower.mosaic import mosaic, resize_mosaic
from adcompile.lower.shape import fix_rows
from adcompile.manifest import PartRecord
from adcompile.render import render, to_json
from adcompile.runtime.tiles import Mosaic
from adcompile.target import FLOAT_PRECISIONS, opset_range

_FORMAT_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})


def emit_part(part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
    """Add everything of one part to *out*."""
    folder = f"parts/{part.name}"
    files = {"model": add_model(out, f"{folder}/model.onnx", part.model)}
    options = {
        "chip": chip_of(ctx),
        "release": release_of(ctx),
        "roi_policy": ctx.options.get("roi_policy", "loop") if part.rows else "",
    }
    layout = packed_layout(part, ctx)
    if layout is None:
        files |= _plain_files(part, lowered, ctx, out, files["model"])
    else:
        options["mosaic"] = layout.dump()
        options["roi_buckets"] = ",".join(map(str, layout.capacities()))
        files |= _packed_files(part, lowered, layout, out)
    device_name = next(files[n] for n in sorted(files) if n.startswith("device"))
    digest = model_digest(lowered.model)
    plan = replace(
        _session(part, digest, replace(ctx, precision=lowered.precision)),
        planned=_planned(lowered, ctx),
    )
    files["session"] = out.add(f"{folder}/session.json", plan.as_json())
    if lowered.precision == "fp32":
        ctx.report.note(f"{part.name}: {_float_on(ctx)}")
    if plan.provider_options.get("config_file") == "vaiml_config.json":
        files["config"] = out.add(f"{folder}/vaiml_config.json", _VAIML)
    values = {
        "part": part,
        "precision": lowered.precision,
        "device_model": device_name.rpartition("/")[2],
        "plan": plan,
        "target": ctx.target,
        "release": options["release"],
        "sizes": sorted(int(n[7:]) for n in files if n.startswith("device_")),
    }
    files["readme"] = out.add(f"{folder}/README.md", render("npu/README.md.j2", values))
    return part.record("npu", lowered.precision, files, options)


def _packed_files(part: Part, lowered: Part, layout: Mosaic, out: FileSet) -> dict[str, str]:
    """Use to path: one model per grid for the device, and another to simulate where they differ."""
    files: dict[str, str] = {}
    for grid in layout.grids:
        rows = grid[0] * grid[1]
        device, simulation = _packed_models(part, lowered, layout, grid)
        stem = f"parts/{part.name}/rows{rows}"
        files[f"device_{rows}"] = out.add(f"{stem}.onnx", to_bytes(device))
        files[f"simulation_{rows}"] = files[f"device_{rows}"]
        if simulation is not device:
            path = f"{stem}.{lowered.precision}.onnx"
            files[f"simulation_{rows}"] = out.add(path, to_bytes(simulation))
    return files


def _plain_files(
    part: Part, lowered: Part, ctx: LowerContext, out: FileSet, model: str
) -> dict[str, str]:
    """Use to path, of a part that is not packed; *model* is the path of its float model."""
    folder = f"parts/{part.name}"
    simulation = model
    if lowered.model is not part.model:
        kind = lowered.precision if lowered.precision in FLOAT_PRECISIONS else "int8"
        simulation = add_model(out, f"{folder}/model.{kind}.onnx", lowered.model)
    # the vendor's compiler converts to bf16 itself, from a float model that it can read
    legal = settled(part.model, *opset_range(ctx.target))
    source = legal if lowered.precision == "bf16" else lowered.model
    if part.rows:
        one = out.add(f"{folder}/rows1.onnx", to_bytes(fix_rows(source, 1)))
        return {"simulation": simulation, "device_1": one}
    if source is part.model:
        device = model
    elif source is lowered.model:
        device = simulation
    else:
        device = add_model(out, f"{folder}/device.onnx", source)
    return {"simulation": simulation, "device": device}


def _packed_models(
    part: Part, lowered: Part, layout: Mosaic, grid: tuple[int, int]
) -> tuple[ir.Model, ir.Model]:
    """What the device compiles and what the simulation runs, for one grid."""
    simulation = resize_mosaic(lowered.model, layout, grid)
    # the vendor's compiler converts to bf16 itself, from the float model
    device = mosaic(part.model, grid)[0] if lowered.precision == "bf16" else simulation
    return device, simulation


def _has_float(ctx: LowerContext) -> bool:
    """True when chip and release have a float format, which is bfloat16."""
    return "bf16" in ctx.target.precisions


def _float_on(ctx: LowerContext) -> str:
    """What becomes of a float32 part, in a sentence."""
    if _has_float(ctx):
        return (
            "the NPU's compiler converts float32 to bfloat16, the simulation does not; "
            "--precision bf16 shows what the NPU computes"
        )
    choices = ", ".join(p for p in ctx.target.precisions if p not in FLOAT_PRECISIONS)
    return (
        f"{ctx.target.title} with {ctx.target.toolchain} has no float format: the provider runs a "
        f"float32 part on the CPU. For the NPU: --precision {choices}"
    )


def _planned(lowered: Part, ctx: LowerContext) -> dict[str, int]:
    """Nodes per op type that are to run on the NPU; those that were left in float are not."""
    if lowered.precision == "fp32" and not _has_float(ctx):
        return {}
    floats = float_nodes(ctx.options)
    kinds = [n.op_type for n in lowered.model.graph if n.name not in floats]
    return dict(sorted(Counter(k for k in kinds if k not in _FORMAT_OPS).items()))


def _session(part: Part, digest: str, ctx: LowerContext) -> SessionPlan:
    """The options, with a cache key made of everything that is known now."""
    draft = session_plan(ctx, "")
    key = cache_identity(digest, draft.provider_options, "", "")
    return session_plan(ctx, f"{part.name}-{key[:16]}")


# the compiler converts float32 to bfloat16 itself; one pass does it
_VAIML = (
    to_json(
        {
            "passes": [
                {"name": "init", "plugin": "vaip-pass_init"},
                {
                    "name": "vaiml_partition",
                    "plugin": "vaip-pass_vaiml_partition",
                    "vaiml_config": {
                        "enable_f32_to_bf16_conversion": True,
                        "optimize_level": 2,
                        "preferred_data_storage": "auto",
                    },
                },
            ],
            "target": "VAIML",
            "targets": [{"name": "VAIML", "pass": ["init", "vaiml_partition"]}],
        }
    )
    + "\n"
)
