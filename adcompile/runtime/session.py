"""ONNX Runtime sessions: the only place of the runtime that talks to ``onnxruntime``.

A session is opened once and run many times. Threads are bounded and stop spinning between runs, so
that the sessions of several parts share the cores of a small board instead of fighting for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from adcompile.errors import FormatError, InputError, ToolMissing, UsageError
from adcompile.manifest import TensorSpec
from adcompile.parallel import cores
from adcompile.runtime.executor import Array
from adcompile.runtime.narrow import NARROW, OrtValue, from_ort, to_ort

CPU_PROVIDER = "CPUExecutionProvider"
MAX_THREADS = 16
# session config: 8-bit products must not saturate on processors without dot-product instructions
EXACT_INTEGERS: Mapping[str, str] = {"session.x64quantprecision": "1"}

# ONNX Runtime's type names and numpy's; ``narrow`` has those that numpy lacks
TYPE_NAMES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "str",
    **{name: narrow.name for name, narrow in NARROW.items()},
}


class _Value(Protocol):
    name: str
    type: str
    shape: list[int | str | None]


class _Inference(Protocol):
    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]: ...
    def run_with_ort_values(
        self, names: list[str], feeds: dict[str, OrtValue]
    ) -> list[OrtValue]: ...
    def get_inputs(self) -> list[_Value]: ...
    def get_outputs(self) -> list[_Value]: ...
    def get_providers(self) -> list[str]: ...


class _Options(Protocol):
    log_severity_level: int
    intra_op_num_threads: int
    inter_op_num_threads: int
    graph_optimization_level: object

    def add_session_config_entry(self, key: str, value: str) -> None: ...


class _OptionsType(Protocol):
    def __call__(self) -> _Options: ...


class _InferenceType(Protocol):
    def __call__(
        self, source: str | bytes, options: _Options, *, providers: list[object]
    ) -> _Inference: ...


class _Levels(Protocol):
    ORT_ENABLE_ALL: object
    ORT_DISABLE_ALL: object


class _Ort(Protocol):
    __version__: str
    SessionOptions: _OptionsType
    InferenceSession: _InferenceType
    GraphOptimizationLevel: _Levels

    def get_available_providers(self) -> list[str]: ...


def runtime() -> _Ort:
    """The ``onnxruntime`` module, imported on first use; ToolMissing when it is not installed."""
    try:
        return cast(_Ort, importlib.import_module("onnxruntime"))
    except ImportError as error:
        raise ToolMissing(
            "onnxruntime is not installed", why=str(error), fix="pip install onnxruntime"
        ) from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """Every exception class that ONNX Runtime raises. They derive from Exception alone."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return (*own, RuntimeError, ValueError, TypeError)


def available_providers() -> tuple[str, ...]:
    """The execution providers of the installed ONNX Runtime."""
    return tuple(runtime().get_available_providers())


def default_threads() -> int:
    """Number of cores this process may use, at most 16."""
    return cores(MAX_THREADS)


class Session:
    """An opened model. ``inputs`` and ``outputs`` are its interface, in the model's order."""

    def __init__(self, inference: _Inference, where: str) -> None:
        self._inference = inference
        self._errors = runtime_errors()
        self.where = where
        self.inputs = tuple(_spec(value) for value in inference.get_inputs())
        self.outputs = tuple(_spec(value) for value in inference.get_outputs())
        self.providers = tuple(inference.get_providers())
        self._output_names = [spec.name for spec in self.outputs]
        self._kinds = {value.name: value.type for value in inference.get_inputs()}
        kinds = {*self._kinds.values(), *(value.type for value in inference.get_outputs())}
        self._narrow = not kinds.isdisjoint(NARROW)

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Execute once. Inputs are not copied; raises InputError with ONNX Runtime's reason."""
        names = list(outputs) if outputs is not None else self._output_names
        try:
            if self._narrow:
                results = self._run_narrow(names, feeds)
            else:
                results = self._inference.run(names, dict(feeds))
        except self._errors as error:
            raise InputError(
                "the model could not be run on this input",
                where=self.where,
                why=short_reason(error),
            ) from error
        return dict(zip(names, results, strict=True))

    def _run_narrow(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """A run in which a type takes part that numpy lacks."""
        given = {name: to_ort(array, self._kinds.get(name, "")) for name, array in feeds.items()}
        return [from_ort(v) for v in self._inference.run_with_ort_values(names, given)]


def open_session(
    source: Path | bytes,
    providers: Sequence[str] = (CPU_PROVIDER,),
    *,
    threads: int | None = None,
    provider_options: Sequence[Mapping[str, str]] | None = None,
    optimize: bool = True,
    config: Mapping[str, str] | None = None,
    where: str = "",
) -> Session:
    """Open a model file (or its bytes) on *providers*, the first that can run a node runs it.

    *threads* None means :func:`default_threads`. *config* are session config entries. On the CPU a
    model that ONNX Runtime's own optimizer spoils (some valid ones with dead branches) is opened as
    it is. Raises UsageError for a provider that is not there (naming those that are), FormatError
    when ONNX Runtime refuses the model.
    """
    check_providers(providers)
    count = default_threads() if threads is None else threads
    if not 1 <= count <= 256:
        raise UsageError(f"{count} threads", fix="give 1 … 256")
    place = where or (source.name if isinstance(source, Path) else "model")
    model = str(source) if isinstance(source, Path) else source
    chosen = _with_options(providers, provider_options)
    refusals: list[Exception] = []
    for level in (
        (True, False) if optimize and tuple(providers) == (CPU_PROVIDER,) else (optimize,)
    ):
        options = _session_options(count, level, config or {})
        try:
            return Session(runtime().InferenceSession(model, options, providers=chosen), place)
        except runtime_errors() as error:
            refusals.append(error)
    raise FormatError(
        "ONNX Runtime cannot load the model", where=place, why=short_reason(refusals[0])
    ) from refusals[0]


def _session_options(threads: int, optimize: bool, config: Mapping[str, str]) -> _Options:
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # its errors come back as exceptions; stderr stays clean
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    )
    # threads of one part must not spin while another part works on the same cores
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return options


def check_providers(providers: Sequence[str]) -> None:
    """Refuse an execution provider that the installed ONNX Runtime does not have."""
    present = available_providers()
    missing = [name for name in providers if name not in present]
    if missing or not providers:
        raise UsageError(
            f"unknown execution provider {', '.join(missing) or '(none given)'}",
            why="this ONNX Runtime has: " + ", ".join(present),
            fix="install the vendor's ONNX Runtime, or use one of those",
        )


def _with_options(
    providers: Sequence[str], options: Sequence[Mapping[str, str]] | None
) -> list[object]:
    if options is None:
        return list(providers)
    return [(name, dict(own)) for name, own in zip(providers, options, strict=True)]


def _spec(value: _Value) -> TensorSpec:
    shape = value.shape if value.type.startswith("tensor") else None
    dims = tuple(d if isinstance(d, int | str) else "?" for d in shape or ())
    return TensorSpec(name=value.name, dtype=_type_name(value.type), shape=dims)


def _type_name(kind: str) -> str:
    """``seq(tensor(float))`` as ``sequence(float32)``; unknown names stay as they are."""
    if kind in TYPE_NAMES:
        return TYPE_NAMES[kind]
    outer, _, inner = kind.removesuffix(")").partition("(")
    if outer not in {"seq", "optional"}:
        return kind
    return f"{'sequence' if outer == 'seq' else outer}({_type_name(inner)})"


def short_reason(error: Exception) -> str:
    """ONNX Runtime's message on one line, at most 400 characters."""
    return " ".join(str(error).split())[:400]
