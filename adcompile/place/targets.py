"""Which targets there are: tables of chips and toolchains, looked up by name.

Each backend folder has a ``targets.yaml``; a bare family name means that family's default. A name
is ``family[:chip][@version]``: ``npu``, ``npu:stx``, ``trt:orin-nx@10.3``. A backend of a user's
own has its ``targets.yaml`` beside its Python file.
"""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile import registry
from adcompile.errors import FormatError, UsageError
from adcompile.target import Target

SHORTEST = 3  # letters of a word that is looked for in titles
TARGETS_FILE = "targets.yaml"


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A target of a table, with what else can be written instead of its name."""

    target: Target
    versions: tuple[str, ...]
    aliases: tuple[str, ...]
    is_default: bool


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Version(_Data):
    limits: dict[str, int] = Field(default_factory=dict)
    facts: dict[str, str] = Field(default_factory=dict)
    precisions: tuple[str, ...] = ()
    source: str = ""


class _Chip(_Data):
    title: str
    versions: dict[str, _Version] = Field(min_length=1)
    precisions: tuple[str, ...] = Field(min_length=1)
    default: str = ""
    aliases: tuple[str, ...] = ()
    limits: dict[str, int] = Field(default_factory=dict)
    facts: dict[str, str] = Field(default_factory=dict)
    source: str = ""


class _Family(_Data):
    family: str
    tool: str
    default: str
    names_show_version: bool = False
    sources: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, int] = Field(default_factory=dict)
    facts: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, _Version]
    chips: dict[str, _Chip]


def resolve_target(text: str, *, backend: str = "") -> Target:
    """The target called *text*. *backend* is a reference to a user's backend (``file.py:Name``).

    Raises UsageError with the closest names when there is no such family, chip or version.
    """
    family_name, _, rest = text.strip().partition(":")
    family_name, _, bare_version = family_name.partition("@")
    chip_name, _, version = rest.partition("@")
    family = _family(family_name, backend)
    chip_name = _chip_name(family, chip_name or family.default)
    return _target(family, chip_name, version or bare_version)


def target_rows(family: str | None = None) -> list[TargetRow]:
    """Every target of one family, or of all installed ones, at its default toolchain version."""
    names = [family] if family is not None else list(registry.BACKENDS.names())
    rows: list[TargetRow] = []
    for name in names:
        data = _family(name, "")
        rows += [
            TargetRow(
                target=_target(data, chip, ""),
                versions=tuple(spec.versions),
                aliases=spec.aliases,
                is_default=chip == data.default,
            )
            for chip, spec in data.chips.items()
        ]
    return rows


def _family(name: str, backend: str) -> _Family:
    if backend:
        path = _beside(backend)
    else:
        references = registry.BACKENDS.names()
        if name not in references:
            meant = _called(name)
            fix = (
                f"did you mean {', '.join(meant)}?" if meant else _closest(name, list(references))
            )
            raise UsageError(
                f"unknown target family {name!r}", fix=f"{fix} (adcompile list targets)"
            )
        path = _beside(references[name])
    data = _read(path)
    if name != data.family:
        raise UsageError(f"this backend's targets are called {data.family!r}", where=name)
    return data


def _called(text: str) -> list[str]:
    """Targets whose chip, other name, title or toolchain has *text* in it."""
    wanted = _folded(text)
    if len(wanted) < SHORTEST:
        return []
    return [
        row.target.name.partition("@")[0]
        for row in target_rows()
        if any(
            wanted in _folded(name)
            for name in (row.target.name, row.target.title, row.target.toolchain, *row.aliases)
        )
    ]


def _folded(text: str) -> str:
    """As it is compared: ``ryzen-ai``, ``Ryzen_AI`` and ``Ryzen AI`` are one."""
    return "".join(c for c in text.lower() if c.isalnum())


def _beside(reference: str) -> Path:
    """The targets file in the folder of the module that *reference* names; nothing is imported."""
    module = reference.rpartition(":")[0]
    if module.endswith(".py"):
        return Path(module).parent / TARGETS_FILE
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise UsageError("no such backend module", where=module)
    return Path(spec.origin).parent / TARGETS_FILE


@lru_cache(maxsize=32)
def _read(path: Path) -> _Family:
    try:
        raw: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            "this backend describes no targets",
            where=path.name,
            why=error.strerror or str(error),
            fix=f"put a {TARGETS_FILE} beside the backend's Python file",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError("targets file is not YAML", where=str(path), why=str(error)) from error
    try:
        data = _Family.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"])
        raise FormatError(
            "targets file is not valid", where=f"{path}: {place}", why=first["msg"]
        ) from error
    _check(data, path)
    return data


def _check(data: _Family, path: Path) -> None:
    """Names inside the file must refer to each other, so that every listed target resolves."""
    problems = [f"default chip {data.default!r}"] if data.default not in data.chips else []
    for name, chip in data.chips.items():
        problems += [f"{name}: version {v!r}" for v in chip.versions if v not in data.versions]
        if chip.default and chip.default not in chip.versions:
            problems.append(f"{name}: default version {chip.default!r}")
    if problems:
        raise FormatError(
            "targets file is not valid", where=str(path), why="not defined: " + "; ".join(problems)
        )


def _chip_name(family: _Family, name: str) -> str:
    aliases = {alias: chip for chip, spec in family.chips.items() for alias in spec.aliases}
    wanted = name.lower().replace("_", "-")
    if wanted in family.chips:
        return wanted
    if wanted in aliases:
        return aliases[wanted]
    raise UsageError(
        f"unknown target {family.family}:{name}",
        fix=_closest(wanted, [*family.chips, *aliases], f"{family.family}:"),
    )


def _target(family: _Family, chip_name: str, version: str) -> Target:
    chip = family.chips[chip_name]
    default = chip.default or next(iter(chip.versions))
    chosen = version or default
    if chosen not in chip.versions:
        raise UsageError(
            f"unknown version {chosen!r} for {family.family}:{chip_name}",
            fix="known: " + ", ".join(f"@{v}" for v in chip.versions),
        )
    common, own = family.versions[chosen], chip.versions[chosen]
    shown = chosen != default or (family.names_show_version and len(chip.versions) > 1)
    return Target(
        name=f"{family.family}:{chip_name}" + (f"@{chosen}" if shown else ""),
        family=family.family,
        title=chip.title,
        toolchain=f"{family.tool} {chosen}",
        precisions=own.precisions or chip.precisions,
        limits={**family.limits, **common.limits, **chip.limits, **own.limits},
        facts={
            **family.facts,
            "chip": chip_name,
            "version": chosen,
            **common.facts,
            **chip.facts,
            **own.facts,
        },
        source="; ".join(dict.fromkeys(s for s in (chip.source, common.source, own.source) if s)),
    )


def _closest(name: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=3)
    words = near if near else sorted(known)
    text = ", ".join(prefix + word for word in words)
    return f"did you mean {text}?" if near else f"known: {text}"
