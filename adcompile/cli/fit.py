"""``adcompile fit``: train an anomaly detector from normal images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.anomaly.backbone import Backbone
from adcompile.anomaly.config import (
    FitConfig,
    describe_parameters,
    load_config,
    make_config,
    split_words,
)
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.formats.npz import read_npz
from adcompile.anomaly.layouts import categories
from adcompile.anomaly.model_folder import Arrays, Fitted, Metrics, save_fitted
from adcompile.anomaly.r0_config import from_r0, is_r0
from adcompile.anomaly.samples import DataSet, SplitOptions
from adcompile.anomaly.sources import read_data
from adcompile.anomaly.summary import COLUMNS, averages, values_of
from adcompile.cli import console
from adcompile.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
PARAMETERS = "Hyper-parameters and their defaults:\n\n" + "\n\n".join(
    f"{title}: {text}" for title, text in describe_parameters()
)


@app.command(context_settings=EXTRA, epilog=PARAMETERS)
def command(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="patchcore, padim, efficientad or vae")],
    data: Annotated[Path, typer.Option(help="image folder, list of paths, or YAML of lists")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")],
    config: Annotated[
        Path | None, typer.Option(help="a config.yaml to start from, or R0's")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="every category, one folder each")] = False,
    force: Annotated[bool, typer.Option(help="replace an existing folder")] = False,
    resume: Annotated[
        bool, typer.Option(help="go on from the checkpoint of an interrupted training")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train, choose the threshold, measure, save. Any hyper-parameter as --NAME VALUE."""
    values = load_config(config) if config is not None else {}
    if is_r0(values):
        values = from_r0(values)
    elif config is None and not as_json and _says_more(data):
        console.say(f"note: of {data} only the lists are read; --config {data} reads the rest")
    values.pop("method", None)
    # options that typer does not know may stand before the method
    loose, given = split_words([method, *context.args])
    if len(loose) != 1:
        what = f"unexpected argument {loose[1]!r}" if loose else "no method given"
        raise UsageError(what, fix="adcompile fit METHOD --NAME VALUE …")
    chosen = make_config(loose[0], values | given)
    names = categories(data) if all_ and data.is_dir() else (chosen.category,)
    if all_ and not names:
        raise UsageError("the folder holds no categories", where=str(data))
    for name in names:
        target = output / name if all_ else output
        if target.exists() and not force:
            raise UsageError(
                "the output folder exists", where=str(target), fix="--force, or another"
            )
    results: dict[str, Metrics] = {}
    printed: dict[str, dict[str, object]] = {}
    for name in names:
        found = read_data(data, split_of(chosen), layout=chosen.layout, category=name)
        target = output / name if all_ else output
        kept = checkpoint_of(target)
        start = read_npz(kept) if resume and kept.is_file() else None
        kept.parent.mkdir(parents=True, exist_ok=True)
        fitted = fit_with_progress(
            chosen.model_copy(update={"category": name}), found, start=start, checkpoint=kept
        )
        save_fitted(fitted, target, replace=force)
        results[found.category] = fitted.metrics
        printed[found.category] = {**fitted.metrics, **result_of(fitted)}
        if not as_json:
            say_notes(fitted)
    if as_json:
        console.emit_json(printed)
        return
    show(results)


def _says_more(data: Path) -> bool:
    """True for R0's configuration given as data: its network and numbers would be passed over."""
    return data.suffix.lower() in {".yaml", ".yml"} and data.is_file() and is_r0(load_config(data))


def split_of(config: FitConfig) -> SplitOptions:
    """The split a configuration asks for."""
    return SplitOptions(config.test_ratio, config.validation, config.seed)


def fit_with_progress(
    config: FitConfig,
    data: DataSet,
    *,
    backbone: Backbone | None = None,
    start: Arrays | None = None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Fit with a progress bar for each phase; see :func:`fit` for *start* and *checkpoint*.

    The checkpoint is removed when the fit is complete.
    """
    with console.phases(data.category) as watch:
        fitted = fit(
            config, data, backbone=backbone, start=start, checkpoint=checkpoint, watch=watch
        )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


def result_of(fitted: Fitted) -> dict[str, object]:
    """What ``--json`` says of a fit beside its metrics: the device (null when nothing was fitted)
    and the notes."""
    return {"device": fitted.device or None, "notes": list(fitted.notes)}


def say_notes(fitted: Fitted) -> None:
    """The notes, one a line; a trained network's name the device and the time it took."""
    for note in fitted.notes:
        console.say(f"note: {note}")


def checkpoint_of(folder: Path) -> Path:
    """Where a training run that writes *folder* keeps its best weights while it runs."""
    return folder.with_name(f"{folder.name}.checkpoint.npz")


def show(results: dict[str, Metrics], *, average: bool = True, title: str = "") -> None:
    """The accuracy table: one row per entry, and their average."""
    rows = [(name, *map(_cell, values_of(metrics).values())) for name, metrics in results.items()]
    if average and len(rows) > 1:
        rows.append(("average", *map(_cell, averages(results).values())))
    console.table(f"{title}: test images" if title else "Test images", ["", *COLUMNS], rows)


def _cell(value: float | int | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
