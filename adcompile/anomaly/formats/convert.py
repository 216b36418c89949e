"""Recognising a trained-model file by its content, and writing it as another format."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adcompile.anomaly.formats import anomalib, faiss_flat, ours, r0, r1, r3
from adcompile.anomaly.formats.record import Trained, refuse_findings
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


FORMATS: Mapping[str, Format] = {
    "r0-bin": Format("R0 board file", (".bin",), r0.read_bin, r0.write_bin),
    "r0-pth": Format("R0 checkpoint", (".pth",), r0.read_pth, r0.write_pth),
    "r1": Format("R1 meta.json with arrays", (".json",), r1.read_folder, r1.write_folder),
    "r1-npz": Format("R1 memory_bank.npz", (".npz",), r1.read_bank_npz, r1.write_bank_npz),
    "r1-stats": Format("R1 stats.npz", (), r1.read_stats, r1.write_stats),
    "r1-pth": Format("R1 model.pth", (), r1.read_network, r1.write_network),
    "faiss": Format(
        "FAISS IndexFlatL2", (".index", ".faiss"), faiss_flat.read_faiss, faiss_flat.write_faiss
    ),
    "hmc": Format("R3 trained data", (".hmc",), r3.read_hmc, r3.write_hmc),
    "r3-meta": Format("R3 meta_data.json", (), r3.read_numbers, r3.write_meta_data),
    "anomalib": Format(
        "anomalib checkpoint",
        (".ckpt", ".pt"),
        anomalib.read_checkpoint,
        anomalib.write_checkpoint,
    ),
    "bank": Format(
        "adcompile bank file", (".bank", ".adbank"), ours.read_bank_file, ours.write_bank_file
    ),
    "fit": Format("folder written by adcompile fit", (), ours.read_fitted, None),
    "category": Format("category folder of a bundle", (), ours.read_category_folder, None),
}
"""Format name to format; names are what ``adcompile bank convert --to`` takes."""


def detect(path: Path) -> str:
    """The format of a file or folder, from its content."""
    if path.is_dir():
        return _detect_folder(path)
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
        return "r3-meta" if path.name == "meta_data.json" else "r1"
    raise FormatError("the file is of no known format", where=str(path), fix=_KNOWN)


_KNOWN = "known: " + ", ".join(f"{name} ({f.text})" for name, f in FORMATS.items())


def _detect_folder(path: Path) -> str:
    if ours.is_fitted(path):
        return "fit"
    if (path / "category.json").is_file():
        return "category"
    if (path / "meta.json").is_file():
        return "r1"
    raise FormatError(
        "the folder is of no known format",
        where=str(path),
        why="it has no meta.json (R1), config.yaml (adcompile fit) or category.json (bundle)",
    )


def _detect_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise FormatError("the file is damaged", where=str(path), why=str(error)) from error
    if any(name.endswith(".npy") for name in names):
        return "r1-stats" if "mu.npy" in names else "r1-npz"
    content = read_torch_file(path)
    if r0.is_pth(content):
        return "r0-pth"
    if r3.is_hmc(content):
        return "hmc"
    return "anomalib" if anomalib.is_wrapped(content) else "r1-pth"


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
    """Write a record as *kind* (or as the ending says); returns the format's name.

    A record that contradicts itself is refused with the field named, whatever the format.
    """
    name = kind or format_for(path)
    if name not in FORMATS:
        raise UsageError(f"no format is called {name!r}", fix=f"one of {', '.join(FORMATS)}")
    write = FORMATS[name].write
    if write is None:
        raise UsageError(f"a {FORMATS[name].text} is read, not written", where=str(path))
    refuse_findings(trained, f"cannot write {FORMATS[name].text}")
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
    "learning_rate": float,
    "latent": int,
}


def with_values(trained: Trained, values: Mapping[str, str]) -> Trained:
    """The record with values set by name, as ``--set NAME=VALUE`` gives them; layers as ``A,B``."""
    fields: dict[str, float | int | str | tuple[int, int] | tuple[str, ...]] = {}
    for name, text in values.items():
        if name in _TEXTS:
            fields[name] = _TEXTS[name](text)
            continue
        kind = _SETTABLE.get(name)
        if kind is None:
            known = ", ".join([*_SETTABLE, *_TEXTS])
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


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


_TEXTS: Mapping[str, Callable[[str], str | tuple[int, int] | tuple[str, ...]]] = {
    "input_size": _size,
    "backbone": str,
    "layers": _names,
}
