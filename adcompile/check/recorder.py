"""Make recordings: run the float parts over images and keep what crosses their borders."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from adcompile.check.recording import (
    INDEX,
    SAMPLES,
    Identity,
    IndexRecord,
    Recording,
    SampleRecord,
    read_index,
)
from adcompile.check.reference import FloatParts
from adcompile.contract import Contract
from adcompile.errors import InputError, UsageError
from adcompile.interfaces import Part
from adcompile.manifest import FileRecord, TensorSpec, check_bundle_path, file_sha256
from adcompile.runtime.arrays import safe_names, save_array
from adcompile.runtime.executor import Array
from adcompile.runtime.inputs import make_feeds

DEFAULT_BYTES = 8 << 30
Watch = Callable[[str, int, int], None]  # words, done, total


def record(
    parts: Sequence[Part],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    images: Mapping[str, Path],
    folder: Path,
    *,
    identity: Identity,
    contract: Contract,
    max_samples: int = 32,
    max_bytes: int = DEFAULT_BYTES,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Recording:
    """Record the boundary tensors of the float *parts* over *images* (name to file) in *folder*.

    An image that cannot be read or does not fit is skipped and listed. Raises UsageError when
    *folder* holds something else, InputError when no image could be used or the disk is full;
    what was recorded until then stays and is continued next time.
    """
    if max_samples < 1:
        raise UsageError(f"{max_samples} samples", fix="record at least one")
    state = _Recorder(folder, identity, _row_tensors(parts), max_bytes)
    ranked = sorted((_rank(identity.seed, name), name) for name in images)
    with FloatParts(parts, inputs, outputs, threads=threads) as chain:
        for rank, name in ranked:
            if len(state.samples) >= max_samples and rank > max(state.samples):
                break  # the rest of the order is larger still
            if rank in state.samples or name in state.skipped:
                continue
            if not state.room():
                break
            if watch is not None:
                watch(name, min(len(state.samples), max_samples), min(max_samples, len(ranked)))
            try:
                feeds = make_feeds(inputs, contract, images[name])[0]
            except (InputError, UsageError) as error:
                state.skip(name, " ".join(str(error).split())[:300])
                continue
            state.add(rank, name, feeds, chain)
            state.trim(max_samples)
    state.trim(max_samples)
    if not state.samples:
        raise InputError(
            "no image could be recorded",
            where=str(folder),
            why="; ".join(f"{n}: {why}" for n, why in list(state.skipped.items())[:3])
            or "none given",
        )
    return Recording.open(folder)


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _row_tensors(parts: Sequence[Part]) -> dict[str, str]:
    """Tensor name to the part whose regions its rows are."""
    found: dict[str, str] = {}
    for part in parts:
        if part.rows != "roi":
            continue
        for spec in (*part.inputs, *part.outputs):
            if spec.shape and isinstance(spec.shape[0], str):
                found.setdefault(spec.name, part.name)
    return found


class _Recorder:
    """The recording while it grows. The index is replaced after every sample."""

    def __init__(
        self, folder: Path, identity: Identity, rows: Mapping[str, str], max_bytes: int
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._rows = rows
        self._max_bytes = max_bytes
        self.samples: dict[str, SampleRecord] = {}
        self.skipped: dict[str, str] = {}
        self._start()

    def _start(self) -> None:
        found = read_index(self._folder)
        if found is None:
            if self._folder.exists() and any(self._folder.iterdir()):
                raise UsageError(
                    "folder is not empty and no recording",
                    where=str(self._folder),
                    fix="choose another -o",
                )
            self._save()
            return
        differing = [
            key
            for key, value in self._identity.model_dump().items()
            if getattr(found.identity, key) != value
        ]
        if differing:
            raise UsageError(
                "folder holds a recording of something else",
                where=str(self._folder),
                why="different: " + ", ".join(differing),
                fix="choose another -o",
            )
        for sample in found.samples:
            if all((self._folder / file).is_file() for file in sample.files):
                self.samples[sample.rank] = sample
        self.skipped = dict(found.skipped)

    def room(self) -> bool:
        """True while the files take less than the limit."""
        used = sum(f.size for s in self.samples.values() for f in s.files.values())
        return used < self._max_bytes

    def skip(self, name: str, why: str) -> None:
        """List an image that cannot be used."""
        self.skipped[name] = why
        self._save()

    def add(self, rank: str, name: str, feeds: Mapping[str, Array], chain: FloatParts) -> None:
        """Run one image and keep its tensors; one that makes NaN is listed as skipped."""
        readable = safe_names([Path(name).stem])[Path(name).stem].removesuffix(".npy")[:40]
        place = f"{SAMPLES}/{rank[:8]}_{readable}"
        target = self._folder / place
        if target.exists():
            shutil.rmtree(target)  # left behind by an interruption
        tensors: dict[str, Array] = {}
        chosen: dict[tuple[str, int], np.ndarray[tuple[int, ...], np.dtype[np.intp]]] = {}
        rng = np.random.default_rng(int(rank, 16))
        files: dict[str, str] = {}
        counts: dict[str, int] = {}

        def tap(tensor: str, array: Array) -> None:
            owner = self._rows.get(tensor)
            if owner is not None:
                counts.setdefault(owner, len(array))
            if owner is not None and len(array) > self._identity.rows_per_sample:
                key = (owner, len(array))
                if key not in chosen:
                    count = self._identity.rows_per_sample
                    chosen[key] = np.sort(rng.permutation(len(array))[:count])
                array = array[chosen[key]]
            tensors[tensor] = array

        chain.run(feeds, tap=tap)
        bad = [n for n, a in tensors.items() if a.dtype.kind == "f" and np.isnan(a).any()]
        if bad:
            self.skip(name, f"tensor {bad[0]!r} holds NaN")
            return
        names = safe_names(tensors)
        for tensor, array in tensors.items():
            files[tensor] = f"{place}/{names[tensor]}"
            save_array(self._folder / files[tensor], array)
        records = {
            file: FileRecord(
                size=(self._folder / file).stat().st_size, sha256=file_sha256(self._folder / file)
            )
            for file in files.values()
        }
        self.samples[rank] = SampleRecord(
            source=name, rank=rank, folder=place, tensors=files, files=records, rows=counts
        )
        self._save()

    def trim(self, count: int) -> None:
        """Drop the samples that lost their place."""
        lost = sorted(self.samples)[count:]
        if not lost:
            return
        folders = [self.samples.pop(rank).folder for rank in lost]
        self._save()
        for folder in folders:
            shutil.rmtree(self._folder / check_bundle_path(folder), ignore_errors=True)

    def _save(self) -> None:
        index = IndexRecord(
            identity=self._identity,
            row_tensors=tuple(sorted(self._rows)),
            samples=tuple(self.samples[rank] for rank in sorted(self.samples)),
            skipped=dict(sorted(self.skipped.items())),
        )
        staged = self._folder / f".{INDEX}.{time.monotonic_ns()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            staged.write_text(index.dump(), encoding="utf-8")
            staged.replace(self._folder / INDEX)
        except OSError as error:
            raise InputError(
                "cannot write the recording",
                where=str(self._folder),
                why=error.strerror or str(error),
            ) from error
