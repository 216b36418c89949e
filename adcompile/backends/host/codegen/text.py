"""C++ files of a set of parts, through the templates."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import jinja2
import onnx_ir as ir

from adcompile.anomaly.statistics import FILE
from adcompile.backends.host.codegen.anomaly import without_functions
from adcompile.backends.host.codegen.constants import StatisticsFile, WeightStore
from adcompile.backends.host.codegen.early import with_early_moves
from adcompile.backends.host.codegen.names import Namer
from adcompile.backends.host.codegen.statements import Line, Statement, render, wrap
from adcompile.backends.host.codegen.writer import PartSource, write_part

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@cache
def environment() -> jinja2.Environment:
    """Templates of ``adcompile/templates/host``; an undefined name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("adcompile.templates.host", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C++, not HTML; model text passes codegen.names first
    )


@dataclass(frozen=True)
class PartFiles:
    """One generated part: its name in the bundle, identifier, source text, port data."""

    name: str
    ident: str
    text: str
    source: PartSource


@dataclass(frozen=True)
class Generated:
    """All generated sources: file name (below ``src``) to text, and the constants."""

    files: Mapping[str, str]
    parts: Sequence[PartFiles]
    weights: WeightStore
    statistics: StatisticsFile | None = None


def generate(
    models: Sequence[tuple[str, ir.Model]], statistics: StatisticsFile | None = None
) -> Generated:
    """Lower host parts (name, stand-alone model), in execution order.

    *statistics* is the bank file that PaDiM's statistics lie in; without it they get one that belongs
    beside ``weights.bin``.
    """
    store = WeightStore() if statistics is None else WeightStore(statistics.content)
    namer = Namer()
    parts: list[PartFiles] = []
    files: dict[str, str] = {}
    for name, model in models:
        source = write_part(with_early_moves(without_functions(model)), name, store)
        ident = namer.unique(name, "part").lower()
        text = part_text(source, ident)
        parts.append(PartFiles(source.name, ident, text, source))
        files[f"parts/{ident}.cpp"] = text
    weights = {"size": store.size, "sha256": store.sha256().hex()}
    if statistics is None and store.statistics is not None:
        statistics = StatisticsFile(FILE, store.statistics.file(), store.statistics)
    template = environment().get_template("parts.cpp.j2")
    files["parts.cpp"] = template.render(parts=parts, weights=weights, statistics=statistics)
    return Generated(files, parts, store, statistics)


def _prologue(source: PartSource, used: Collection[str]) -> list[Statement]:
    """Names for inputs and constants; inputs that nothing reads are only checked."""
    lines: list[Statement] = []
    for i, port in enumerate(source.inputs):
        given = f"in[{i}], input_ports()[{i}]"
        if port.name in used:
            lines.append(Line(f"const auto {port.name} = adc::checked<{port.cpp}>({given});"))
        else:
            lines.append(Line(f"adc::check_port({given});"))
    for c in source.constants:
        if c.values:
            lines.append(Line(f"const View<{c.cpp}> {c.name}(k_{c.name}, {c.shape});"))
        else:
            view = f"resources_.{c.file}.view<{c.cpp}>({c.offset}, {c.shape})"
            lines.append(Line(f"const auto {c.name} = {view};"))
    return lines


_SHORTHANDS = ("BFloat16", "Half", "Index", "Shape", "View", "kMaxRank", "kNoLimit")


def part_text(source: PartSource, ident: str) -> str:
    """The ``.cpp`` of one part."""
    body = render(source.body)
    used = set(_WORD.findall(body)) | set(source.results)
    embedded = [c for c in source.constants if c.values]
    stored = [c for c in source.constants if not c.values]
    types = {p.cpp for p in (*source.inputs, *source.outputs)} | {c.cpp for c in source.constants}
    shapes = {"Shape", "View"} if embedded else {"Shape"} if stored else set[str]()
    return (
        environment()
        .get_template("part.cpp.j2")
        .render(
            part=source,
            ident=ident,
            prologue=render(_prologue(source, used)),
            body=body,
            shorthands=[n for n in _SHORTHANDS if n in used | types | shapes],
            uses_workspace="ws" in used,
            embedded=[wrap(f"constexpr {c.cpp} k_{c.name}[] = {c.values};", 0) for c in embedded],
            resources="resources_" in used or bool(stored),
        )
    )
