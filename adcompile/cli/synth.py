"""``adcompile synth``: generate an MVTec-style data set, or a COCO-format detection set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.anomaly.synth.dataset import CATEGORIES, SynthOptions, write_dataset
from adcompile.anomaly.synth.defects import DEFECTS
from adcompile.cli import console
from adcompile.errors import UsageError
from adcompile.parallel import cores


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write, must be empty")],
    category: Annotated[
        list[str] | None, typer.Option(help=f"repeat for several: {', '.join(CATEGORIES)}")
    ] = None,
    defect: Annotated[
        list[str] | None, typer.Option(help=f"repeat for several: {', '.join(DEFECTS)}")
    ] = None,
    level: Annotated[str, typer.Option(help="easy, medium or hard")] = "medium",
    size: Annotated[int, typer.Option(help="image side in pixels")] = 256,
    train: Annotated[int, typer.Option(help="normal training images")] = 40,
    test_good: Annotated[int, typer.Option(help="normal test images")] = 12,
    test_bad: Annotated[int, typer.Option(help="test images of each defect")] = 4,
    coco: Annotated[
        int | None, typer.Option(help="instead: this many pictures of shapes, COCO format", min=1)
    ] = None,
    split: Annotated[str, typer.Option(help="name of the COCO set: train, val …")] = "val",
    seed: Annotated[int, typer.Option(help="another seed, other images")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Generate images, defects and masks; the same options give the same bytes."""
    if coco is not None:
        _detection_set(output, split, coco, seed, as_json)
        return
    options = SynthOptions(
        categories=tuple(category or CATEGORIES),
        defects=tuple(defect or DEFECTS),
        level=level,
        size=size,
        train=train,
        test_good=test_good,
        test_bad=test_bad,
        seed=seed,
    )
    options.check()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError("the output folder is not empty", where=str(output))
    with console.progress() as view:
        task = view.add_task("images", total=None)
        count = write_dataset(
            output,
            options,
            lambda done, total: view.update(task, completed=done, total=total),
            jobs=cores(),
        )
    if as_json:
        console.emit_json({"images": count, "categories": list(options.categories)})
        return
    console.say(f"{count} images of {_several(len(options.categories))} in {output}")


def _several(categories: int) -> str:
    return "1 category" if categories == 1 else f"{categories} categories"


def _detection_set(output: Path, split: str, count: int, seed: int, as_json: bool) -> None:
    """Draw shapes with boxes and masks; several splits may share one folder."""
    from adcompile.detection.shapes import CLASSES, write_set

    if Path(split).name != split:
        raise UsageError(f"--split {split!r} is no name of a folder", fix="train, val …")
    if (output / split).exists():
        raise UsageError("this set is already there", where=str(output / split))
    with console.progress() as view:
        task = view.add_task("images", total=count)
        annotations = write_set(
            output,
            split,
            count,
            seed,
            progress=lambda done, _: view.update(task, completed=done),
            jobs=cores(),
        )
    if as_json:
        console.emit_json(
            {"images": count, "classes": list(CLASSES), "annotations": str(annotations)}
        )
        return
    console.say(f"{count} images in {output / split}, annotations: {annotations}")
