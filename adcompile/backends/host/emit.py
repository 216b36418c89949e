"""The bundle's ``host/`` project: generated parts, kernel library, programs, build files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.anomaly.statistics import FILE, USE, statistics_of
from adcompile.anomaly.threshold import check_score
from adcompile.backends.host.codegen.constants import StatisticsFile, StoredBank
from adcompile.backends.host.codegen.names import Namer, identifier
from adcompile.backends.host.codegen.text import Generated, environment, generate
from adcompile.backends.host.info import ProjectData, bundle_tables
from adcompile.contract import Contract
from adcompile.fileset import FileSet
from adcompile.interfaces import Part
from adcompile.manifest import GoldenSample, PartRecord

NATIVE = Path(__file__).parent / "native"
FOLDER = "host"

# compiled into the core of every project; engines, programs and picture formats are options
_NOT_CORE = (
    "app",
    "c_api",
    "engine_tensorrt",
    "engine_drpai",
    "engine_onnxruntime",
    "image_png",
    "image_jpeg",
    "image_opencv",
    "selftest_main",
    "draw",
    "threads_openmp",  # instead of threads.cpp
)
_TRAINING = ("coreset",)  # kernels of `adcompile fit`, not of a bundle
_BUILD_FILES = {
    "CMakeLists.txt.j2": "CMakeLists.txt",
    "CMakePresets.json.j2": "CMakePresets.json",
    "engines.cmake.j2": "cmake/engines.cmake",
    "aarch64.cmake.j2": "cmake/aarch64.cmake",
    "README.md.j2": "README.md",
}
_CPUS = {"drpai": "cortex-a55", "trt": "cortex-a78ae"}


def emit_host(
    parts: Sequence[Part],
    records: Sequence[PartRecord],
    contract: Contract,
    golden: Sequence[GoldenSample],
    out: FileSet,
    *,
    model: str = "model",
    target: str = "",
    outputs: Sequence[str] = (),
    tolerances: Mapping[str, tuple[float, float]] | None = None,
) -> FileSet:
    """Add the C++ project below ``host/`` (and prepared memory banks below ``bank/``) to *out*.

    *parts* and *records* are all parts of the bundle, in execution order; those placed on the host
    are lowered to C++. *outputs* are the model's outputs (default: those of the golden data, else
    what no part reads). Nothing is compiled or run. Raises Unsupported, naming the node, when a
    host part has an operator without a C++ kernel, and InputError when the contract's score cannot
    normalise (an empty range would make every picture look alike).
    """
    if contract.score is not None:
        check_score(contract.score, "contract.score")
    host = [(p.name, p.model) for p in parts if p.placement == "host"]
    generated = generate(host, _statistics(parts, records, contract, out))
    data = ProjectData(
        model=model,
        target=target,
        records=records,
        contract=contract,
        golden=golden,
        outputs=outputs,
        tolerances=tolerances,
        banks=_add_banks(generated.weights.banks, contract, out),
        generated={name: i for i, (name, _) in enumerate(host)},
    )
    tables = bundle_tables(data)
    text = environment().get_template("bundle_info.cpp.j2").render(info=tables)
    sources = {**generated.files, "bundle_info.cpp": text}
    for name, source in sources.items():
        out.add(f"{FOLDER}/src/{name}", source)
    if generated.weights.size:
        out.add(f"{FOLDER}/weights.bin", generated.weights.file())
    _add_native(out)
    _add_build_files(data, generated, sorted(sources), out)
    return out


def _statistics(
    parts: Sequence[Part], records: Sequence[PartRecord], contract: Contract, out: FileSet
) -> StatisticsFile | None:
    """The file of statistics that a host part has; it is added to *out* when its record names none."""
    for part, record in zip(parts, records, strict=True):
        found = statistics_of(part.model) if part.placement == "host" else None
        if found is None:
            continue
        data = found.file(hashlib.sha256(contract.dump().encode()).hexdigest())
        path = record.files.get(USE)
        if path is None:
            out.add(f"{FOLDER}/{FILE}", data)
        place = FILE if path is None else f"../{path}"
        return StatisticsFile(place, data, found)
    return None


def native_files() -> list[Path]:
    """Every file of the kernel library and runtime that a bundle gets, sorted."""
    found = (p for p in NATIVE.iterdir() if p.suffix in {".hpp", ".cpp", ".h"})
    return sorted(p for p in found if not p.name.startswith(_TRAINING))


def _add_native(out: FileSet) -> None:
    for path in native_files():
        out.add(f"{FOLDER}/native/{path.name}", path.read_bytes())


def core_sources() -> list[str]:
    """The ``.cpp`` files of the library that every project compiles."""
    names = [p.name for p in native_files() if p.suffix == ".cpp"]
    return [n for n in names if not n.startswith(_NOT_CORE)]


def _add_build_files(
    data: ProjectData, generated: Generated, sources: Sequence[str], out: FileSet
) -> None:
    families = [r.executor for r in data.records if r.placement == "device"]
    values: dict[str, object] = {
        "core": core_sources(),
        "sources": sources,
        "program": program_name(data.contract),
        "model": identifier(data.model),
        "target": data.target or "the host",
        "cpu": next((_CPUS[f] for f in families if f in _CPUS), "cortex-a55"),
        "parts": generated.parts,
        "statistics": generated.statistics,
    }
    for template, name in _BUILD_FILES.items():
        text = environment().get_template(template).render(values)
        out.add(f"{FOLDER}/{name}", text)


def program_name(contract: Contract) -> str:
    """The program is called after what it does: the detector's method, ``detect`` or ``run``."""
    if contract.score is not None:
        return contract.score.method
    return "detect" if "boxes" in contract.roles.values() else "infer"


def _add_banks(
    banks: Sequence[StoredBank], contract: Contract, out: FileSet
) -> list[tuple[str, bytes, int, int]]:
    """Prepare every bank for search and add its file; (path, file, columns, neighbours) of each."""
    namer = Namer()
    identity = hashlib.sha256(contract.dump().encode()).hexdigest()
    found: list[tuple[str, bytes, int, int]] = []
    for bank in banks:
        prepared = prepare_bank(bank.rows, contract=identity)
        data = pack_bank(prepared)
        path = out.add(f"bank/{namer.unique(bank.name, 'bank')}.adbank", data)
        found.append((path, data, prepared.columns, bank.neighbours))
    return found
