"""Other people's quantizers: AMD Quark, vai_q_onnx, ONNX Runtime.

All work on files and take a calibration reader; their output is read back and cleaned of opset imports
that nothing uses. What they print goes nowhere.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from adcompile.errors import ToolMissing, UsageError
from adcompile.interfaces import Array, CalibrationData
from adcompile.ir.model_io import load_model, save_model
from adcompile.lower.insert import name_nodes
from adcompile.lower.scheme import Scheme

if TYPE_CHECKING:
    from typing import Any

QUARK_CONFIGS = {"xint8": "XINT8", "a8w8": "A8W8", "a16w8": "A16W8"}
ORT_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


@dataclass(frozen=True)
class QuantizeRequest:
    """What to quantize, on what data, in which format. *work* is a scratch folder (may not exist)."""

    model: ir.Model
    data: CalibrationData
    scheme: Scheme
    floats: frozenset[str]
    work: Path


class Reader:
    """A calibration reader as ONNX Runtime and its descendants want it."""

    def __init__(self, data: CalibrationData) -> None:
        self._data = data
        self._iterator: Iterator[dict[str, Array]] = iter(data)

    def get_next(self) -> dict[str, Array] | None:
        """The next sample, None at the end."""
        return next(self._iterator, None)

    def rewind(self) -> None:
        """Start again."""
        self._iterator = iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def quark(request: QuantizeRequest) -> ir.Model:
    """AMD Quark with its configuration of the same name."""
    name = QUARK_CONFIGS.get(request.scheme.name)
    if name is None:
        raise UsageError(
            f"quark has no configuration for {request.scheme.name!r}",
            fix=f"it has {', '.join(QUARK_CONFIGS)}",
        )
    source, target = _files(request)
    with _quiet():
        api: Any = importlib.import_module("quark.onnx")
        config_type: Any = importlib.import_module("quark.onnx.quantization.config").QConfig
        config: Any = config_type.get_default_config(name)
        if request.floats:
            config.exclude = [*getattr(config, "exclude", []), *sorted(request.floats)]
        api.ModelQuantizer(config).quantize_model(str(source), str(target), _reader(request.data))
    return _read(target)


def vai_q_onnx(request: QuantizeRequest) -> ir.Model:
    """The older vai_q_onnx, with the arguments of its XINT8 recipe."""
    if request.scheme.name != "xint8":
        raise UsageError("vai_q_onnx is used for xint8 only", fix="use --quantizer own or quark")
    source, target = _files(request)
    with _quiet():
        package: Any = importlib.import_module("vai_q_onnx")
        package.quantize_static(
            str(source),
            str(target),
            _reader(request.data),
            quant_format=package.QuantFormat.QDQ,
            calibrate_method=package.PowerOfTwoMethod.MinMSE,
            activation_type=package.QuantType.QUInt8,
            weight_type=package.QuantType.QInt8,
            enable_ipu_cnn=True,
            nodes_to_exclude=sorted(request.floats),
            extra_options={"ActivationSymmetric": True},
        )
    return _read(target)


def onnxruntime_method(request: QuantizeRequest, method: str) -> ir.Model:
    """ONNX Runtime's static quantizer with *method* (minmax, entropy, percentile); symmetric int8.

    A plain Q/DQ file: of the three dialects only its activations and weights follow *scheme*.
    """
    if method not in ORT_METHODS:
        raise UsageError(f"no such method {method!r}", fix=f"one of {', '.join(ORT_METHODS)}")
    source, target = _files(request)
    with _quiet():
        package: Any = importlib.import_module("onnxruntime.quantization")
        package.quantize_static(
            str(source),
            str(target),
            _reader(request.data),
            quant_format=package.QuantFormat.QDQ,
            calibrate_method=getattr(package.CalibrationMethod, ORT_METHODS[method]),
            activation_type=package.QuantType.QInt8,
            weight_type=package.QuantType.QInt8,
            per_channel=request.scheme.per_channel,
            nodes_to_exclude=sorted(request.floats),
            extra_options={"ActivationSymmetric": True},
        )
    return _read(target)


def _files(request: QuantizeRequest) -> tuple[Path, Path]:
    request.work.mkdir(parents=True, exist_ok=True)
    model = request.model.clone()
    name_nodes(model)
    source = request.work / "float.onnx"
    save_model(model, source)
    return source, request.work / "quantized.onnx"


def _reader(data: CalibrationData) -> object:
    base: Any = importlib.import_module("onnxruntime.quantization").CalibrationDataReader

    class Bridged(Reader, base):  # type: ignore[misc] # the base is found at run time
        """Our reader, registered as one of theirs."""

    return Bridged(data)


def _read(path: Path) -> ir.Model:
    if not path.is_file():
        raise ToolMissing("the quantizer wrote no file", where=path.parent.name)
    model = load_model(path)
    used = {node.domain for node in model.graph} | {""}
    for domain in list(model.opset_imports):
        if domain not in used:
            del model.opset_imports[domain]
    name_nodes(model)
    # weights live in the scratch folder, which does not last
    for value in model.graph.initializers.values():
        if value.const_value is not None and isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    return model


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Swallow prints, log lines and warnings of a vendor's package; errors pass."""
    before = logging.root.manager.disable
    handlers = logging.root.handlers[:]
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
