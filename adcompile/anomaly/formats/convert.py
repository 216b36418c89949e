"""Recognising a trained-model file by its content, and writing it as another format."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adcompile.anomaly.bank import prepare_bank, read_bank, write_bank
from adcompile.anomaly.formats import anomalib, faiss_flat, r0, r1
from adcompile.anomaly.formats.npz import read_npz
from adcompile.anomaly.formats.record import Trained, need
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.sections import MAGIC as BANK_MAGIC
from adcompile.errors import FormatError, UsageError


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: what it is, the endings it has, how it is read and written."""

    text: str
    endings: tuple[str, ...]
    read: Callable[[Path], Trained]
    write: Callable[[Path, Trained], None] | None


def _read_ours(path: Path) -> Trained:
    bank = read_bank(path)
    notes = (f"contract {bank.contract}",) if bank.contract else ()
    return Trained("patchcore", "bank", bank=bank.original_rows(), notes=notes)


def _write_ours(path: Path, trained: Trained) -> None:
    need(trained, ("bank",), "a bank file")
    assert trained.bank is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bank(path, prepare_bank(trained.bank))


FORMATS: Mapping[str, Format] = {
    "r0-bin": Format("R0 board file", (".bin",), r0.read_bin, r0.write_bin),
    "r0-pth": Format("R0 checkpoint", (".pth",), r0.read_pth, r0.write_pth),
    "r1": Format("R1 meta.json with arrays", (".json",), r1.read_folder, r1.write_folder),
    "r1-npz": Format("R1 memory_bank.npz", (".npz",), r1.read_bank_npz, r1.write_bank_npz),
    "r1-stats": Format("R1 stats.npz", (), r1.read_stats, r1.write_stats),
    "faiss": Format(
        "FAISS IndexFlatL2", (".index", ".faiss"), faiss_flat.read_faiss, faiss_flat.write_faiss
    ),
    "hmc": Format("R3 trained data", (".hmc",), anomalib.read_checkpoint, anomalib.write_hmc),
    "anomalib": Format("anomalib checkpoint", (".ckpt", ".pt"), anomalib.read_checkpoint, None),
    "bank": Format("adcompile bank file", (".bank",), _read_ours, _write_ours),
}
"""Format name to format; names are what ``adcompile bank convert --to`` takes."""


def detect(path: Path) -> str:
    """The format of a file (or R1 folder), from its content."""
    if path.is_dir() and (path / "meta.json").is_file():
        return "r1"
    if not path.is_file():
        raise FormatError("no such file", where=str(path))
    with path.open("rb") as file:
        start = file.read(16)
    for magic, name in ((BANK_MAGIC, "bank"), (b"IxF", "faiss"), (r0.MAGIC, "r0-bin")):
        if start.startswith(magic):
            return name
    if start.startswith(b"PK"):
        return _detect_archive(path)
    if path.suffix == ".json":
        return "r1"
    raise FormatError(
        "the file is of no known format",
        where=str(path),
        why=f"it starts with {start[:8]!r}",
        fix="known: " + ", ".join(f"{name} ({f.text})" for name, f in FORMATS.items()),
    )


def _detect_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise FormatError("the file is damaged", where=str(path), why=str(error)) from error
    if any(name.endswith(".npy") for name in names):
        return "r1-stats" if "mu" in read_npz(path) else "r1-npz"
    if r0.is_pth(read_torch_file(path)):
        return "r0-pth"
    return "hmc" if path.suffix == ".hmc" else "anomalib"


def read_trained(path: Path, kind: str = "") -> Trained:
    """Read a trained-model file; *kind* overrides what its content says."""
    name = kind or detect(path)
    if name not in FORMATS:
        raise UsageError(f"no format is called {name!r}", fix=f"one of {', '.join(FORMATS)}")
    return FORMATS[name].read(path)


def format_for(path: Path) -> str:
    """The format an output name asks for by its ending."""
    for name, kind in FORMATS.items():
        if path.suffix.lower() in kind.endings and kind.write is not None:
            return name
    raise UsageError(
        f"the ending {path.suffix or '(none)'} names no format that can be written",
        where=str(path),
        fix="--to with one of " + ", ".join(n for n, f in FORMATS.items() if f.write),
    )


def write_trained(path: Path, trained: Trained, kind: str = "") -> str:
    """Write a record as *kind* (or as the ending says); returns the format's name."""
    name = kind or format_for(path)
    if name not in FORMATS:
        raise UsageError(f"no format is called {name!r}", fix=f"one of {', '.join(FORMATS)}")
    write = FORMATS[name].write
    if write is None:
        raise UsageError(f"{FORMATS[name].text} files are read, not written")
    write(path, trained)
    return name


_SETTABLE: Mapping[str, type[float] | type[int]] = {
    "threshold": float,
    "minimum": float,
    "maximum": float,
    "pixel_threshold": float,
    "decision": float,
    "ratio": float,
    "neighbours": int,
    "log_mean": float,
    "log_std": float,
}


def with_values(trained: Trained, values: Mapping[str, str]) -> Trained:
    """The record with numbers set by name, as ``--set NAME=VALUE`` gives them."""
    fields: dict[str, float | int | tuple[int, int]] = {}
    for name, text in values.items():
        if name == "input_size":
            fields[name] = _size(text)
            continue
        kind = _SETTABLE.get(name)
        if kind is None:
            known = ", ".join([*_SETTABLE, "input_size"])
            raise UsageError(f"no value is called {name!r}", fix=f"one of {known}")
        try:
            fields[name] = kind(text)
        except ValueError:
            raise UsageError(f"{name} needs a number", why=f"got {text!r}") from None
    return replace(trained, **fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() for part in parts):
        raise UsageError("input_size needs SIDE or HEIGHTxWIDTH", why=f"got {text!r}")
    return int(parts[0]), int(parts[-1])
