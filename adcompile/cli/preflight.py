"""``adcompile preflight``: will this bundle run here, and what is left to do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle folder, or a packed one")],
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    open_parts: Annotated[
        bool, typer.Option("--open/--no-open", help="let the runtimes open the device parts")
    ] = True,
    strict: Annotated[bool, typer.Option(help="exit 1 unless everything is ok")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Say what keeps BUNDLE from running on this machine, before it is run. Exit 1: something fails.

    Run it on the board: files and hashes, vendor steps that are left, whether the device takes the
    parts or they would be simulated, and what the C++ program needs.
    """
    from adcompile.check.preflight import FAILS, OK, preflight
    from adcompile.steps.tools import tool_versions

    found = preflight(bundle, tool_versions(), device=device, open_parts=open_parts)
    failed = [each for each in found if each.state == FAILS]
    good = not failed and (not strict or all(each.state == OK for each in found))
    if json:
        console.emit_json({"ok": good, "findings": [each.record() for each in found]})
    else:
        rows = [(each.subject, each.state, each.text, each.fix) for each in found]
        console.table(f"Preflight of {bundle}", ("what", "", "found", "what to do"), rows)
        left = sum(each.state != OK for each in found)
        word = "ok" if good else "will not run"
        console.say(f"{word}: {len(found)} checks, {left} to look at")
    if not good:
        raise typer.Exit(1)
