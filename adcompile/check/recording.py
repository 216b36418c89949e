"""Recordings: tensors at every part boundary over many images, for calibration.

    recording.json        what was recorded, of which model and parts; size and SHA-256 of each file
    samples/<n>_<name>/   one folder per image, one ``.npy`` per tensor

Which images are kept is a reservoir without memory: each gets a number from a hash of the seed and
its name, and the smallest numbers win. So the choice is random, the same on every machine, and a
stopped recording goes on where it was, also when images were added. Of tensors whose rows are
regions of interest a random choice of real rows is kept, never padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile.contract import Contract
from adcompile.errors import FormatError, InputError
from adcompile.interfaces import Part
from adcompile.manifest import FileRecord, TensorSpec, check_bundle_path, file_sha256
from adcompile.runtime.arrays import open_array
from adcompile.runtime.executor import Array

SCHEMA = 1
INDEX = "recording.json"
SAMPLES = "samples"
MAX_INDEX_BYTES = 64 << 20
ROWS_PER_SAMPLE = 64


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Record):
    """What a recording belongs to. Only a recording of the same is continued."""

    model: str  # SHA-256 of the source model
    parts: str  # digest of the parts' names and borders
    contract: str
    seed: int = 0
    rows_per_sample: int = ROWS_PER_SAMPLE


class SampleRecord(_Record):
    """One image: its name, its place in the random order, its tensors and their files.

    ``rows`` has the number of regions that reached each region part, before some were chosen.
    """

    source: str
    rank: str
    folder: str
    tensors: dict[str, str]
    files: dict[str, FileRecord]
    rows: dict[str, int] = Field(default_factory=dict)


class IndexRecord(_Record):
    """The whole of ``recording.json``. ``skipped`` has images that could not be used, and why."""

    schema_version: int = SCHEMA
    identity: Identity
    row_tensors: tuple[str, ...] = ()
    samples: tuple[SampleRecord, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)

    def dump(self) -> str:
        """Canonical JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Recording:
    """A finished recording on disk."""

    folder: Path
    index: IndexRecord

    @classmethod
    def open(cls, folder: Path) -> Recording:
        """Read and check the index, and the size of every file. Raises FormatError or InputError."""
        index = read_index(folder)
        if index is None:
            raise InputError(
                "not a recording",
                where=str(folder),
                why=f"it has no {INDEX}",
                fix="make one with `adcompile record`",
            )
        for sample in index.samples:
            for name, record in sample.files.items():
                path = folder / check_bundle_path(name)
                if path.is_symlink() or not path.is_file() or path.stat().st_size != record.size:
                    raise FormatError("recorded file is missing or cut", where=str(path))
        return cls(folder, index)

    def __len__(self) -> int:
        return len(self.index.samples)

    def tensors(self) -> tuple[str, ...]:
        """Names of all recorded tensors."""
        names = {name: None for s in self.index.samples for name in s.tensors}
        return tuple(names)

    def row_counts(self, part: str) -> list[int]:
        """Regions per image of a region part, images without any included; empty when unknown."""
        return [s.rows[part] for s in self.index.samples if part in s.rows]

    def of_part(self, name: str, inputs: Sequence[TensorSpec]) -> PartRecording:
        """Calibration data of a part: the samples that hold all of its *inputs*, with rows.

        Raises InputError when nothing was recorded for it.
        """
        wanted = [spec.name for spec in inputs]
        known = self.tensors()
        missing = [tensor for tensor in wanted if tensor not in known]
        if missing:
            raise InputError(
                f"nothing was recorded for part {name!r}",
                where=str(self.folder),
                why=f"it reads {missing[0]!r}, which this recording does not have",
                fix="record again with the plan of this build",
            )
        rows = set(self.index.row_tensors)
        chosen: list[SampleRecord] = []
        for sample in self.index.samples:
            if all(tensor in sample.tensors for tensor in wanted):
                arrays = [open_array(self.folder, sample.tensors[t]) for t in wanted if t in rows]
                if all(len(array) for array in arrays):
                    chosen.append(sample)
        if not chosen:
            raise InputError(
                f"nothing was recorded for part {name!r}",
                where=str(self.folder),
                why="no recorded image reached it with any region",
                fix="record images on which the model detects something",
            )
        return PartRecording(self.folder, tuple(wanted), tuple(chosen))


@dataclass(frozen=True)
class PartRecording:
    """Recorded inputs of one part (an ``interfaces.CalibrationData``); read while iterating."""

    folder: Path
    names: tuple[str, ...]
    samples: tuple[SampleRecord, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for sample in self.samples:
            found: dict[str, Array] = {}
            for name in self.names:
                file = sample.tensors[name]
                if file_sha256(self.folder / file) != sample.files[file].sha256:
                    raise FormatError("recorded file was changed", where=file, fix="record again")
                found[name] = np.array(open_array(self.folder, file))
            yield found


def identity_of(
    model_sha256: str,
    parts: Sequence[Part],
    contract: Contract,
    seed: int = 0,
    rows_per_sample: int = ROWS_PER_SAMPLE,
) -> Identity:
    """The identity of a recording of *parts*."""
    shape = [
        [p.name, p.rows, [s.model_dump(mode="json") for s in (*p.inputs, *p.outputs)]]
        for p in parts
    ]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
    return Identity(
        model=model_sha256,
        parts=digest,
        contract=contract.dump(),
        seed=seed,
        rows_per_sample=rows_per_sample,
    )


def read_index(folder: Path) -> IndexRecord | None:
    """The checked index of a recording; None where there is none."""
    path = folder / INDEX
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise FormatError("recording index too large", where=str(path))
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
        schema = raw.get("schema_version") if isinstance(raw, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(schema, int) and schema > SCHEMA:
            raise FormatError(
                f"recording schema {schema} is newer than this adcompile reads ({SCHEMA})",
                where=str(path),
            )
        index = IndexRecord.model_validate(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValidationError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError("recording index is not valid", where=str(path), why=reason) from error
    for sample in index.samples:
        check_bundle_path(sample.folder)
        for file in (*sample.files, *sample.tensors.values()):
            check_bundle_path(file)
        if set(sample.tensors.values()) != set(sample.files):
            raise FormatError("recording index contradicts itself", where=sample.folder)
    return index
