"""What every verb that runs a bundle offers about devices, and how it tells where parts ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import parse_pairs

if TYPE_CHECKING:
    from adcompile.runtime.bundle import Bundle

NoFallback = Annotated[
    bool,
    typer.Option(
        "--no-cpu-fallback", help="an error instead of a device part, or a node of it, on the CPU"
    ),
]


DeviceOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--device-option",
        help="NAME=VALUE for the device's runtime (repeat); npu: xclbin, config_file, cache_dir, "
        "encryption_key, driver, as_planned",
    ),
]


def executor_options(no_cpu_fallback: bool, given: list[str] | None) -> dict[str, str]:
    """Options for ``load``."""
    options = parse_pairs(given or [], "--device-option")
    return {**options, "no_cpu_fallback": "true"} if no_cpu_fallback else options


def show_placements(bundle: Bundle) -> None:
    """The vendor's own placement report beside our plan, where there is one."""
    for part, lines in bundle.placements.items():
        rows = [(line.op, str(line.planned), line.ran, line.why) for line in lines]
        console.table(f"{part}: planned for the device, and where it ran", _COLUMNS, rows)


def placement_records(bundle: Bundle) -> dict[str, list[dict[str, object]]]:
    """The same as plain data, for ``--json``."""
    return {part: [asdict(line) for line in lines] for part, lines in bundle.placements.items()}


_COLUMNS = ("op type", "nodes planned", "ran on", "why")
