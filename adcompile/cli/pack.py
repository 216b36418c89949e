"""``adcompile pack``: a bundle as one file to carry to the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import AsJson, parse_words


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder, or an archive to make smaller")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: model.adz")],
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="leave out what the board does not need: golden, host, report, calib, "
            "categories (repeat, or separate with commas)"
        ),
    ] = None,
    compress: Annotated[
        bool,
        typer.Option(
            "--compress", help="deflate: smaller; the bytes depend on the zlib release then"
        ),
    ] = False,
    force: Annotated[bool, typer.Option(help="replace an existing file")] = False,
    json: AsJson = False,
) -> None:
    """Put BUNDLE into one file. The same bundle gives the same bytes.

    run, verify, preflight, bench, stream, eval and diff take the file as it is; adcompile unpack makes
    a folder of it, for the C++ project and to add categories.
    """
    from adcompile.errors import UsageError
    from adcompile.manifest import ARCHIVE
    from adcompile.pack import pack
    from adcompile.unpack import bundle_folder

    if output.suffix.lower() != ARCHIVE:
        raise UsageError(f"an archive's name ends in {ARCHIVE}", where=str(output))
    groups = parse_words(without or [])
    with console.progress() as view:
        view.add_task("pack", total=None)
        found = pack(bundle_folder(bundle), output, without=groups, compress=compress, force=force)
    if json:
        console.emit_json(found.record())
        return
    left = f", without {', '.join(found.left_out)}" if found.left_out else ""
    console.say(f"{found.path}: {found.files} files, {found.size / 2**20:.1f} MiB{left}")
    console.say(f"sha256 {found.sha256}")
