"""``adcompile unpack``: the bundle folder of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import AsJson


def command(
    archive: Annotated[Path, typer.Argument(help="file that adcompile pack wrote")],
    output: Annotated[Path, typer.Option("--output", "-o", help="bundle folder to write")],
    force: Annotated[bool, typer.Option(help="replace an existing folder")] = False,
    json: AsJson = False,
) -> None:
    """Make a bundle folder of ARCHIVE. Every name, size and hash is checked; all of it or nothing."""
    from adcompile.errors import UsageError
    from adcompile.fileset import is_empty
    from adcompile.manifest import MANIFEST, read_manifest
    from adcompile.unpack import unpack

    if output.exists() and not is_empty(output) and not (output / MANIFEST).is_file():
        fix = "choose another -o; --force replaces bundles only"
        raise UsageError("output already exists", where=str(output), fix=fix)
    with console.progress() as view:
        view.add_task("unpack", total=None)
        folder = unpack(archive, output, force=force)
    manifest = read_manifest(folder)
    if json:
        console.emit_json({"bundle": str(folder), "left_out": list(manifest.left_out)})
        return
    left = f"; packed without {', '.join(manifest.left_out)}" if manifest.left_out else ""
    console.say(f"{folder}: {manifest.model.name} for {manifest.target}{left}")
