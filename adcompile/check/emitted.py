"""One part as a finished bundle runs it, before there is a bundle: to measure variants of a part."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adcompile.fileset import FileSet
from adcompile.interfaces import Array, Feeds
from adcompile.manifest import PartRecord
from adcompile.runtime.bundle import executor_of
from adcompile.runtime.executor import Executor
from adcompile.runtime.roi import run_part


@dataclass(frozen=True, slots=True)
class EmittedPart:
    """A part's manifest record, and the folder that its simulation files are in."""

    record: PartRecord
    folder: Path

    @classmethod
    def write(cls, record: PartRecord, files: FileSet, folder: Path) -> EmittedPart:
        """Write what the CPU simulation of an emitted part reads, and nothing else, below *folder*."""
        uses = {use: file for use, file in record.files.items() if use.startswith("simulation")}
        uses = uses or {"model": record.files["model"]}
        folder.mkdir(parents=True, exist_ok=True)
        files.write_into(folder, set(uses.values()))
        return cls(record.model_copy(update={"files": uses}), folder)

    @contextlib.contextmanager
    def opened(self) -> Generator[Executor]:
        """The CPU simulation, as a bundle opens it on a machine without the device."""
        executor = executor_of("cpu")
        executor.open(self.record, self.folder, {})
        try:
            yield executor
        finally:
            executor.close()


def outputs_of(
    record: PartRecord, executor: Executor, names: Sequence[str], feeds: Feeds
) -> list[Array]:
    """The outputs called *names* of a part, in that order, its rows run by their policy."""
    made = run_part(record, executor, feeds)
    return [made[name] for name in names]
