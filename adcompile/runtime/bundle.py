"""Open a bundle and run it: ``adcompile.load(folder)(image)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import cast

from adcompile import registry
from adcompile.contract import Contract
from adcompile.errors import FormatError, UsageError
from adcompile.manifest import Manifest, PartRecord, check_files, check_seal, read_manifest
from adcompile.runtime.categories import (
    Category,
    category_names,
    part_of,
    read_category,
    with_category,
)
from adcompile.runtime.executor import Array, Executor, Reporting, ReportLine
from adcompile.runtime.feeds import check_feeds, describe
from adcompile.runtime.inputs import Source, make_feeds
from adcompile.runtime.preprocess import Placement
from adcompile.runtime.runner import RunResult, Schedule, Tap, run_parts
from adcompile.unpack import bundle_folder

DEVICES = ("auto", "simulate", "require")


def load(
    folder: str | Path,
    device: str = "auto",
    *,
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
    check: bool = True,
) -> Bundle:
    """Open a bundle: a folder, or an archive of ``adcompile pack``, which is unpacked into the cache.
    Manifest, sizes and hashes are checked before anything of it is used.

    *device*: ``auto`` uses the vendor's runtime where it is present and simulates otherwise;
    ``simulate`` never uses it; ``require`` raises ToolMissing without it. *options* go to the
    executors. *check* False skips the hashes (for files that were checked a moment ago).
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device mode {device!r}", fix="one of: " + ", ".join(DEVICES))
    path = bundle_folder(Path(folder))
    manifest = read_manifest(path)
    if check and path == Path(folder):  # of an archive's copy all of it was checked just now
        check_seal(path)
        check_files(path, manifest)
    return Bundle(path, manifest, device, threads=threads, options=options)


class Bundle:
    """An opened bundle. Parts are opened on first use; call it, or use it in a ``with`` block."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        device: str = "auto",
        *,
        threads: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.device = device
        self.inputs = manifest.model.inputs
        self.outputs = manifest.model.outputs
        self._options = dict(options or {})
        self._options.setdefault("target", manifest.target)
        self._options["require_device"] = "true" if device == "require" else "false"
        self._options["simulate"] = "true" if device == "simulate" else "false"
        if threads is not None:
            self._options["threads"] = str(threads)
        self.schedule = Schedule.of(
            manifest.parts,
            [spec.name for spec in self.inputs],
            [spec.name for spec in self.outputs],
        )
        _check_part_files(manifest)
        self._executors: dict[tuple[str, str], Executor] = {}  # by part and category
        self._categories: dict[str, Category] = {}

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(map(describe, specs)) for specs in (self.inputs, self.outputs)
        )
        return f"<Bundle {str(self.path)!r} for {self.manifest.target}: {inputs} -> {outputs}>"

    def executor(self, part: PartRecord, category: str = "") -> Executor:
        """The executor of one part, opened on first use. Parts a category leaves alone are shared."""
        changed = part if not category else part_of(part, self.category(category))
        key = (part.name, "" if changed is part else category)
        found = self._executors.get(key)
        if found is None:
            found = self._make(changed)
            found.open(changed, self.path, self._options)
            self._executors[key] = found
        return found

    @property
    def categories(self) -> list[str]:
        """Names of the categories that were added to the bundle, besides its own."""
        return category_names(self.path)

    def category(self, name: str) -> Category:
        """One category, checked on first use. Raises UsageError when there is none of that name."""
        if name not in self._categories:
            self._categories[name] = read_category(self.path, self.manifest, name)
        return self._categories[name]

    def refresh(self) -> None:
        """Close categories, so that those added, replaced or removed since are seen as they are."""
        for key in [key for key in self._executors if key[1]]:
            self._executors.pop(key).close()
        self._categories.clear()

    def contract(self, category: str = "") -> Contract:
        """What the numbers mean: the manifest's contract, with the category's score."""
        if not category:
            return self.manifest.contract
        return with_category(self.manifest, self.category(category))

    def _make(self, part: PartRecord) -> Executor:
        if part.placement == "host" or self.device == "simulate":
            return executor_of("cpu")
        known = registry.EXECUTORS.names()
        if part.executor not in known and self.device != "require":
            return executor_of("cpu")  # a family whose runtime is not installed here
        return executor_of(part.executor)

    @property
    def executors(self) -> list[Executor]:
        """The executors of all parts, in execution order; opens those that are not open."""
        return [self.executor(part) for part in self.manifest.parts]

    @property
    def simulated(self) -> tuple[str, ...]:
        """Names of the parts that a CPU simulation runs instead of their device."""
        return tuple(part.name for part in self.manifest.parts if self.executor(part).simulated)

    @property
    def where(self) -> dict[str, str]:
        """Part name to what executes it, in words."""
        return {part.name: self.executor(part).where for part in self.manifest.parts}

    @property
    def placements(self) -> dict[str, list[ReportLine]]:
        """Part name to the vendor's own report of where it ran. Parts without one are left out."""
        found: dict[str, list[ReportLine]] = {}
        for part in self.manifest.parts:
            executor = self.executor(part)
            if isinstance(executor, Reporting) and executor.placement:
                found[part.name] = list(executor.placement)
        return found

    def __call__(self, source: Source, *, category: str = "") -> dict[str, Array]:
        """Run on an image (file, Pillow image, H×W×C array), or on input names mapped to values.

        *category* names one that was added to the bundle; without it the bundle's own bank and
        threshold count. Raises UsageError or InputError when the source does not fit the bundle.
        """
        return self.run(self.feeds(source)[0], category=category).outputs

    def run(
        self, feeds: Mapping[str, Array], *, tap: Tap | None = None, category: str = ""
    ) -> RunResult:
        """Run on input tensors; with counts per part. *tap* sees inputs and part outputs."""
        checked = check_feeds(self.inputs, feeds)
        executors = [self.executor(part, category) for part in self.manifest.parts]
        return run_parts(self.schedule, executors, checked, tap=tap)

    def feeds(self, source: Source) -> tuple[dict[str, Array], dict[str, Placement]]:
        """Input tensors of *source*, and where its images lie in them."""
        return make_feeds(self.inputs, self.manifest.contract, source)

    def close(self) -> None:
        """Free all sessions and device memory. Closing twice is harmless."""
        for executor in self._executors.values():
            executor.close()
        self._executors.clear()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def executor_of(family: str) -> Executor:
    """A new executor of a family, not opened. Raises UsageError for an unknown family."""
    found = registry.EXECUTORS.lookup(family)
    return cast("type[Executor]", found)()


def _check_part_files(manifest: Manifest) -> None:
    """Every file that a part names must be listed, so that its hash was checked."""
    for part in manifest.parts:
        for use, file in part.files.items():
            if file not in manifest.files:
                raise FormatError(
                    "part names a file that the manifest does not list",
                    where=f"part {part.name}: {use} = {file}",
                    fix="build the bundle again",
                )
