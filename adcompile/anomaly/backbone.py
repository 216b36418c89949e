"""Feature networks as ONNX: any file, float or quantized, outputs by name or by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.maps import Array
from adcompile.errors import InputError, ModelError, UsageError
from adcompile.ir import graph, model_io
from adcompile.runtime.session import Session, available_providers, open_session

CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Backbone:
    """A network that gives feature maps.

    ``model`` has one image input [N, C, H, W] (N may be free) and the wanted outputs only.
    ``size`` is (H, W). ``channels`` and ``grids`` describe the outputs, shallow first.
    """

    model: ir.Model
    size: tuple[int, int]
    channels: tuple[int, ...]
    grids: tuple[tuple[int, int], ...]
    fixed_batch: int | None

    @property
    def input_name(self) -> str:
        """Name of the image input."""
        return self.model.graph.inputs[0].name or ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(value.name or "" for value in self.model.graph.outputs)


def load_backbone(
    source: Path | ir.Model, layers: Sequence[str | int] = (), side: int = 0
) -> Backbone:
    """Open a backbone and find out what its outputs look like.

    ``layers`` picks outputs by name or position (digits count as positions); without it all
    outputs are used. ``side`` is the image side for a network whose input size is free. Outputs
    are put in order of depth: the finest grid first.
    """
    model = source if isinstance(source, ir.Model) else model_io.load_model(source)
    where = model.graph.name or "backbone"
    if len(model.graph.inputs) != 1:
        names = ", ".join(value.name or "?" for value in model.graph.inputs)
        raise ModelError("a backbone has one input", where=where, why=f"it has {names}")
    chosen = [_pick(model, layer) for layer in layers] or list(model.graph.outputs)
    model.graph.outputs.clear()
    model.graph.outputs.extend(chosen)
    size, batch = _fix_input(model, side, where)
    return _measure(model, size, batch, where)


def _pick(model: ir.Model, layer: str | int) -> ir.Value:
    outputs = list(model.graph.outputs)
    by_name = {value.name: value for value in outputs}
    inner = {value.name: value for node in model.graph for value in node.outputs}
    if isinstance(layer, str) and layer in by_name:
        return by_name[layer]
    if isinstance(layer, str) and layer in inner:
        return inner[layer]
    position = int(layer) if isinstance(layer, int) or layer.isdigit() else -1
    if 0 <= position < len(outputs):
        return outputs[position]
    raise UsageError(
        f"the backbone has no output {layer!r}",
        fix="outputs: " + ", ".join(str(value.name) for value in outputs),
    )


def _fix_input(model: ir.Model, side: int, where: str) -> tuple[tuple[int, int], int | None]:
    """Height and width of the input, made static; and its batch size when that is fixed."""
    value = model.graph.inputs[0]
    if value.shape is None or len(value.shape) != 4 or graph.dtype_name(value) != "float32":
        raise ModelError(
            "a backbone's input is float32 [N, C, H, W]",
            where=f"{where}: {value.name}",
            why=f"it is {graph.dtype_name(value)} {value.shape}",
        )
    dims = [d if isinstance(d, int) else None for d in value.shape]
    for axis in (2, 3):
        known = dims[axis]
        if known is None and not side:
            raise UsageError(
                "the backbone takes any image size", where=where, fix="--image-size N"
            )
        if known is not None and side and known != side:
            raise UsageError(
                f"the backbone takes images of {dims[2]}×{dims[3]} only",
                where=where,
                why=f"image size {side} was asked for",
            )
        dims[axis] = known or side
    value.shape = ir.Shape([value.shape[0], value.shape[1], dims[2], dims[3]])
    assert dims[2] is not None
    assert dims[3] is not None
    return (dims[2], dims[3]), dims[0]


def _measure(model: ir.Model, size: tuple[int, int], batch: int | None, where: str) -> Backbone:
    session = open_session(model_io.to_bytes(model), threads=1, where=where)
    spec = session.inputs[0]
    channels_in = spec.shape[1] if isinstance(spec.shape[1], int) else 3
    probe = np.zeros((batch or 1, channels_in, *size), dtype=np.float32)
    maps = session.run({spec.name: probe})
    for name, value in maps.items():
        if value.ndim != 4 or value.dtype != np.float32:
            raise ModelError(
                "feature maps are float32 [N, C, h, w]",
                where=f"{where}: {name}",
                why=f"this output is {value.dtype} {value.shape}",
                fix="choose outputs with --layers",
            )
    order = sorted(range(len(maps)), key=lambda i: -list(maps.values())[i].shape[2])
    outputs = [model.graph.outputs[i] for i in order]
    shapes = [list(maps.values())[i].shape for i in order]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    return Backbone(
        model,
        size,
        tuple(int(shape[1]) for shape in shapes),
        tuple((int(shape[2]), int(shape[3])) for shape in shapes),
        batch,
    )


class FeatureRunner:
    """Runs a backbone on batches [n, C, H, W] of any n, one fixed-size call after the other.

    *device* is ``cuda``, ``cuda:N``, or anything else for the CPU; InputError where ONNX Runtime
    cannot use the GPU.
    """

    def __init__(
        self, backbone: Backbone, *, threads: int | None = None, device: str = "cpu"
    ) -> None:
        self._backbone = backbone
        self._session = _open_on(device, model_io.to_bytes(backbone.model), threads)

    def __call__(self, images: Array) -> list[Array]:
        """Feature maps in the backbone's order. Raises InputError when the model cannot run."""
        step = self._backbone.fixed_batch or images.shape[0]
        parts: list[list[Array]] = []
        for start in range(0, images.shape[0], step):
            part = images[start : start + step]
            if part.shape[0] < step:
                rest = np.zeros((step - part.shape[0], *part.shape[1:]), dtype=np.float32)
                part = np.concatenate([part, rest])
            found = self._session.run({self._backbone.input_name: part})
            parts.append([np.asarray(found[name], np.float32) for name in self._backbone.layers])
        joined = [np.concatenate(maps, axis=0) for maps in zip(*parts, strict=True)]
        return [maps[: images.shape[0]] for maps in joined]


def _open_on(device: str, model: bytes, threads: int | None) -> Session:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return open_session(model, threads=threads)
    reason = f"this ONNX Runtime has no {CUDA_PROVIDER}"
    if CUDA_PROVIDER in available_providers():
        # float32 as on the CPU, and the same kernels every time
        chosen = {
            "device_id": number or "0",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        session = open_session(model, [CUDA_PROVIDER], threads=threads, provider_options=[chosen])
        if CUDA_PROVIDER in session.providers:
            return session
        reason = "its CUDA libraries cannot be loaded, or there is no such GPU"
    raise InputError(
        "the feature network cannot run on a GPU here",
        where=f"device {device}",
        why=reason,
        fix="onnxruntime-gpu instead of onnxruntime, or --device cpu",
    )
