"""A bundle as one file to carry to the board: ``model.adz``, a ZIP whose bytes depend on its content.

Names are sorted, there is no clock, and files are stored as they are, so that the same bundle gives the
same file on every machine. Groups that a board does not need can be left out: the manifest inside then
does not list them, and says so in ``left_out``. ``unpack`` is the other direction.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from adcompile.errors import InputError, UsageError
from adcompile.fileset import staged_file
from adcompile.manifest import (
    MANIFEST,
    Manifest,
    check_files,
    check_listed,
    check_seal,
    file_sha256,
    read_manifest,
)
from adcompile.runtime.categories import FILE, FOLDER, category_names, read_category

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that ZIP knows
UNIX = 3
BLOCK = 1 << 20

GOLDEN, HOST, REPORT, CALIB, CATEGORIES = "golden", "host", "report", "calib", "categories"
GROUPS: Mapping[str, str] = {
    GOLDEN: "golden and judged data: verify and bench need it",
    HOST: "the C++ project",
    REPORT: "report.html",
    CALIB: "calibration and reference data of vendor recipes",
    CATEGORIES: "the categories that were added to the bundle",
}


@dataclass(frozen=True, slots=True)
class Packed:
    """The file that was written. ``unpacked`` is the bytes of what it holds."""

    path: Path
    sha256: str
    files: int
    size: int
    unpacked: int
    left_out: tuple[str, ...]

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "archive": str(self.path),
            "sha256": self.sha256,
            "files": self.files,
            "size": self.size,
            "unpacked": self.unpacked,
            "left_out": list(self.left_out),
        }


def pack(
    bundle: Path,
    target: Path,
    *,
    without: Collection[str] = (),
    compress: bool = False,
    force: bool = False,
) -> Packed:
    """Write the bundle folder *bundle* to *target*, without the groups *without* (see ``GROUPS``).

    Seal and hashes are checked first; files that no manifest lists are not packed. *compress* deflates:
    smaller, but the bytes then depend on the zlib release. Raises FormatError, UsageError or InputError.
    """
    manifest = read_manifest(bundle)
    check_seal(bundle)
    check_files(bundle, manifest)
    if target.exists() and not (force and target.is_file()):
        fix = "choose another -o" + ("" if force else ", or pass --force")
        raise UsageError("output already exists", where=str(target), fix=fix)
    slim = leave_out(manifest, without)
    names = [*slim.files, *(() if CATEGORIES in slim.left_out else _categories(bundle, manifest))]
    text = slim.dump() if slim.left_out else (bundle / MANIFEST).read_text(encoding="utf-8")
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    total = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in sorted([MANIFEST, *names]):
                data = text.encode("utf-8") if name == MANIFEST else None
                total += _add(archive, bundle / name, name, data, method)
    except OSError as error:
        raise InputError(
            "cannot write the archive",
            where=str(target),
            why=error.strerror or str(error),
            fix="free some space, or choose another -o",
        ) from error
    size = target.stat().st_size
    return Packed(target, file_sha256(target), len(names) + 1, size, total, slim.left_out)


def leave_out(manifest: Manifest, groups: Collection[str]) -> Manifest:
    """The manifest of the bundle without *groups*, and without what refers to them.

    Raises UsageError for an unknown group, and for data that a step that is left to do reads.
    """
    for group in groups:
        if group not in GROUPS:
            raise UsageError(f"nothing is called {group!r}", fix=f"known: {', '.join(GROUPS)}")
    waiting = [action.name for action in manifest.actions if action.state == "pending"]
    if CALIB in groups and waiting:
        fix = "run it first, or keep calib"
        raise UsageError("the data is still needed", why=f"left to do: {waiting[0]}", fix=fix)
    if not groups:
        return manifest
    files = {n: r for n, r in manifest.files.items() if _group(n) not in groups}
    update: dict[str, object] = {
        "files": files,
        "left_out": tuple(sorted({*groups, *manifest.left_out})),
    }
    if GOLDEN in groups:
        update |= {"golden": (), "accuracy": None}
    return manifest.model_copy(update=update)


def _group(name: str) -> str:
    head, *rest = name.split("/")
    if head == "parts" and len(rest) > 2 and rest[1] in {"calib", "reference"}:
        return CALIB
    return REPORT if name == "report.html" else head if rest else ""


def _categories(bundle: Path, manifest: Manifest) -> list[str]:
    """Bundle paths of all files of all categories; their seals and hashes are checked."""
    found: list[str] = []
    for name in category_names(bundle):
        category = read_category(bundle, manifest, name)
        check_listed(bundle / FOLDER / name, category.files)
        found += [f"{FOLDER}/{name}/{file}" for file in (FILE, *category.files)]
    return found


def _add(archive: zipfile.ZipFile, path: Path, name: str, data: bytes | None, method: int) -> int:
    """Add one file, or *data* under its name; returns the bytes it holds."""
    info = zipfile.ZipInfo(name, EPOCH)
    runs = data is None and bool(path.stat().st_mode & 0o100)
    info.create_system = UNIX
    info.external_attr = (stat.S_IFREG | (0o755 if runs else 0o644)) << 16
    info.compress_type = method
    info.file_size = path.stat().st_size if data is None else len(data)
    with archive.open(info, "w") as entry:
        if data is not None:
            entry.write(data)
            return len(data)
        with path.open("rb") as source:
            while block := source.read(BLOCK):
                entry.write(block)
    return info.file_size
