"""``adcompile bench``: time a bundle part by part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.devices import (
    DeviceOptions,
    NoFallback,
    executor_options,
    placement_records,
    show_placements,
)
from adcompile.errors import UsageError

if TYPE_CHECKING:
    from adcompile.runtime.executor import Array


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder, or a packed one")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=FILE; default: the first golden sample"),
    ] = None,
    runs: Annotated[int, typer.Option(help="timed runs", min=1)] = 20,
    warmup: Annotated[int, typer.Option(help="runs before", min=0)] = 3,
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    no_cpu_fallback: NoFallback = False,
    device_option: DeviceOptions = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Time BUNDLE: percentiles per part, calls and bytes at every border; with --input also reading and
    pre-processing of the files."""
    from adcompile.cli.run import parse_inputs
    from adcompile.pack import GOLDEN
    from adcompile.runtime.arrays import open_array
    from adcompile.runtime.bench import bench
    from adcompile.runtime.bundle import load

    with (
        load(
            bundle,
            device,
            threads=threads,
            options=executor_options(no_cpu_fallback, device_option),
        ) as opened,
        console.progress() as view,
    ):
        task = view.add_task("bench", total=warmup + runs)
        if inputs:
            feedings = parse_inputs(inputs, opened.inputs)
            if len(feedings) != 1:
                raise UsageError("bench takes one set of inputs", why=f"{len(feedings)} given")
            source: Mapping[str, Array | Path] = feedings[0][1]
        elif opened.manifest.golden:
            sample = opened.manifest.golden[0].inputs
            source = {name: open_array(opened.path, file) for name, file in sample.items()}
        else:
            packed = GOLDEN in opened.manifest.left_out
            why = "it was packed without" if packed else ""
            fix = "give --input NAME=FILE"
            raise UsageError("the bundle has no golden data", why=why, fix=fix)
        result = bench(
            opened,
            source,
            runs=runs,
            warmup=warmup,
            watch=lambda done: view.update(task, completed=done),
        )
        if json:
            console.emit_json({**result.record(), "placements": placement_records(opened)})
            return
        show_placements(opened)
    rows = [
        (
            each.name,
            f"{each.p50:.3f}",
            f"{each.p90:.3f}",
            f"{each.p99:.3f}",
            f"{each.calls:g}",
            f"{each.bytes_in / 1024:,.0f}",
            f"{each.bytes_out / 1024:,.0f}",
        )
        for each in (*filter(None, [result.prepared]), *result.parts, result.total)
    ]
    columns = ("part", "p50 ms", "p90 ms", "p99 ms", "calls", "KiB in", "KiB out")
    console.table(f"{runs} runs after {warmup} to warm up", columns, rows)
    if result.prepared is not None:
        console.say(
            "prepared: files read and pre-processed, before the parts and not in the total"
        )
    for where in dict.fromkeys(each.where for each in result.parts):
        console.say(f"executed by {where}")
    if result.simulated:
        console.say(
            "times of simulated parts are those of this CPU, not of the device: "
            + ", ".join(result.simulated)
        )
