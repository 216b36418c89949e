"""``adcompile eval``: accuracy of models and bundles on a data set, side by side."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.devices import DeviceOptions, NoFallback, executor_options
from adcompile.cli.options import DecoderName
from adcompile.errors import UsageError
from adcompile.manifest import MANIFEST

if TYPE_CHECKING:
    from adcompile.contract import Contract
    from adcompile.detection.evaluate import Detector, Result


def command(
    subjects: Annotated[
        list[Path],
        typer.Argument(help="bundles, packed ones, or ONNX files; the first is the reference"),
    ],
    coco: Annotated[Path | None, typer.Option(help="COCO annotation file (detectors)")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="folder of the COCO images; without --coco, of any images"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="anomaly data set (MVTec tree …)")] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="use only the first N images")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="JSON or text: the model's labels by name")
    ] = None,
    decoder: DecoderName = None,
    min_score: Annotated[float, typer.Option(help="ignore detections below this")] = 0.0,
    min_agreement: Annotated[
        float,
        typer.Option(help="with --images alone: exit 1 below this share of agreement, 0 … 1"),
    ] = 0.0,
    skip_missing: Annotated[bool, typer.Option(help="go on when an image is not there")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="folder for COCO result files, one per subject")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    no_cpu_fallback: NoFallback = False,
    device_option: DeviceOptions = None,
    category: Annotated[
        str, typer.Option(help="category of the data set and of the bundles")
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="folder for a page, pictures and tables (--data)")
    ] = None,
    pictures: Annotated[
        str,
        typer.Option(
            help="of every image in the report: all, none, or some of heatmap, overlay, gray, "
            "mask, segmentation, histogram, combined"
        ),
    ] = "combined",
    map_csv: Annotated[
        bool, typer.Option("--map-csv", help="the report holds every anomaly map as CSV")
    ] = False,
    r0_csv: Annotated[
        bool, typer.Option("--r0-csv", help="the report holds R0's Shift-JIS result table")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print results as JSON")] = False,
) -> None:
    """Accuracy of SUBJECTS side by side, by what there is to compare with.

    --coco: average precision of detectors. --data: AUROC and F1 of anomaly detectors.
    --images alone: agreement with the first subject on any images (classes, pixels, detections,
    values); in sub-folders named after classes, also the share of right answers.
    """
    from adcompile.unpack import bundle_folder

    subjects = [bundle_folder(subject) for subject in subjects]
    if coco is not None and data is not None:
        raise UsageError("--coco and --data together", fix="give one of them")
    if coco is None and data is None:
        if images is None:
            fix = "--images FOLDER (no labels), --coco FILE --images FOLDER, or --data FOLDER"
            raise UsageError("nothing to evaluate on", fix=fix)
        from adcompile.cli.eval_agreement import evaluate_agreement
        from adcompile.detection.coco import read_classes

        options = executor_options(no_cpu_fallback, device_option)
        evaluate_agreement(
            subjects,
            images,
            lambda subject: _runs(subject, device, options),
            options,
            max_samples=max_samples,
            classes=None if classes is None else read_classes(classes),
            decoder=decoder,
            least=min_agreement,
            as_json=json,
        )
        return
    if data is not None:
        from adcompile.anomaly.layouts import categories
        from adcompile.anomaly.report.gather import ReportOptions
        from adcompile.anomaly.report.write import Reports
        from adcompile.cli.eval_anomaly import evaluate_anomaly

        wanted = ReportOptions.parse(pictures, maps=map_csv, r0=r0_csv)
        several = not category and data.is_dir() and len(categories(data)) > 1
        evaluate_anomaly(
            subjects,
            data,
            device=device,
            category=category,
            reports=None if report is None else Reports(report, wanted, several=several),
            as_json=json,
        )
        return
    assert coco is not None
    if images is None:
        raise UsageError("--coco needs --images FOLDER")
    from adcompile.cli.reference import decoding_contract
    from adcompile.detection.coco import read_classes
    from adcompile.detection.evaluate import evaluate, side_by_side

    names = None if classes is None else read_classes(classes)
    options = executor_options(no_cpu_fallback, device_option)
    given = decoding_contract(subjects)
    results: dict[str, Result] = {}
    for subject in subjects:
        for label, mode in _runs(subject, device, options):
            name = _label(label, results)
            with ExitStack() as stack, console.progress() as view:
                run, own = _detector(subject, mode, stack, options, decoder, given)
                task = view.add_task(name, total=None)
                results[name] = evaluate(
                    run,
                    coco,
                    images,
                    max_samples,
                    classes=names or own or None,
                    min_score=min_score,
                    skip_missing=skip_missing,
                    predictions_to=(
                        None if predictions is None else predictions / f"{_file(name)}.json"
                    ),
                    progress=lambda done, total, v=view, t=task: v.update(  # type: ignore[misc]
                        t, completed=done, total=total
                    ),
                )
    if json:
        console.emit_json({name: result.record() for name, result in results.items()})
        return
    labels = list(results)
    columns = ["metric (%)", *labels, *(f"loss of {n}" for n in labels[1:])]
    count = next(iter(results.values())).images
    console.table(f"COCO average precision, {count} images", columns, side_by_side(results))


def _runs(subject: Path, device: str, options: dict[str, str]) -> list[tuple[str, str]]:
    """Label and device mode of every column: a bundle whose device is here is also simulated."""
    if not (subject / MANIFEST).is_file():
        return [(subject.name, device)]
    from adcompile.runtime.bundle import load

    with load(subject, device, options=options, check=False) as bundle:
        parts = [p.name for p in bundle.manifest.parts if p.placement == "device"]
        simulated = set(bundle.simulated)
        target = bundle.manifest.target
    if not parts:
        return [(subject.name, device)]
    if simulated.issuperset(parts):
        return [(f"{subject.name} (simulated)", device)]
    real = (f"{subject.name} on {target}", device)
    if device != "auto":
        return [real]
    return [(f"{subject.name} (simulated)", "simulate"), real]


def _label(name: str, taken: dict[str, Result]) -> str:
    while name in taken:
        name += "'"
    return name


def _file(label: str) -> str:
    """A file name that is safe anywhere."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label).removesuffix(".onnx")


def _detector(
    subject: Path,
    device: str,
    stack: ExitStack,
    options: dict[str, str],
    decoder: str | None,
    given: Contract | None,
) -> tuple[Detector, dict[int, str]]:
    """A bundle, or an ONNX file run by ONNX Runtime, as something that takes any picture; and the names
    of its labels, if its contract has them."""
    from adcompile.detection.fixed import FixedSize

    if subject.is_dir():
        from adcompile.runtime.bundle import load

        bundle = stack.enter_context(load(subject, device, options=options))
        rules = bundle.manifest.contract.inputs
        names = [spec.name for spec in bundle.inputs]
        if len(names) != 1 or names[0] not in rules:
            raise UsageError("not a detector of images", where=str(subject))
        found = FixedSize(lambda tensor: bundle.run({names[0]: tensor}).outputs, rules[names[0]])
        return found, dict(enumerate(bundle.manifest.contract.classes))
    from adcompile.cli.reference import open_reference

    session, specs, contract = open_reference(subject, decoder, given)
    if len(specs) != 1 or specs[0].name not in contract.inputs:
        raise UsageError("not a detector of images", where=str(subject))
    name = specs[0].name
    detector = FixedSize(lambda tensor: session.run({name: tensor}), contract.inputs[name])
    return detector, dict(enumerate(contract.classes))
