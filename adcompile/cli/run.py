"""``adcompile run``: execute a bundle on images or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.devices import DeviceOptions, NoFallback, executor_options, placement_records
from adcompile.errors import InputError, UsageError
from adcompile.manifest import TensorSpec

if TYPE_CHECKING:
    from adcompile.contract import Score
    from adcompile.runtime.bundle import Bundle

Feeding = tuple[str, dict[str, Path]]  # label, input name -> file


def parse_inputs(items: Sequence[str], specs: Sequence[TensorSpec]) -> list[Feeding]:
    """``NAME=FILE`` options as runs: one run, or one per file for a bundle with a single input.

    The name may be left out for a single input; a folder stands for its images.
    """
    from adcompile.runtime.images import find_images

    names = [spec.name for spec in specs]
    pairs: list[tuple[str, Path]] = []
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or name not in names:
            if sign and not Path(item).exists():
                raise UsageError(
                    f"no input called {name!r}", where=item, fix="inputs: " + ", ".join(names)
                )
            if len(names) != 1:
                raise UsageError(
                    f"--input {item!r} does not say which input it is for",
                    fix="write NAME=FILE; inputs: " + ", ".join(names),
                )
            name, value = names[0], item
        pairs.append((name, Path(value)))
    if len(names) == 1:
        files = [
            file for _, path in pairs for file in (find_images(path) if path.is_dir() else [path])
        ]
        return [(file.stem, {names[0]: file}) for file in files]
    given = [name for name, _ in pairs]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise UsageError(f"input {twice[0]!r} is given twice")
    return [("run", dict(pairs))]


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder, or a packed one")],
    inputs: Annotated[
        list[str], typer.Option("--input", "-i", help="NAME=FILE: image, .npy, folder (repeat)")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder for arrays and drawings")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    min_score: Annotated[float, typer.Option(help="of the detections to draw")] = 0.5,
    no_cpu_fallback: NoFallback = False,
    device_option: DeviceOptions = None,
    category: Annotated[str, typer.Option(help="one of the bundle's categories")] = "",
    json: Annotated[bool, typer.Option("--json", help="print results as JSON")] = False,
) -> None:
    """Run BUNDLE on images or arrays; its contract says how an image becomes a tensor."""
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
        feedings = parse_inputs(inputs, opened.inputs)
        folders = _folders(output, [label for label, _ in feedings])
        task = view.add_task("run", total=len(feedings))
        runs: list[dict[str, object]] = []
        for (_label, files), folder in zip(feedings, folders, strict=True):
            runs.append(_run_one(opened, files, folder, min_score, category))
            view.advance(task)
        if output is not None:
            _predictions(output, runs, opened.contract(category).score, category)
        summary: dict[str, object] = {
            "bundle": str(bundle),
            "target": opened.manifest.target,
            "simulated": list(opened.simulated),
            "where": opened.where,
            "placements": placement_records(opened),
            "runs": runs,
        }
    if json:
        console.emit_json(summary)
    else:
        _show(summary, runs)


def _predictions(
    output: Path, runs: list[dict[str, object]], score: Score | None, category: str
) -> None:
    """R3's table of an anomaly detector's results on images without labels."""
    if score is None or score.threshold is None or not all("decision" in run for run in runs):
        return
    from adcompile.anomaly.report.rows import Row
    from adcompile.anomaly.report.tables import write_r3
    from adcompile.runtime.decision import limit_of

    rows = [
        Row(
            path=Path(str(next(iter(_dict(run["inputs"]).values())))),
            kind="",
            label=-1,
            raw=float(str(run.get("raw_score", run["score"]))),
            score=float(str(run["score"])),
            limit=float(limit_of(score) or 0.0),
            predicted=int(run["decision"] == "anomalous"),
        )
        for run in runs
    ]
    write_r3(output / "pred_outputs.csv", rows, score, category)


def _folders(output: Path | None, labels: Sequence[str]) -> list[Path | None]:
    """One folder per run, made now: the output itself for one run, numbered ones for several."""
    if output is None:
        return [None for _ in labels]
    several = len(labels) > 1
    folders = [output / f"{n:04d}_{x}" if several else output for n, x in enumerate(labels)]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "cannot write results", where=str(folder), why=error.strerror or str(error)
            ) from error
    return list(folders)


def _run_one(
    opened: Bundle, files: dict[str, Path], folder: Path | None, min_score: float, category: str
) -> dict[str, object]:
    from adcompile.runtime.deliver import deliver
    from adcompile.runtime.images import read_image

    feeds, placements = opened.feeds(files)
    result = opened.run(feeds, category=category)
    manifest = opened.manifest.model_copy(update={"contract": opened.contract(category)})
    name = next(iter(placements), None)
    image = None if name is None else read_image(files[name])
    where = None if name is None else placements[name]
    delivery = deliver(manifest, result.outputs, folder, image, where, min_score)
    return {
        "inputs": {name: str(file) for name, file in files.items()},
        "milliseconds": round(sum(part.seconds for part in result.parts) * 1e3, 3),
        "folder": None if folder is None else str(folder),
        "files": delivery.files,
        **delivery.summary,
    }


def _show(summary: dict[str, object], runs: list[dict[str, object]]) -> None:
    for run in runs:
        source = ", ".join(str(v) for v in _dict(run["inputs"]).values())
        console.say(f"{source}: {run['milliseconds']} ms")
        rows = [
            (str(o["name"]), str(o["role"]), str(o["dtype"]), str(o["shape"]))
            for o in map(_dict, _list(run["outputs"]))
        ]
        console.table("", ("output", "role", "type", "shape"), rows)
        for each in map(_dict, _list(run.get("detections", []))[:10]):
            word = each["class"] or each["label"]
            console.say(f"  {word} {each['score']:.3f} at {each['box']}")
        for each in map(_dict, _list(run.get("classes", []))):
            console.say(f"  {each['class'] or each['label']}: {each['value']:.4g}")
        for each in map(_dict, _list(run.get("segments", []))[:10]):
            console.say(f"  {each['class'] or each['label']}: {each['share']:.1%} of the pixels")
        if "detections_total" in run:
            console.say(f"  {run['detections_total']} detections")
        if "score" in run:
            console.say(f"  score {run['score']:.6g} {run.get('decision', '')}")
        if run["folder"]:
            console.say(f"  written: {run['folder']}: " + ", ".join(map(str, _list(run["files"]))))
    simulated = _list(summary["simulated"])
    if simulated:
        console.say(f"simulated on the CPU, not on a device: {', '.join(map(str, simulated))}")


def _dict(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value  # pyright: ignore[reportUnknownVariableType]


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value  # pyright: ignore[reportUnknownVariableType]
