"""``adcompile stream``: a bundle over a folder or a video, frames in, frames out, in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.devices import DeviceOptions, NoFallback, executor_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adcompile.runtime.streaming import Item


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder, or a packed one")],
    source: Annotated[
        Path, typer.Option("--input", "-i", help="folder of images, animation or video")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="folder for drawn frames, or a video file (ffmpeg)"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="frames inferred at once; default: one per thread", min=1)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads in all", min=1)] = None,
    serial: Annotated[bool, typer.Option(help="frame by frame, to compare")] = False,
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    min_score: Annotated[float, typer.Option(help="of the detections to draw")] = 0.5,
    no_cpu_fallback: NoFallback = False,
    device_option: DeviceOptions = None,
    fps: Annotated[float, typer.Option(help="of a written video", min=0.1)] = 25.0,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Run BUNDLE over frames: stages in threads, results in the order of the frames.

    Frames are drawn into --output, and what was found is written to results.jsonl beside them.
    """
    from adcompile.runtime.frames import FrameWriter, count_frames, frames
    from adcompile.runtime.streaming import opened

    copies = 1 if serial else workers
    with (
        opened(
            bundle,
            device=device,
            options=executor_options(no_cpu_fallback, device_option),
            threads=threads,
            workers=copies,
            min_score=min_score,
            drawn=output is not None,
        ) as (first, line),
        console.progress() as view,
    ):
        task = view.add_task("stream", total=count_frames(source))
        found: Iterator[Item] = (line.serial if serial else line.run)(frames(source))
        if output is None:
            for _ in found:
                view.advance(task)
        else:
            with FrameWriter(output, fps) as writer, _results(output).open("w") as lines:
                for item in found:
                    name = writer.write(item.frame.number, item.jpeg)
                    lines.write(_line(item, name))
                    view.advance(task)
        report = line.report
        simulated = list(first.simulated)
    summary = {
        "frames": report.frames,
        "seconds": round(report.seconds, 3),
        "fps": round(report.fps, 2),
        "stages": [
            {"stage": s.name, "workers": s.workers, "ms_per_frame": round(1000 * s.mean, 3)}
            for s in report.stages
        ],
        "simulated": simulated,
        "output": None if output is None else str(output),
    }
    if json:
        console.emit_json(summary)
        return
    rows = [(s.name, str(s.workers), f"{1000 * s.mean:.2f}") for s in report.stages]
    console.table("", ("stage", "workers", "ms per frame"), rows)
    how = "frame by frame" if serial else "in a pipeline"
    console.say(f"{report.frames} frames {how}: {report.seconds:.2f} s, {report.fps:.2f} FPS")
    if simulated:
        console.say(f"simulated on the CPU, not on a device: {', '.join(simulated)}")
    if output is not None:
        console.say(f"written: {output}, {_results(output).name}")


def _results(output: Path) -> Path:
    from adcompile.runtime.frames import VIDEO

    if output.suffix.lower() in VIDEO:
        return output.with_suffix(".jsonl")
    return output / "results.jsonl"


def _line(item: Item, file: str) -> str:
    from json import dumps

    record = {"frame": item.frame.number, "source": item.frame.name, "file": file, **item.summary}
    return dumps(record, sort_keys=True) + "\n"
