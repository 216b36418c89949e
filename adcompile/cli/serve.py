"""``adcompile serve``: bundles behind HTTP."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from adcompile.cli import console
from adcompile.cli.devices import DeviceOptions, NoFallback, executor_options
from adcompile.errors import UsageError
from adcompile.manifest import ARCHIVE


def command(
    bundles: Annotated[list[Path], typer.Argument(help="bundle folders, or packed ones")],
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8080,
    save: Annotated[
        Path | None, typer.Option("--save", help="folder for results: inputs, arrays, drawings")
    ] = None,
    keep: Annotated[str, typer.Option(help="of the results: all, normal or anomalous")] = "all",
    device: Annotated[str, typer.Option(help="auto, simulate or require")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    no_cpu_fallback: NoFallback = False,
    device_option: DeviceOptions = None,
    json: Annotated[bool, typer.Option("--json", help="print the address as JSON")] = False,
) -> None:
    """Answer HTTP requests with BUNDLES, each called as its folder, until it is stopped (Ctrl-C).

    GET /models lists them, POST /models/NAME runs one on the image in the body; with --save also GET
    and DELETE /results/ID. There is no authentication.
    """
    from adcompile.runtime.bundle import load
    from adcompile.runtime.serve import is_own, make_server
    from adcompile.runtime.service import KEEP, Kept, Service

    if keep not in KEEP:
        raise UsageError(f"cannot keep {keep!r}", fix="one of " + ", ".join(KEEP))
    names = [path.resolve().name.removesuffix(ARCHIVE) for path in bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError("two bundles of one name", where=", ".join(sorted(twice)))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = executor_options(no_cpu_fallback, device_option)
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(load(path, device, threads=threads, options=options))
            for name, path in zip(names, bundles, strict=True)
        }
        service = Service(opened, None if save is None else Kept(save, keep))
        for name in opened:
            service.model(name)  # opens every part: what cannot run is said now
        server = stack.enter_context(make_server(service, host, port))
        url = f"http://{host}:{server.server_address[1]}"
        if json:
            console.emit_json({"url": url, "models": service.models()})
        else:
            console.say(f"{url}/models: {', '.join(opened)}")
            if not is_own(host):
                console.say("note: whoever reaches this address can use it; nobody is asked who")
        console.out.file.flush()
        with suppress(KeyboardInterrupt):  # how one stops it
            server.serve_forever()
