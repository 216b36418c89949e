"""``adcompile retrain``: fit a saved detector again on other images, or only move its threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.config import make_config, parse_values
from adcompile.anomaly.fitting import recalibrate
from adcompile.anomaly.model_folder import load_fitted, save_fitted
from adcompile.anomaly.sources import read_data
from adcompile.cli import console
from adcompile.cli.fit import EXTRA, fit_with_progress, result_of, say_notes, show, split_of
from adcompile.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(context_settings=EXTRA)
def command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="folder written by adcompile fit")],
    data: Annotated[Path | None, typer.Option(help="the new images")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder to write; default: MODEL itself")
    ] = None,
    only_threshold: Annotated[
        bool, typer.Option(help="keep the model; change threshold, normalisation or decision")
    ] = False,
    force: Annotated[bool, typer.Option(help="replace an existing folder")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Refit with the saved configuration and network; --NAME VALUE changes a hyper-parameter."""
    old = load_fitted(model)
    target = output or model
    if target != model and target.exists() and not force:
        raise UsageError("the output folder exists", where=str(target), fix="--force, or another")
    changes = parse_values(context.args)
    if only_threshold:
        if data is not None:
            raise UsageError("--only-threshold reads no images", fix="leave out --data")
        done = recalibrate(old, changes)
    else:
        if data is None:
            raise UsageError("retrain needs --data FOLDER", fix="or --only-threshold")
        config = make_config(old.config.method, old.config.model_dump() | changes)
        found = read_data(
            data, split_of(config), layout=config.layout, category=config.category_in(data)
        )
        # a layer list names outputs of the original network; the saved one has only those
        network = None if old.backbone is None else load_backbone(old.backbone)
        done = fit_with_progress(config, found, backbone=network, start=old.weights)
    save_fitted(done, target, replace=True)
    if as_json:
        result = {"model": str(target), "metrics": done.metrics}
        console.emit_json({**result, **result_of(done)})
        return
    say_notes(done)
    assert done.contract.score is not None
    console.say(f"{target}: threshold {done.contract.score.threshold}")
    if not only_threshold:
        show({done.config.category or "test": done.metrics})
