"""Files of an NPU part: float model, quantized model, session options, readme."""

from __future__ import annotations

import hashlib

from adcompile.backends.npu.session import Wishes, cache_identity, plan_session
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part
from adcompile.ir.model_io import to_bytes
from adcompile.manifest import PartRecord
from adcompile.render import render, to_json


def emit_part(part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
    """Add everything of one part to *out*."""
    folder = f"parts/{part.name}"
    data = to_bytes(part.model)
    files = {"model": out.add(f"{folder}/model.onnx", data)}
    chip = ctx.target.name.partition(":")[2].partition("@")[0] or "stx"
    release = ctx.target.toolchain.rpartition(" ")[2]
    if lowered.model is part.model:
        files["simulation"] = device = files["model"]
    else:
        data = to_bytes(lowered.model)
        name = "model.bf16.onnx" if lowered.precision == "bf16" else "model.int8.onnx"
        files["simulation"] = out.add(f"{folder}/{name}", data)
        # bf16 is converted by the vendor's compiler from the float model
        device = files["model"] if lowered.precision == "bf16" else files["simulation"]
    digest = hashlib.sha256(data).hexdigest()
    wishes = _wishes(ctx)
    draft = plan_session(chip, release, lowered.precision, "", wishes)
    key = cache_identity(digest, draft.provider_options, "", "")
    plan = plan_session(chip, release, lowered.precision, f"{part.name}-{key[:16]}", wishes)
    files["session"] = out.add(f"{folder}/session.json", plan.as_json())
    if "config_file" in plan.provider_options and lowered.precision in ("bf16", "fp32"):
        files["config"] = out.add(f"{folder}/vaiml_config.json", _VAIML)
    values = {
        "part": part,
        "precision": lowered.precision,
        "device_model": device.rpartition("/")[2],
        "plan": plan,
        "target": ctx.target,
        "release": release,
    }
    files["readme"] = out.add(f"{folder}/README.md", render("npu/README.md.j2", values))
    files["device"] = device
    return PartRecord(
        name=part.name,
        placement=part.placement,
        role=part.role,
        executor="npu",
        precision=lowered.precision,
        inputs=part.inputs,
        outputs=part.outputs,
        files=files,
        options={"chip": chip, "release": release},
        rows=part.rows,
        nodes=len(part.model.graph),
        macs=part.macs,
    )


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


def _wishes(ctx: LowerContext) -> Wishes:
    get = ctx.options.get
    return Wishes(
        target=get("npu_target", ""),
        xclbin=get("xclbin", ""),
        encryption_key="",  # a secret: given when the session is opened, never stored
        opt_level=get("opt_level", ""),
        cpu_fallback=get("cpu_fallback", "true") != "false",
    )
