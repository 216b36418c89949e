"""The command line: ``adcompile VERB``. One file per verb, imported only when it is used.

A verb's file holds ``command(...)`` with typer annotations, or ``app`` (a ``typer.Typer``) when it
has sub-verbs. It raises ``typer.Exit(1)`` when the answer is no, an AdcompileError otherwise.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping

import typer

import adcompile
from adcompile.errors import AdcompileError, InputError, PassError, UsageError

# verb -> (file under adcompile/cli, one line of help), in the order of a user's journey
VERBS: Mapping[str, tuple[str, str]] = {
    "doctor": ("doctor", "What this machine can build, simulate and run, per target"),
    "inspect": ("inspect", "Inputs, outputs, control flow and the roles found in a model"),
    "check": ("check", "Per node: which target can run it, why not, what would help"),
    "lint": ("lint", "What contradicts itself: a score contract against its graph"),
    "plan": ("plan", "Split a model into device and host parts; print or save the plan"),
    "record": ("record", "Run the reference and store tensors at every part boundary"),
    "build": ("build", "Compile a model into a verified bundle"),
    "verify": ("verify", "Compare a bundle with its golden data"),
    "preflight": ("preflight", "Will a bundle run on this machine, and what is left to do?"),
    "run": ("run", "Execute a bundle on images or arrays"),
    "stream": ("stream", "Run a bundle over a folder or video, stages in parallel; frames out"),
    "serve": ("serve", "Answer HTTP requests with bundles: an image in, JSON out"),
    "bench": ("bench", "Time a bundle part by part"),
    "eval": ("eval", "Accuracy of a model or bundle on a data set"),
    "diff": ("diff", "What changed between two bundles, and what it cost"),
    "pack": ("pack", "Put a bundle into one file to carry to the board"),
    "unpack": ("unpack", "Make a bundle folder of a packed one"),
    "list": ("listing", "Targets, ops, options, passes and rules, from the compiler's own tables"),
    "optimize": ("optimize", "Simplify an ONNX model; dump the graph around any pass"),
    "explain-rule": (
        "explain_rule",
        "What a rule or pass does, why it did or did not apply at a node",
    ),
    "synth": ("synth", "Generate an MVTec-style data set"),
    "fit": ("fit", "Train an anomaly detector from normal images"),
    "retrain": ("retrain", "Refit an anomaly detector on other images"),
    "category": ("category", "Add, remove or list the categories of an anomaly bundle"),
    "tradeoff": ("tradeoff", "Bank size against accuracy; the smallest bank that meets a goal"),
    "bank": ("bank", "Convert, check or describe memory banks and trained-model files"),
}


INTERRUPTED, TERMINATED = 130, 143  # what shells report for SIGINT and SIGTERM
DEFECT = PassError.exit_code  # never mistaken for Python's own 1: "the answer is no"


def _app(verb: str) -> typer.Typer:
    module = importlib.import_module(f"adcompile.cli.{VERBS[verb][0]}")
    app = getattr(module, "app", None)
    if isinstance(app, typer.Typer):
        return app
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(module.command)
    return app


def help_text() -> str:
    """The overview that ``adcompile --help`` prints."""
    width = max(map(len, VERBS)) + 2
    rows = [f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "Usage: adcompile VERB [OPTIONS] …      (adcompile VERB --help explains a verb)",
            "",
            "Compile trained vision models for edge accelerators: trt, npu, drpai.",
            "",
            *rows,
            "",
            "  --version   print the version      --json   on every verb: machine-readable output",
            "",
            "A journey:  check -> build -> verify -> eval -> run   (plan, fit, diff, pack when needed)",
            "Targets:    adcompile list targets        This machine: adcompile doctor",
            "Exit codes: 0 fine, 1 the answer is no, 2 bad input, 3 a needed tool is missing,",
            "            4 a defect of adcompile or of a pass.",
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 fine, 1 no, 2 bad input, 3 tool missing)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        sys.stdout.write(help_text())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"adcompile {adcompile.__version__}\n")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, list(VERBS), n=2)
        fix = f"did you mean {' or '.join(near)}?" if near else "see adcompile --help"
        return _show(UsageError(f"no such verb: {verb}", fix=fix), as_json="--json" in arguments)
    return _run(verb, arguments[1:])


def _run(verb: str, arguments: list[str]) -> int:
    try:
        _app(verb)(args=arguments, prog_name=f"adcompile {verb}", obj=arguments)
    except AdcompileError as error:
        return _show(error, as_json="--json" in arguments)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer swallows Ctrl-C without a word
            sys.stderr.write("interrupted\n")
        if stop.code == UsageError.exit_code and "--json" in arguments:
            _show(_usage(verb, arguments), as_json=True)  # typer wrote to stderr only
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # no permission, no space, a file that went away
        what = error.strerror or str(error)
        return _show(
            InputError(what, where=str(error.filename or "")), as_json="--json" in arguments
        )
    except Exception as error:  # the last place that can say whose fault it is
        return _show_defect(error, as_json="--json" in arguments)
    return 0


def _usage(verb: str, arguments: list[str]) -> UsageError:
    """What typer has against the arguments, as an error of ours; nothing is run."""
    try:
        typer.main.get_command(_app(verb)).make_context(f"adcompile {verb}", list(arguments))
    except Exception as error:  # of a class that depends on typer's version
        said = getattr(error, "format_message", None)
        what = str(said() if callable(said) else error)
        return UsageError(what, fix=f"see adcompile {verb} --help")
    return UsageError("wrong arguments", fix=f"see adcompile {verb} --help")


def _show(error: AdcompileError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(error.record(), indent=2) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def _show_defect(error: Exception, *, as_json: bool) -> int:
    """What is no AdcompileError is a defect of this program; its traceback belongs into a report."""
    what = f"adcompile has a defect: {type(error).__name__}: {error}"
    if as_json:
        record = {"error": "Defect", "what": what, "exit_code": DEFECT}
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(f"error: {what}\n  fix: please report it with the lines above\n")
    return DEFECT


def entry() -> None:
    """Console-script entry point. A polite kill ends like Ctrl-C: nothing half-written is left."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, be it before an error could be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _terminate(_number: int, _frame: object) -> None:
    sys.stderr.write("interrupted\n")
    raise SystemExit(TERMINATED)
