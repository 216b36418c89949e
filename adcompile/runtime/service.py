"""Bundles behind names, and the results that are kept: what ``serve`` answers, without the network."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from adcompile.errors import InputError, UsageError
from adcompile.fileset import write_text
from adcompile.manifest import TensorSpec
from adcompile.runtime.bundle import Bundle
from adcompile.runtime.deliver import deliver
from adcompile.runtime.images import read_image

Record = dict[str, object]

KEEP = ("all", "normal", "anomalous")
MAX_BODY = 1 << 26  # bytes of an image or archive
SUFFIXES: Mapping[str, str] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/bmp": ".bmp",
    "image/tiff": ".tiff",
    "image/webp": ".webp",
    "image/x-portable-pixmap": ".ppm",
    "application/x-npy": ".npy",
    "application/x-npz": ".npz",
}
"""Media types of a request, and the file that its body is."""

_RESULT = "result.json"
_NUMBER = re.compile(r"[0-9]{1,18}")


class NotThere(UsageError):
    """No model, category or result of that name."""


@dataclass
class Kept:
    """Results in *folder*, numbered from 1; those whose decision is not *keep* are not kept."""

    folder: Path
    keep: str = "all"
    _lock: Lock = field(default_factory=Lock)
    _last: int = 0

    def wants(self, decision: object) -> bool:
        """True when a result with this decision is kept; without a decision, under ``all`` only."""
        return self.keep in ("all", decision)

    def names(self) -> list[str]:
        """Numbers of all finished results, in order."""
        return [path.name for path in self._numbered() if _is_finished(path)]

    def _numbered(self) -> list[Path]:
        """Whatever has a number for a name, in order: results that are being written, too."""
        try:
            found = [p for p in self.folder.iterdir() if _NUMBER.fullmatch(p.name)]
        except OSError:
            return []
        return sorted(found, key=lambda path: int(path.name))

    def reserve(self) -> Path:
        """A new folder for a result, of a number that no other had since the start. Raises InputError
        when it cannot be made."""
        with self._lock:
            number = max([self._last, *(int(p.name) for p in self._numbered())]) + 1
            self._last = number
            path = self.folder / f"{number:06d}"
            try:
                path.mkdir(parents=True)
            except OSError as error:
                why = error.strerror or str(error)
                raise InputError("cannot keep results", where=str(path), why=why) from error
            return path

    def read(self, name: str) -> Record:
        """A kept result. Raises NotThere."""
        path = self._path(name) / _RESULT
        try:
            found: Record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotThere("no such result", where=name) from error
        return found

    def remove(self, name: str) -> None:
        """Delete a kept result. Raises NotThere."""
        with self._lock:  # whoever deletes it second is told that it is not there
            shutil.rmtree(self._path(name))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not _NUMBER.fullmatch(name) or not _is_finished(path):
            raise NotThere("no such result", where=name)
        return path


def _is_finished(result: Path) -> bool:
    return (result / _RESULT).is_file() and not result.is_symlink()


class Service:
    """Opened bundles by name; one request at a time runs in each."""

    def __init__(self, bundles: Mapping[str, Bundle], kept: Kept | None = None) -> None:
        self._bundles = dict(bundles)
        self._locks = {name: Lock() for name in bundles}
        self.kept = kept

    def models(self) -> list[Record]:
        """A line about every model."""
        return [
            {"name": name, "target": b.manifest.target, "categories": b.categories}
            for name, b in self._bundles.items()
        ]

    def model(self, name: str) -> Record:
        """What a model takes and gives, its threshold, and what executes it. Raises NotThere."""
        bundle = self._bundle(name)
        score = bundle.manifest.contract.score
        with self._locks[name]:
            where, simulated = bundle.where, list(bundle.simulated)
        return {
            "name": name,
            "target": bundle.manifest.target,
            "inputs": _specs(bundle.inputs),
            "outputs": _specs(bundle.outputs),
            "classes": list(bundle.manifest.contract.classes),
            "threshold": None if score is None else score.threshold,
            "categories": bundle.categories,
            "where": where,
            "simulated": simulated,
        }

    def check(self, name: str) -> None:
        """Raise NotThere when there is no such model."""
        self._bundle(name)

    def predict(
        self, name: str, body: bytes, suffix: str, category: str = "", min_score: float = 0.5
    ) -> Record:
        """Run a model on the file *body*, whose kind *suffix* says: an image or array for a model with
        one input, an ``.npz`` for any. Raises NotThere, InputError or UsageError."""
        bundle = self._bundle(name)
        if category and category not in bundle.categories:
            raise NotThere(
                f"{name} has no category {category!r}", fix=", ".join(bundle.categories)
            )
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / f"input{suffix}"
            file.write_bytes(body)
            try:
                return self._run(name, file, category, min_score)
            except InputError as error:
                if error.where == str(file):  # the client knows no file
                    error.where = "the body"
                raise

    def _run(self, name: str, file: Path, category: str, min_score: float) -> Record:
        bundle = self._bundle(name)
        with self._locks[name]:
            feeds, placements = bundle.feeds(file)
            result = bundle.run(feeds, category=category)
            contract = bundle.contract(category)
        manifest = bundle.manifest.model_copy(update={"contract": contract})
        where = next(iter(placements.values()), None)
        image = None if where is None else read_image(file)
        found: Record = {
            "model": name,
            "category": category,
            "milliseconds": round(sum(part.seconds for part in result.parts) * 1e3, 3),
            **deliver(manifest, result.outputs, None, image, where, min_score).summary,
        }
        if self.kept is None or not self.kept.wants(found.get("decision")):
            return found
        folder = self.kept.reserve()
        delivery = deliver(manifest, result.outputs, folder, image, where, min_score)
        shutil.copyfile(file, folder / file.name)
        found |= {"result": folder.name, "files": [*delivery.files, file.name]}
        # last, and at once: it is there now
        write_text(folder / _RESULT, json.dumps(found, indent=2))
        return found

    def _bundle(self, name: str) -> Bundle:
        if name not in self._bundles:
            raise NotThere(f"no model {name!r}", fix=f"one of {', '.join(self._bundles)}")
        return self._bundles[name]


def _specs(specs: Sequence[TensorSpec]) -> list[Record]:
    return [spec.model_dump(mode="json") for spec in specs]
