"""The command line: ``adcompile VERB``. One file per verb, imported only when it is used."""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
from collections.abc import Mapping

import click
import typer

from adcompile.errors import AdcompileError

# verb -> (file under adcompile/cli, one line of help), in the order of a user's journey
VERBS: Mapping[str, tuple[str, str]] = {
    "doctor": ("doctor", "What this machine can build, simulate and run, per target"),
    "inspect": ("inspect", "Inputs, outputs, control flow and the roles found in a model"),
    "check": ("check", "Per node: which target can run it, why not, what would help"),
    "plan": ("plan", "Split a model into device and host parts; print or save the plan"),
    "record": ("record", "Run the reference and store tensors at every part boundary"),
    "build": ("build", "Compile a model into a verified bundle"),
    "verify": ("verify", "Compare a bundle with its golden data"),
    "run": ("run", "Execute a bundle on images or arrays"),
    "bench": ("bench", "Time a bundle part by part"),
    "eval": ("eval", "Accuracy of a model or bundle on a data set"),
    "list": ("list", "Targets, ops, passes and rules, from the tables the compiler uses"),
    "optimize": ("optimize", "Simplify an ONNX model; dump the graph around any pass"),
    "explain-rule": ("explain_rule", "Why a rule did or did not match at a node"),
    "synth": ("synth", "Generate an MVTec-style data set"),
    "fit": ("fit", "Train an anomaly detector from normal images"),
    "retrain": ("retrain", "Refit an anomaly detector on other images"),
    "bank": ("bank", "Convert, check or describe memory banks and trained-model files"),
    "category": ("category", "Add, remove or list the categories of a bundle"),
}


def _command(verb: str) -> click.Command:
    module = importlib.import_module(f"adcompile.cli.{VERBS[verb][0]}")
    app = getattr(module, "app", None)
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(help=module.command.__doc__)(module.command)
    command = typer.main.get_command(app)
    command.name = verb
    return command


class _Verbs(click.Group):
    """A group that imports a verb's file only when the verb is used, and suggests near names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            near = difflib.get_close_matches(args[0], list(VERBS), n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"no such verb: {args[0]}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from adcompile import __version__

        click.echo(f"adcompile {__version__}")
        ctx.exit()


def build_cli() -> click.Group:
    """The whole command line as a click group (also used by the tests and the docs)."""
    return _Verbs(
        name="adcompile",
        help="Compile trained vision models for edge accelerators: trt, npu, drpai.",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_version,
                help="Print the version and exit.",
            )
        ],
        no_args_is_help=True,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 fine, 1 no, 2 bad input, 3 tool missing)."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        result = build_cli().main(args=arguments, prog_name="adcompile", standalone_mode=False)
    except AdcompileError as error:
        return _show(error, as_json="--json" in arguments)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _show(error: AdcompileError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(error.record(), indent=2) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def entry() -> None:
    """Console-script entry point."""
    sys.exit(main())
