"""Results of finished build steps, so that a build that was interrupted or repeated goes on.

An entry's key is the canonical JSON of everything that decides its content: input hashes, options,
the versions of adcompile's code and of the tools; never a file name or a time stamp. An entry is a
folder, written to a sibling and renamed, so a half-written one is never found. ``explain`` names the
field that made a step run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adcompile.fileset import publish, staging

KEY_FILE = "key.json"
DIGEST_FILE = "digest.json"
Fields = Mapping[str, str]


def default_root() -> Path:
    """``$XDG_CACHE_HOME/adcompile`` or ``~/.cache/adcompile``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adcompile"


@dataclass
class StepCache:
    """Folder of finished steps. ``log`` tells, in order, what was reused and what ran, and why."""

    root: Path | None = field(default_factory=default_root)
    log: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def step(self, name: str, fields: Fields, produce: Callable[[Path], None]) -> Path | None:
        """The folder of step *name* for *fields*; calls ``produce(folder)`` when there is none.

        Returns None when the cache is switched off; then the caller produces on its own.
        An entry whose files no longer match their recorded hashes is dropped and made again.
        """
        if self.root is None:
            return None
        text = _canonical({"step": name, **fields})
        entry = self.root / name / hashlib.sha256(text.encode()).hexdigest()[:32]
        if entry.is_dir():
            if _intact(entry):
                self.log.append((name, "reused", "same inputs, options and versions"))
                return entry
            shutil.rmtree(entry)
        reason = self.explain(name, fields)
        staged = staging(entry)
        try:
            produce(staged)
            (staged / KEY_FILE).write_text(text, encoding="utf-8")
            (staged / DIGEST_FILE).write_text(_canonical(_hashes(staged)), encoding="utf-8")
            publish(staged, entry, replace=True)
        finally:
            if staged.exists():
                shutil.rmtree(staged)
        self.log.append((name, "ran", reason))
        return entry

    def explain(self, name: str, fields: Fields) -> str:
        """Why step *name* has to run: the fields in which the nearest earlier entry differs."""
        if self.root is None:
            return "the cache is off"
        best: list[str] | None = None
        for key in sorted((self.root / name).glob(f"*/{KEY_FILE}")):
            try:
                old: dict[str, str] = json.loads(key.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            differing = [
                k for k in sorted({*fields, *old} - {"step"}) if old.get(k) != fields.get(k)
            ]
            if best is None or len(differing) < len(best):
                best = differing
        return "first time" if best is None else "changed: " + ", ".join(best)


def _canonical(data: Mapping[str, str]) -> str:
    return json.dumps(dict(data), sort_keys=True, indent=1)


def _hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != DIGEST_FILE:
            digest = hashlib.blake2b(digest_size=16)
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _intact(entry: Path) -> bool:
    try:
        recorded = json.loads((entry / DIGEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recorded == _hashes(entry))
