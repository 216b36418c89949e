"""Feature networks of torchvision and timm, cut at the wanted layers and exported to ONNX.

The only module here that imports torch; it is imported when a configuration names such a network.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx_ir as ir

from adcompile.errors import FormatError, ToolMissing, UsageError
from adcompile.ir import model_io

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

DEFAULT_LAYERS = ("layer2", "layer3")
OPSET = 17


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ToolMissing(
            "this backbone needs torch",
            why=str(error),
            fix='pip install "adcompile[train]", or use an .onnx file or --backbone filters',
        ) from error


def export_backbone(
    name: str, layers: Sequence[str], weights: str, side: int, seed: int
) -> ir.Model:
    """An ONNX model of the network *name* with its *layers* as outputs, for images of *side*.

    *weights* is ``imagenet`` (downloaded by the library), ``random``, or a state-dict file.
    """
    torch = _torch()
    torch.manual_seed(seed)
    network = _make(name, weights)
    if weights not in {"imagenet", "random"}:
        load_weights(network, Path(weights))
    wanted = tuple(layers) or DEFAULT_LAYERS
    cut = _cut(torch, network, wanted).eval()
    return _export(torch, cut, wanted, side)


def _make(name: str, weights: str) -> Module:
    """A torchvision network, else a timm network."""
    pretrained = weights == "imagenet"
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError):  # torchvision without its compiled operators
        models = None
    if models is not None and name in models.list_models():
        choice = "IMAGENET1K_V1" if pretrained else None
        return cast("Module", _download(lambda: models.get_model(name, weights=choice), name))
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        raise ToolMissing(
            f"no installed library has the network {name!r}",
            why=str(error),
            fix="pip install torchvision or timm, or use an .onnx file",
        ) from error
    if not timm.is_model(name):
        raise UsageError(
            f"neither torchvision nor timm has a network {name!r}",
            fix="an .onnx file, filters, resnet18, wide_resnet50_2, …",
        )
    return cast("Module", _download(lambda: timm.create_model(name, pretrained=pretrained), name))


def _download(make: Any, name: str) -> Any:
    try:
        return make()
    except (OSError, RuntimeError, ValueError) as error:
        raise ToolMissing(
            f"the pretrained weights of {name} cannot be had",
            why=" ".join(str(error).split())[:300],
            fix="--weights FILE with a state dict, --weights random, or --backbone filters",
        ) from error


def load_weights(network: Module, path: Path) -> None:
    """Load a state dict; tensors that are missing or left over are named.

    A classifier head in the file, or missing from it, does not matter here.
    """
    torch = _torch()
    if not path.is_file():
        raise FormatError("no such weights file", where=str(path))
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError("weights cannot be read", where=str(path), why=reason) from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = cast("Mapping[str, object]", content)["state_dict"]
    if not isinstance(content, Mapping):
        raise FormatError("the weights file holds no state dict", where=str(path))
    state = {str(k): v for k, v in cast("Mapping[object, Tensor]", content).items()}
    own = {k: v.shape for k, v in network.state_dict().items()}
    wrong = [k for k in state if k in own and tuple(state[k].shape) != tuple(own[k])]
    missing = [k for k in own if k not in state and not _is_head(k)]
    odd = [k for k in state if k not in own and not _is_head(k)]
    if wrong or missing or odd:
        raise FormatError(
            "the weights do not fit the network",
            where=str(path),
            why=f"missing: {_some(missing)}; unexpected: {_some(odd)}; other shape: {_some(wrong)}",
        )
    network.load_state_dict(state, strict=False)


def _is_head(name: str) -> bool:
    return name.startswith(("fc.", "head.", "classifier.")) or name.endswith("num_batches_tracked")


def _some(names: Sequence[str]) -> str:
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    )


def _cut(torch: Any, network: Module, layers: Sequence[str]) -> Any:
    """A module that returns the named inner modules' outputs, in order."""
    named = cast("Iterator[tuple[str, Module]]", network.named_modules())
    modules = dict(named)
    for layer in layers:
        if layer not in modules:
            known = [n for n in modules if n and "." not in n]
            raise UsageError(f"the network has no layer {layer!r}", fix=", ".join(known[:20]))

    class Cut(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()  # pyright: ignore[reportUnknownMemberType]
            self.network = network
            self.found: dict[str, Tensor] = {}
            for layer in layers:
                modules[layer].register_forward_hook(self.keep(layer))

        def keep(self, layer: str) -> Any:
            def hook(module: Module, inputs: object, output: Tensor) -> None:
                self.found[layer] = output

            return hook

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            self.network(image)
            return tuple(self.found[layer] for layer in layers)

    return Cut()


def _export(torch: Any, module: Any, layers: Sequence[str], side: int) -> ir.Model:
    buffer = io.BytesIO()
    example = torch.zeros(1, 3, side, side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,
            input_names=["input"],
            output_names=list(layers),
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={name: {0: "N"} for name in ("input", *layers)},
        )
    return model_io.from_bytes(buffer.getvalue(), "backbone")
