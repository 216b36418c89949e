"""From ``model.adz`` back to a bundle folder: the archive is not trusted.

Before anything is written, every entry's name, kind and size is held against the manifest inside; what
it does not list is refused. While a file is written its bytes are counted and hashed. The folder appears
when all of it is right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adcompile.cache import default_root
from adcompile.errors import FormatError, InputError
from adcompile.fileset import publish, staging
from adcompile.manifest import (
    ARCHIVE,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    FileRecord,
    check_bundle_path,
    check_files,
    check_seal,
    file_sha256,
    read_manifest,
)
from adcompile.pack import BLOCK
from adcompile.runtime.categories import FILE, FOLDER, parse_category
from adcompile.runtime.categories import MAX_BYTES as MAX_CATEGORY_BYTES

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_ENTRIES = 100_000
MOST_GROWTH = 100  # times the archive's size, once it is more than
SMALL = 1 << 30
KEY = 32  # hex digits of an archive's hash that name its cache folder
ENCRYPTED = 0x1
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError)


def bundle_folder(path: Path) -> Path:
    """The bundle folder of *path*: itself, or what an archive holds, unpacked into the cache.

    The cache is keyed by the archive's hash; the folder in it is called like the archive. A folder
    there that is no longer intact is made again. Raises FormatError for a hostile or damaged archive.
    """
    if not path.is_file() or path.suffix.lower() != ARCHIVE:
        return path
    home = default_root() / "bundles" / file_sha256(path)[:KEY]
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(
            "cannot unpack the archive into the cache",
            where=str(home),
            why=error.strerror or str(error),
            fix=f"adcompile unpack {path.name} -o DIR, and give DIR",
        ) from error
    folder = home / path.stem
    if _intact(path, folder):
        return folder
    if folder.is_symlink() or folder.is_file():  # never what a link points at
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # another process may be doing the same
    try:
        return unpack(path, folder)
    except InputError:
        if _intact(path, folder):  # another process was faster, and may be using it
            return folder
        raise


def _intact(archive: Path, folder: Path) -> bool:
    """True when *folder* holds the archive's own lists, the files of the manifest, and no other."""
    if folder.is_symlink():
        return False
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    try:
        with _opened(archive) as source:
            names = set(source.namelist())
            lists = [name for name in names if name == MANIFEST or _is_category(name)]
            if names != there or any(
                (folder / name).read_bytes() != source.read(name) for name in lists
            ):
                return False
        check_files(folder, read_manifest(folder))
    except (FormatError, OSError):
        return False
    return True


def unpack(archive: Path, folder: Path, *, force: bool = False) -> Path:
    """Unpack *archive* to the bundle folder *folder*, all of it or nothing.

    Raises FormatError naming the entry at fault; InputError when there is no room; UsageError when the
    folder is there and not *force*.
    """
    staged = staging(folder)
    try:
        with _opened(archive) as source:
            _extract(source, archive, staged)
        publish(staged, folder, replace=force)
    except OSError as error:
        raise InputError(
            "cannot unpack the archive", where=str(folder), why=error.strerror or str(error)
        ) from error
    finally:
        if staged.exists():
            shutil.rmtree(staged)
    return folder


@contextmanager
def _opened(archive: Path) -> Generator[zipfile.ZipFile]:
    if not archive.is_file():
        raise FormatError("no such archive", where=str(archive))
    try:
        with zipfile.ZipFile(archive) as source:
            yield source
    except _BROKEN as error:
        raise FormatError(
            "the archive is damaged",
            where=str(archive),
            why=str(error) or type(error).__name__,
            fix="copy it again",
        ) from error


def _extract(source: zipfile.ZipFile, archive: Path, staged: Path) -> None:
    entries = _entries(source)
    if MANIFEST not in entries:
        raise FormatError("not a packed bundle", where=str(archive), why=f"it has no {MANIFEST}")
    _check_room(entries, archive, staged)
    _write_listing(source, entries, staged, MANIFEST, MAX_MANIFEST_BYTES)
    manifest = read_manifest(staged)
    check_seal(staged)
    listed = dict(manifest.files)
    homes = [name for name in entries if _is_category(name)]
    for name in homes:
        _write_listing(source, entries, staged, name, MAX_CATEGORY_BYTES)
        place = name.removesuffix(FILE)
        category = parse_category(staged / name)
        listed |= {place + file: record for file, record in category.files.items()}
    _check(entries, listed, {MANIFEST, *homes})
    for name, record in sorted(listed.items()):
        _write(source, entries[name], staged / name, record)


def _is_category(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == FOLDER and parts[2] == FILE


def _entries(source: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Every entry by name. Refuses names that could lie outside or upon each other, links, passwords."""
    found: dict[str, zipfile.ZipInfo] = {}
    folded: dict[str, str] = {}
    infos = source.infolist()
    if len(infos) > MOST_ENTRIES:
        raise FormatError("too many files in the archive", why=f"over {MOST_ENTRIES:,}")
    for info in infos:
        name = info.filename
        if info.orig_filename != name or not name.isprintable():
            _refuse(info, "a name with characters that no bundle has")
        check_bundle_path(name)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            _refuse(info, "a link or a special file")
        if info.flag_bits & ENCRYPTED:
            _refuse(info, "encrypted")
        if info.compress_type not in METHODS:
            _refuse(info, "neither stored nor deflated")
        key = unicodedata.normalize("NFC", name).casefold()
        if key in folded:
            _refuse(info, f"the same file as {folded[key]}")
        folded[key] = name
        found[name] = info
    for key in folded:
        for end in (at for at, letter in enumerate(key) if letter == "/"):
            if key[:end] in folded:
                _refuse(found[folded[key]], f"inside {folded[key[:end]]}, which is a file")
    return found


def _refuse(info: zipfile.ZipInfo, why: str) -> None:
    raise FormatError("unsafe entry in the archive", where=repr(info.orig_filename), why=why)


def _check(
    entries: Mapping[str, zipfile.ZipInfo],
    listed: Mapping[str, FileRecord],
    listings: set[str],
) -> None:
    """Entries and lists must agree."""
    for name in sorted(entries.keys() | listed.keys()):
        if name in listings:
            if name in listed:
                raise FormatError("a list cannot list itself", where=name)
            continue
        check_bundle_path(name)
        if name not in listed:
            raise FormatError("the archive holds a file that no manifest lists", where=name)
        if name not in entries:
            raise FormatError("a file is missing in the archive", where=name, fix="pack it again")
        if entries[name].file_size != listed[name].size:
            why = f"{entries[name].file_size} bytes, the manifest says {listed[name].size}"
            raise FormatError("a file in the archive has the wrong size", where=name, why=why)


def _check_room(entries: Mapping[str, zipfile.ZipInfo], archive: Path, staged: Path) -> None:
    """The archive must not grow out of all proportion, and the disk must have room for it.

    By the sizes in its directory, which no entry exceeds when it is read: a thousand categories, each
    small enough, are a bomb too.
    """
    total = sum(info.file_size for info in entries.values())
    size = archive.stat().st_size
    if total > max(SMALL, MOST_GROWTH * size):
        why = f"{size:,} bytes would become {total:,}"
        raise FormatError("the archive unpacks to too much", where=str(archive), why=why)
    free = shutil.disk_usage(staged).free
    if total > free:
        why = f"{total:,} bytes are needed, {free:,} are free"
        raise InputError("no room to unpack the archive", where=str(staged.parent), why=why)


def _write_listing(
    source: zipfile.ZipFile,
    entries: Mapping[str, zipfile.ZipInfo],
    staged: Path,
    name: str,
    most: int,
) -> None:
    """Write a manifest; its own size is bounded, what it says is checked afterwards."""
    info = entries[name]
    with source.open(info) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise FormatError("a list in the archive is too large", where=name, why=f"over {most:,}")
    path = staged / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write(source: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, record: FileRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    left = record.size
    with source.open(info) as stream, path.open("xb") as target:
        while block := stream.read(BLOCK):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            target.write(block)
    if left:
        raise FormatError("a file in the archive has the wrong size", where=info.filename)
    if digest.hexdigest() != record.sha256:
        raise FormatError(
            "a file in the archive was changed",
            where=info.filename,
            why="its SHA-256 is not the one in the manifest",
            fix="pack the bundle again",
        )
    if (info.external_attr >> 16) & stat.S_IXUSR:
        os.chmod(path, 0o755)  # noqa: PTH101
