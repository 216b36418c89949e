"""``adcompile eval``: accuracy of models and bundles on a data set, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli.devices import DeviceOptions, NoFallback, executor_options
from adcompile.cli.options import DecoderName
from adcompile.cli.subjects import Subjects
from adcompile.errors import UsageError


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
    from adcompile.detection.coco import read_classes
    from adcompile.unpack import bundle_folder

    folders = [bundle_folder(subject) for subject in subjects]
    names = None if classes is None else read_classes(classes)
    if coco is not None and data is not None:
        raise UsageError("--coco and --data together", fix="give one of them")
    if data is not None:
        from adcompile.anomaly.layouts import categories
        from adcompile.anomaly.report.gather import ReportOptions
        from adcompile.anomaly.report.write import Reports
        from adcompile.cli.eval_anomaly import evaluate_anomaly

        wanted = ReportOptions.parse(pictures, maps=map_csv, r0=r0_csv)
        several = not category and data.is_dir() and len(categories(data)) > 1
        evaluate_anomaly(
            folders,
            data,
            device=device,
            category=category,
            reports=None if report is None else Reports(report, wanted, several=several),
            as_json=json,
        )
        return
    if images is None:
        if coco is not None:
            raise UsageError("--coco needs --images FOLDER")
        fix = "--images FOLDER (no labels), --coco FILE --images FOLDER, or --data FOLDER"
        raise UsageError("nothing to evaluate on", fix=fix)
    options = executor_options(no_cpu_fallback, device_option)
    compared = Subjects(folders, device, options, decoder)
    if coco is None:
        from adcompile.cli.eval_agreement import evaluate_agreement

        evaluate_agreement(
            compared,
            images,
            max_samples=max_samples,
            classes=names,
            least=min_agreement,
            as_json=json,
        )
        return
    from adcompile.cli.eval_detections import AnnotatedImages, evaluate_detections

    annotated = AnnotatedImages(
        coco, images, max_samples, names, min_score, skip_missing, predictions
    )
    evaluate_detections(compared, annotated, as_json=json)
