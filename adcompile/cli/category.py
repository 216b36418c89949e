"""``adcompile category``: other products behind the same engine of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.errors import AdcompileError, UsageError

if TYPE_CHECKING:
    from adcompile.anomaly.categories.enrol import Learned
    from adcompile.runtime.bundle import Bundle
    from adcompile.runtime.categories import Category

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Add, remove and list categories: banks and thresholds behind one engine.",
)
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
BundleFolder = Annotated[Path, typer.Argument(help="bundle folder")]
Name = Annotated[str, typer.Argument(help="the category's name")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


@app.command(context_settings=EXTRA)
def add(
    context: typer.Context,
    bundle: BundleFolder,
    name: Name,
    data: Annotated[
        Path | None, typer.Option(help="images: enrol through the bundle's own engine")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="a fitted folder with the same backbone and formula")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="a trained-model file of any format `bank` reads")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace a category")] = False,
    as_json: Json = False,
) -> None:
    """Add a category from --data, --model or --bank. Hyper-parameters as --NAME VALUE."""
    from adcompile.anomaly.categories.enrol import add_category
    from adcompile.runtime.bundle import load
    from adcompile.runtime.categories import check_name

    if sum(source is not None for source in (data, model, bank)) != 1:
        raise UsageError("give one of --data DIR, --model FOLDER, --bank FILE")
    check_name(name)
    _check_folder(bundle)
    with load(bundle, device) as opened:
        if name in opened.categories and not force:
            raise UsageError(
                f"category {name!r} exists", where=str(bundle), fix="--force, or another name"
            )
        learned = _learn(opened, name, data, model, bank, context.args)
        made = add_category(opened, name, learned, replace=force)
    if as_json:
        console.emit_json(_row(made))
        return
    for note in made.notes:
        console.say(f"note: {note}")
    console.say(f"{name}: {_text(made)}")


def _check_folder(bundle: Path) -> None:
    if bundle.is_file():
        fix = f"adcompile unpack {bundle} -o FOLDER, and change that"
        raise UsageError("a packed bundle is not changed", where=str(bundle), fix=fix)


def _learn(
    opened: Bundle,
    name: str,
    data: Path | None,
    model: Path | None,
    bank: Path | None,
    words: list[str],
) -> Learned:
    from adcompile.anomaly.categories import enrol

    if data is None and words:
        raise UsageError(f"{words[0]} needs --data", why="the other sources are finished")
    if model is not None:
        from adcompile.anomaly.model_folder import load_fitted

        return enrol.from_fitted(opened, load_fitted(model), str(model))
    if bank is not None:
        from adcompile.anomaly.formats.convert import read_trained

        return enrol.from_file(opened, read_trained(bank), bank)
    assert data is not None
    from adcompile.anomaly.config import parse_values
    from adcompile.anomaly.layouts import read_folder
    from adcompile.cli.fit import split_of

    config = enrol.config_for(opened, parse_values(words))
    inside = config.category or (name if (data / name).is_dir() else "")
    found = read_folder(data, split_of(config), layout=config.layout, category=inside)
    with console.phases(name) as watch:
        return enrol.from_images(opened, found, config, watch)


@app.command()
def remove(bundle: BundleFolder, name: Name, as_json: Json = False) -> None:
    """Remove a category from a bundle."""
    from adcompile.anomaly.categories.enrol import remove_category
    from adcompile.runtime.bundle import load

    _check_folder(bundle)
    with load(bundle, check=False) as opened:
        remove_category(opened, name)
    if as_json:
        console.emit_json({"removed": name})
    else:
        console.say(f"removed: {name}")


@app.command("list")
def list_(bundle: BundleFolder, as_json: Json = False) -> None:
    """List the categories of a bundle; exit code 1 when one of them is not usable."""
    from adcompile.runtime.bundle import load

    rows: list[dict[str, object]] = []
    broken = False
    with load(bundle, check=False) as opened:
        for name in opened.categories:
            try:
                rows.append(_row(opened.category(name)))
            except AdcompileError as error:
                broken = True
                rows.append({"name": name, "problem": error.record()})
                if not as_json:
                    console.say(f"{name}: {error}")
    if as_json:
        console.emit_json({"bundle": str(bundle), "categories": rows})
    else:
        columns = ("category", "made from", "rows", "threshold", "range")
        cells = [_cells(row) for row in rows if "problem" not in row]
        console.table(f"{bundle}: {len(rows)} categories", columns, cells)
    if broken:
        raise typer.Exit(1)


def _row(category: Category) -> dict[str, object]:
    score = category.score
    return {
        "name": category.name,
        "made_from": category.made_from,
        "rows": category.rows,
        "columns": category.columns,
        "threshold": score.threshold,
        "minimum": score.minimum,
        "maximum": score.maximum,
        "normalisation": score.normalisation,
        "notes": list(category.notes),
    }


def _cells(row: dict[str, object]) -> tuple[str, ...]:
    span = "–" if row["minimum"] is None else f"{row['minimum']:.4g} … {row['maximum']:.4g}"
    threshold = row["threshold"]
    return (
        str(row["name"]),
        str(row["made_from"]),
        f"{row['rows']} × {row['columns']}",
        "–" if threshold is None else f"{threshold:.4g}",
        span,
    )


def _text(category: Category) -> str:
    cells = _cells(_row(category))
    return f"from {cells[1]}, {cells[2]} numbers, threshold {cells[3]}, range {cells[4]}"
