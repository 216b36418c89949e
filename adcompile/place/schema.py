"""The plan's records: typed, printable as YAML, checked when read back.

What an editor may change: a part's name, role, placement, precision and options, and which part
lists a node. Everything else in the file is information and is worked out again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile.errors import FormatError
from adcompile.manifest import TensorSpec

SCHEMA = 1
MAX_PLAN_BYTES = 64 << 20
MAX_DEPTH = 16
SAFE_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"

RoiPolicy = Literal["", "auto", "loop", "bucket", "profile", "mosaic", "whole", "host"]


class Settings(BaseModel):
    """What a user can ask of the placement.

    ``device`` and ``host`` are selectors: ``name:NODE``, ``op:TYPE``, ``re:REGEX`` on node names,
    ``role:ROLE`` for what a part is, or a bare node name or op type. ``precisions`` maps a selector
    to a precision other than the plan's. ``roi_policy`` empty means the target's default,
    ``auto`` that the build chooses by cost when it knows how many regions images have,
    ``roi_buckets`` are the row counts of the policy ``bucket``;
    ``roi_rows`` is the nominal number of regions per image for every count. Parts below
    ``min_macs`` multiply-adds, and those that cost more than they save, go to the host unless
    ``keep_small``. ``memory_mib`` is what the board gives the device parts, 0 what the target says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    precisions: dict[str, str] = Field(default_factory=dict)
    roi_policy: RoiPolicy = ""
    roi_buckets: tuple[int, ...] = (1, 8, 32)
    roi_rows: int = Field(default=100, ge=1, le=100_000)
    min_macs: int = Field(default=0, ge=0)
    keep_small: bool = False
    memory_mib: int = Field(default=0, ge=0)

    def selectors(self) -> tuple[str, ...]:
        """All selectors in use."""
        return (*self.device, *self.host, *self.precisions)


class Why(BaseModel):
    """A reason, with how many nodes of the part it holds for and their op types.

    ``refused``: the target cannot run them, or nothing is known about them. Otherwise they are on
    the host by choice (the user's, or because it is better), or run with a caution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    nodes: int
    ops: tuple[str, ...] = ()
    refused: bool = False
    fix: str = ""
    fix_exactness: str = ""


class Cost(BaseModel):
    """Size and boundary of a part, per image. Times are rough estimates, used for nothing else.

    ``weights`` and ``activations`` are bytes of the device's memory (``place.memory``); 0 on the host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    macs: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    calls: int = 1
    saved_us: int = 0
    boundary_us: int = 0
    weights: int = 0
    activations: int = 0


class PolicyPlan(BaseModel):
    """What a region part would cost under one policy: means per image over the recorded images. ``us``
    is a rough estimate that only compares policies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    calls: float
    macs: float
    bytes: float
    us: float
    sizes: tuple[int, ...] = ()


class PartPlan(BaseModel):
    """One part of the plan: a name, where it runs, and its nodes in execution order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=SAFE_NAME)
    placement: Literal["device", "host"]
    role: str = Field(pattern=SAFE_NAME)
    precision: str
    rows: Literal["", "roi"] = ""
    options: dict[str, str] = Field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    cost: Cost = Cost()
    policies: tuple[PolicyPlan, ...] = ()
    why: tuple[Why, ...] = ()
    nodes: tuple[str, ...] = ()


class Plan(BaseModel):
    """The whole split of one model for one target. ``structure`` ties it to the model's graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    model: str
    structure: str
    target: str
    precision: str
    settings: Settings = Settings()
    coverage_nodes: float = 0.0
    coverage_macs: float = 0.0
    notes: tuple[str, ...] = ()
    parts: tuple[PartPlan, ...] = ()

    def dump(self) -> str:
        """The plan as YAML text; :func:`parse_plan` gives the same plan back."""
        data = self.model_dump(mode="json")
        return yaml.dump(  # pyright: ignore[reportUnknownMemberType]
            data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=99, indent=2
        )

    def part(self, name: str) -> PartPlan:
        """The part called *name*, which must be one of the plan's."""
        return next(p for p in self.parts if p.name == name)

    def options_of(self, name: str) -> dict[str, str]:
        """Options of a part; none for a part that only hands out constants, which no plan lists."""
        none: dict[str, str] = {}
        return next((p.options for p in self.parts if p.name == name), none)


class _Dumper(yaml.SafeDumper):
    """Blocks without anchors; tensor specs and lists of numbers on one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _mapping(dumper: _Dumper, data: dict[str, object]) -> yaml.MappingNode:
    inline = set(data) == set(TensorSpec.model_fields)
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=inline)


def _sequence(dumper: _Dumper, data: list[object]) -> yaml.SequenceNode:
    inline = not any(isinstance(item, (str, dict, list)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=inline)


_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _sequence)


def structure_of(nodes: Sequence[ir.Node]) -> str:
    """A short digest of node names and op types: equal for the graphs a plan fits."""
    text = "\n".join(f"{node.name}\t{node.domain}\t{node.op_type}" for node in nodes)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def parse_plan(text: str, where: str = "plan") -> Plan:
    """Read YAML text; raises FormatError naming the field at fault. Anchors are refused."""
    if len(text) > MAX_PLAN_BYTES:
        raise FormatError("plan is too large", where=where, why="over 64 MiB")
    try:
        _screen(text, where)
        raw: object = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if "nesting depth" in str(error):  # libyaml has a limit of its own
            raise FormatError("plan is nested too deeply", where=where) from error
        raise FormatError("plan is not YAML", where=where, why=_first_lines(error)) from error
    if not isinstance(raw, dict):
        raise FormatError("plan is not a mapping", where=where)
    schema: object = raw.get("schema_version", SCHEMA)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(schema, int) and schema > SCHEMA:
        raise FormatError(
            f"plan schema {schema} is newer than this adcompile reads ({SCHEMA})", where=where
        )
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"])
        raise FormatError(
            "plan does not fit its schema", where=f"{where}: {place}", why=first["msg"]
        ) from error


def _screen(text: str, where: str) -> None:
    """Refuse aliases (they multiply) and deep nesting (a loader would recurse)."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise FormatError("plan uses YAML aliases", where=where, fix="write values out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise FormatError("plan is nested too deeply", where=where)


def read_plan(path: Path) -> Plan:
    """Read a plan file; raises FormatError naming what is wrong with it."""
    if not path.is_file():
        raise FormatError("no such plan", where=str(path), fix="adcompile plan MODEL -t T -o FILE")
    if path.stat().st_size > MAX_PLAN_BYTES:
        raise FormatError("plan is too large", where=str(path), why="over 64 MiB")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError("cannot read the plan", where=str(path), why=str(error)) from error
    return parse_plan(text, str(path))


_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
