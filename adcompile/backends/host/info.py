"""What the generated program must know about its bundle, as C++ initialisers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adcompile.backends.host.codegen.literals import boolean, index, number
from adcompile.backends.host.codegen.registry import T
from adcompile.backends.host.codegen.writer import cpp_string
from adcompile.check.tolerance import ABSOLUTE_ROLES, FLOAT_DEFAULTS, Tolerance, Tolerances
from adcompile.contract import Contract, Preprocess, Score
from adcompile.errors import FormatError
from adcompile.manifest import GoldenSample, PartRecord, TensorSpec

_DTYPES = {
    "float32": "kFloat32",
    "float64": "kFloat64",
    "float16": "kFloat16",
    "bfloat16": "kBFloat16",
    "bool": "kBool",
    "int8": "kInt8",
    "int16": "kInt16",
    "int32": "kInt32",
    "int64": "kInt64",
    "uint8": "kUint8",
    "uint16": "kUint16",
    "uint32": "kUint32",
    "uint64": "kUint64",
}
FREE = -1


@dataclass(frozen=True)
class ProjectData:
    """Everything that goes into the tables."""

    model: str
    target: str
    records: Sequence[PartRecord]
    contract: Contract
    golden: Sequence[GoldenSample]
    outputs: Sequence[str]
    tolerances: Mapping[str, tuple[float, float]] | None
    banks: Sequence[tuple[str, bytes, int, int]]
    generated: Mapping[str, int]


def quoted(text: str) -> str:
    """A C++ string literal for any text."""
    return f'"{cpp_string(text)}"'


def braces(values: Iterable[object]) -> str:
    """``{a, b}``."""
    return "{" + ", ".join(str(v) for v in values) + "}"


class Values:
    """Numbers of the tensors that cross part borders, by name."""

    def __init__(self, records: Sequence[PartRecord]) -> None:
        self.specs: dict[str, TensorSpec] = {}
        for record in records:
            for spec in (*record.inputs, *record.outputs):
                self.specs.setdefault(spec.name, spec)
        self._numbers = {name: i for i, name in enumerate(self.specs)}

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def number(self, name: str) -> int:
        """The number of a tensor; FormatError when no part knows it."""
        if name not in self._numbers:
            raise FormatError("no part makes or reads this tensor", where=name)
        return self._numbers[name]

    def numbers(self, specs: Iterable[TensorSpec]) -> str:
        """Several of them as an initialiser."""
        return braces(self.number(s.name) for s in specs)


def bundle_tables(data: ProjectData) -> dict[str, object]:
    """The values of ``bundle_info.cpp.j2``."""
    values = Values(data.records)
    made = {s.name for r in data.records for s in r.outputs}
    inputs = [n for n in values.specs if n not in made]
    outputs = _outputs(data, values)
    roles = data.contract.roles
    tolerances = Tolerances.of(data.tolerances or {})
    return {
        "model": quoted(data.model),
        "target": quoted(data.target),
        "ports": [_port(s) for s in values.specs.values()],
        "inputs": braces(values.number(n) for n in inputs),
        "outputs": [braces([values.number(n), quoted(roles.get(n, "tensor"))]) for n in outputs],
        "parts": [_part(r, values, data.generated, tolerances) for r in data.records],
        "golden": [_golden(g, values) for g in data.golden],
        "tolerances": _host_tolerances(data.tolerances or {}),
        "run_tolerances": _run_tolerances(tolerances),
        "match": braces(_real(bound) for bound in (*tolerances.matched, tolerances.score_apart)),
        "images": [
            _image(values.number(name), spec)
            for name, spec in data.contract.inputs.items()
            if name in values
        ],
        "score": _score(data.contract.score),
        "classes": [quoted(c) for c in data.contract.classes],
        "banks": [_bank(*bank) for bank in data.banks],
    }


def _outputs(data: ProjectData, values: Values) -> list[str]:
    if data.outputs:
        return list(data.outputs)
    if data.golden:
        return [n for n in data.golden[0].outputs if n in values]
    read = {s.name for r in data.records for s in r.inputs}
    return [s.name for r in data.records for s in r.outputs if s.name not in read]


def _port(spec: TensorSpec) -> dict[str, str]:
    if spec.dtype not in _DTYPES:
        raise FormatError(f"element type {spec.dtype} has no C++ form", where=spec.name)
    dims = [d if isinstance(d, int) else FREE for d in spec.shape]
    return {"name": quoted(spec.name), "dtype": _DTYPES[spec.dtype], "dims": braces(dims)}


def _part(
    record: PartRecord, values: Values, generated: Mapping[str, int], tolerances: Tolerances
) -> dict[str, object]:
    host = record.placement == "host"
    return {
        "name": quoted(record.name),
        "role": quoted(record.role),
        "executor": quoted(record.executor),
        "precision": quoted(record.precision),
        "snr_db": _real(0.0 if host else tolerances.part(record.precision).snr_db),
        "generated": generated[record.name] if host else -1,
        "by_row": boolean(record.rows and not host),
        "row_sizes": braces(row_sizes(record)),
        "inputs": values.numbers(record.inputs),
        "outputs": values.numbers(record.outputs),
        "files": [braces([quoted(u), quoted(p)]) for u, p in sorted(record.files.items())],
        "options": [braces([quoted(n), quoted(v)]) for n, v in sorted(record.options.items())],
    }


def row_sizes(record: PartRecord) -> list[int]:
    """Row counts that the device model takes; empty when any will do."""
    options = record.options
    if not record.rows or "mosaic" in options:  # a mosaic takes any number
        return []
    if options.get("roi_policy") == "loop":
        return [1]
    text = options.get("row_sizes") or (
        options.get("roi_buckets", "") if options.get("roi_policy") == "bucket" else ""
    )
    try:
        sizes = sorted({int(x) for x in text.split(",") if x})
    except ValueError:
        sizes = [0]
    if any(s < 1 for s in sizes):
        raise FormatError("row sizes must be positive numbers", where=f"part {record.name}")
    return sizes


def _golden(sample: GoldenSample, values: Values) -> dict[str, object]:
    tensors = {**sample.inputs, **sample.boundaries, **sample.outputs}
    return {
        "source": quoted(sample.source or "golden sample"),
        "tensors": [
            braces([values.number(n), quoted(path)]) for n, path in tensors.items() if n in values
        ],
    }


def _host_tolerances(table: Mapping[str, tuple[float, float]]) -> list[str]:
    """Bounds of host parts on recorded inputs: the float ones, in which they compute."""
    known = {r: b for r, b in FLOAT_DEFAULTS.items() if ":" not in r}
    known |= {r: b for r, b in table.items() if ":" not in r and r not in known}
    return [_tolerance(role, Tolerance(*bound)) for role, bound in sorted(known.items())]


def _run_tolerances(tolerances: Tolerances) -> list[str]:
    """Bounds of the model's outputs where devices had a part in them: the manifest's."""
    return [_tolerance(role, tolerances.role(role)) for role in tolerances.roles]


def _tolerance(role: str, bound: Tolerance) -> str:
    numbers = (bound.rtol, bound.atol, boolean(role in ABSOLUTE_ROLES), _real(bound.snr_db))
    return braces([quoted(role), *numbers])


def _image(value: int, spec: Preprocess) -> str:
    to = spec.resize_to
    sides = (0, 0) if to is None else (to, to) if isinstance(to, int) else to
    reals = [braces(number(v, T.FLOAT) for v in row) for row in (spec.mean, spec.std)]
    return braces(
        [
            value,
            *spec.size,
            quoted(spec.resize),
            *sides,
            quoted(spec.resample),
            quoted(spec.channels),
            number(spec.scale, T.FLOAT),
            *reals,
            quoted(spec.layout),
            quoted(spec.dtype),
            spec.pad_value,
        ]
    )


def _real(value: float | None) -> str:
    return number(0.0 if value is None else value, T.DOUBLE)


def _score(score: Score | None) -> str:
    if score is None:
        return '{"", "none", false, 0.0, 0.0, false, 0.0, 0.0}'
    return braces(
        [
            quoted(score.method),
            quoted(score.normalisation),
            boolean(score.threshold is not None),
            _real(score.threshold),
            _real(score.decision),
            boolean(score.compare == ">="),
            _real(score.minimum),
            _real(score.maximum),
        ]
    )


def _bank(path: str, data: bytes, columns: int, neighbours: int) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return braces([quoted(path), index(columns), neighbours, quoted(digest)])
