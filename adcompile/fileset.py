"""An inert set of output files and actions: nothing is written or run while emitting.

Paths are checked once, here. ``write`` puts everything into a sibling folder, hashes it, and
renames it into place, so a reader never meets a half-written bundle.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from adcompile.errors import InputError, UsageError
from adcompile.manifest import ActionRecord, FileRecord, check_bundle_path, file_sha256

Writer = Callable[[Path], None]
Content = bytes | Writer


class FileSet:
    """Relative POSIX path to content. Content is bytes, or a function that writes a given path."""

    def __init__(self) -> None:
        self._files: dict[str, Content] = {}
        self._folded: dict[str, str] = {}
        self._actions: list[ActionRecord] = []
        self._executable: set[str] = set()

    def add(self, path: str, content: str | bytes, *, executable: bool = False) -> str:
        """Add text (UTF-8) or bytes. Refuses unsafe paths, duplicates and case clashes."""
        data = content.encode("utf-8") if isinstance(content, str) else bytes(content)
        return self._put(path, data, executable)

    def add_writer(self, path: str, writer: Writer) -> str:
        """Add a file whose bytes are produced when the set is written (large weights)."""
        return self._put(path, writer, executable=False)

    def _put(self, path: str, content: Content, executable: bool) -> str:
        name = str(check_bundle_path(path))
        folded = name.casefold()
        if folded in self._folded:
            raise UsageError("file added twice", where=name, why=f"also {self._folded[folded]}")
        self._folded[folded] = name
        self._files[name] = content
        if executable:
            self._executable.add(name)
        return name

    def act(self, action: ActionRecord) -> None:
        """Add a vendor command to run after writing, where its tool is present."""
        self._actions.append(action)

    def merge(self, other: FileSet) -> None:
        """Add everything of *other*; the same refusals hold."""
        for name, content in other._files.items():
            self._put(name, content, name in other._executable)
        self._actions += other._actions

    @property
    def actions(self) -> tuple[ActionRecord, ...]:
        return tuple(self._actions)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def text(self, path: str) -> str:
        """Content of a text file that was added as text or bytes (for tests and previews)."""
        content = self._files[path]
        if not isinstance(content, bytes):
            raise UsageError("file has no content before it is written", where=path)
        return content.decode("utf-8")

    def digest(self) -> str:
        """SHA-256 over names and contents of all in-memory files, in sorted order."""
        total = hashlib.sha256()
        for name in sorted(self._files):
            content = self._files[name]
            total.update(name.encode() + b"\0")
            if isinstance(content, bytes):
                total.update(hashlib.sha256(content).digest())
        return total.hexdigest()

    def write_into(
        self, folder: Path, only: Collection[str] | None = None
    ) -> dict[str, FileRecord]:
        """Write all files below *folder* (which exists); returns size and hash of each.

        *only* names the files that are wanted (their external data comes with them).
        """
        records: dict[str, FileRecord] = {}
        for name in sorted(self._files):
            if only is not None and name not in only and name.removesuffix(".data") not in only:
                continue
            path = folder / name
            try:
                self._write_one(name, path)
            except OSError as error:
                raise InputError(
                    "cannot write the output",
                    where=name,
                    why=error.strerror or str(error),
                    fix="free some space, or choose another -o",
                ) from error
            records[name] = FileRecord(size=path.stat().st_size, sha256=file_sha256(path))
        return records

    def _write_one(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self._files[name]
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        if name in self._executable:
            path.chmod(0o755)


def staging(target: Path) -> Path:
    """A fresh hidden folder beside *target*, on the same file system, for write-then-rename."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise InputError(
            "cannot write the output", where=str(target), why=error.strerror or str(error)
        ) from error


@contextmanager
def staged_file(target: Path) -> Generator[BinaryIO]:
    """A file that becomes *target* when the block ends well, and vanishes otherwise."""
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
    ) as stream:
        staged = Path(stream.name)
        try:
            yield cast(BinaryIO, stream)
            stream.close()
            staged.chmod(0o644)
            staged.replace(target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def write_text(target: Path, text: str) -> None:
    """Write one text file (UTF-8); a reader meets the old file or the new one. Raises InputError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(target) as stream:
            stream.write(text.encode("utf-8"))
    except OSError as error:
        raise InputError(
            "cannot write the file", where=str(target), why=error.strerror or str(error)
        ) from error


def is_empty(folder: Path) -> bool:
    """True for a folder that is there and holds nothing."""
    return folder.is_dir() and not any(folder.iterdir())


def check_writable(target: Path) -> None:
    """Refuse a *target* whose folder cannot take it; nothing is created. Raises InputError."""
    home = next((p for p in target.absolute().parents if p.exists()), Path("/"))
    if not home.is_dir():
        why = f"{home} is not a folder"
    elif not os.access(home, os.W_OK | os.X_OK):
        why = f"no permission to write into {home}"
    else:
        return
    raise InputError(
        "cannot write the output", where=str(target), why=why, fix="choose another -o"
    )


def publish(staged: Path, target: Path, *, replace: bool) -> None:
    """Rename *staged* to *target*. With *replace*, an older folder is swapped out, then removed."""
    staged.chmod(0o755)
    if is_empty(target):
        target.rmdir()
    if not target.exists():
        os.rename(staged, target)  # noqa: PTH104 - Path.rename would follow a link target
        return
    if not replace:
        raise UsageError(
            "output already exists", where=str(target), fix="choose another -o, or pass --force"
        )
    old = staging(target)
    old.rmdir()
    os.rename(target, old)  # noqa: PTH104
    os.rename(staged, target)  # noqa: PTH104
    shutil.rmtree(old) if old.is_dir() else old.unlink()


@contextmanager
def scratch() -> Generator[Path]:
    """A temporary folder that is gone afterwards, however the block ends.

    What the operating system refuses inside the block (a full disk, a quota, a folder without
    permission) is an InputError that names the file.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="adcompile-"))
    except OSError as error:
        raise InputError(
            "no room for temporary files",
            where=os.environ.get("TMPDIR") or "the system's temporary folders",
            why=error.strerror or str(error),
            fix="free some space, or set TMPDIR",
        ) from error
    try:
        yield folder
    except OSError as error:
        raise InputError(
            "cannot write a file",
            where=str(error.filename or folder),
            why=error.strerror or str(error),
            fix="free some space, or choose another -o and TMPDIR",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
