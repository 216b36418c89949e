"""Categories of a bundle: other banks and thresholds behind the same engine, switched per call.

```
BUNDLE/categories/NAME/
  category.json    score formula with its numbers, what it was made from, files with hashes, a seal
  PART.onnx          the host part that holds the search, with this category's bank
  bank/*.adbank      the bank as the C++ program reads it (PatchCore)
  statistics.adbank  mean and inverse covariance (PaDiM), for PART.onnx and for the C++ program
```

A category belongs to one build: ``engine`` lists the networks under ``parts/`` with their hashes, and
a reader refuses a category whose list differs from the bundle's. The bundle's own manifest does not
change when categories come and go.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from adcompile.contract import Contract, Score
from adcompile.errors import FormatError, UsageError
from adcompile.manifest import (
    SEAL,
    FileRecord,
    Manifest,
    PartRecord,
    Record,
    check_bundle_path,
    check_listed,
    seal_of,
)

FOLDER = "categories"
FILE = "category.json"
SCHEMA = 1
MAX_BYTES = 4 << 20

_BAD = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


class Category(Record):
    """One category. Paths are relative to its folder; ``parts`` maps a host part to its model."""

    schema_version: int = SCHEMA
    name: str
    engine: dict[str, str]
    score: Score
    made_from: str
    rows: int = 0
    columns: int = 0
    images: int = 0
    notes: tuple[str, ...] = ()
    parts: dict[str, str]
    banks: tuple[str, ...] = ()
    statistics: str = ""
    files: dict[str, FileRecord] = Field(default_factory=dict)

    def dump(self) -> str:
        """Canonical JSON with a seal over everything else."""
        data: dict[str, object] = self.model_dump(mode="json")
        data[SEAL] = seal_of(data)
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def check_name(name: str) -> str:
    """*name* when it can be a folder on every system; UsageError otherwise."""
    plain = name.strip()
    if not plain or plain != name or len(name) > 64 or name.endswith(".") or name.startswith("."):
        raise UsageError(
            f"{name!r} cannot be a category's name",
            why="1 to 64 characters, no space or dot at the ends",
        )
    found = _BAD.search(name)
    if found is not None:
        raise UsageError(f"{name!r} cannot be a category's name", why=f"it holds {found[0]!r}")
    return name


def engine_of(manifest: Manifest) -> dict[str, str]:
    """The networks of all parts and their hashes: what a category's features depend on."""
    return {
        path: record.sha256
        for path, record in sorted(manifest.files.items())
        if path.startswith("parts/") and path.endswith(".onnx")
    }


def category_names(bundle: Path) -> list[str]:
    """Names of the categories in a bundle, sorted."""
    folder = bundle / FOLDER
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{FILE}") if path.is_file())


def read_category(bundle: Path, manifest: Manifest, name: str) -> Category:
    """Read and check one category: seal, build it belongs to, every file's size and hash.

    Raises UsageError for an unknown name, FormatError with the field at fault otherwise.
    """
    known = category_names(bundle)
    if name not in known:
        raise UsageError(
            f"the bundle has no category {name!r}",
            where=str(bundle),
            why="it has " + (", ".join(known) if known else "none besides its own"),
            fix="add it: adcompile category add BUNDLE NAME --data DIR",
        )
    folder = bundle / FOLDER / name
    category = parse_category(folder / FILE)
    if category.name != name:
        raise FormatError(
            "a category was renamed", where=f"{folder / FILE}: name", why=category.name
        )
    check_engine(category, manifest, folder)
    check_listed(folder, category.files)
    return category


def parse_category(path: Path) -> Category:
    """The record of a category file; its seal is checked, its files are not."""
    if path.stat().st_size > MAX_BYTES:
        raise FormatError("category file too large", where=str(path))
    try:
        raw: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get(SEAL) != seal_of(raw):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise FormatError(
                "a category was changed after it was made",
                where=f"{path}: {SEAL}",
                fix="add the category again",
            )
        category = Category.model_validate(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError("category is not JSON", where=str(path), why=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(x) for x in first["loc"])
        raise FormatError(
            "category does not fit its schema", where=f"{path}: {field}", why=first["msg"]
        ) from error
    if category.schema_version > SCHEMA:
        raise FormatError(
            f"category schema {category.schema_version} is newer than this adcompile reads",
            where=str(path),
        )
    for name in (*category.files, *category.parts.values(), *category.banks):
        check_bundle_path(name)
    return category


def check_engine(category: Category, manifest: Manifest, where: Path) -> None:
    """Refuse a category that was made for other part files than the bundle's."""
    engine = engine_of(manifest)
    if category.engine == engine:
        return
    odd = sorted(
        path
        for path in category.engine.keys() | engine.keys()
        if category.engine.get(path) != engine.get(path)
    )
    raise FormatError(
        f"category {category.name!r} belongs to another build",
        where=f"{where}: engine",
        why=f"{odd[0]} differs",
        fix="add the category again from its images",
    )


def with_category(manifest: Manifest, category: Category) -> Contract:
    """The bundle's contract with the category's score."""
    fields: Mapping[str, object] = manifest.contract.model_dump()
    return Contract.model_validate({**fields, "score": category.score.model_dump()})


def part_of(part: PartRecord, category: Category) -> PartRecord:
    """The part with the category's model in place of its own, if the category has one."""
    file = category.parts.get(part.name)
    if file is None:
        return part
    path = f"{FOLDER}/{category.name}/{file}"
    return part.model_copy(update={"files": {"model": path}})


def carry_over(old: Path, manifest: Manifest, new: Path) -> list[str]:
    """Copy the categories of an older build that fit a new one; returns the names of the others.

    *manifest* and *new* are those of the new build, whose folder is not yet in place.
    """
    lost: list[str] = []
    for name in category_names(old):
        folder = old / FOLDER / name
        try:
            check_engine(parse_category(folder / FILE), manifest, folder)
        except FormatError:
            lost.append(name)
            continue
        shutil.copytree(folder, new / FOLDER / name)
    return lost
