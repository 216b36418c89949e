"""Run the vendor commands of a bundle where their tools are present.

A missing tool leaves the action pending, with the reason; a tool that fails or takes too long leaves
it failed, with its last words. Outputs are made in a sibling folder and renamed into place, so a
half-written plan never appears in the bundle.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from adcompile.manifest import PYTHON, ActionRecord, check_bundle_path

TIMEOUT = 1800.0
KEEP_CHARACTERS = 600
_PYTHON = "python:"
_VARIABLE = "env:"


def tool_missing(tool: str) -> str:
    """Why *tool* cannot run here, "" when it can.

    ``python:NAME`` means a Python package, ``env:NAME`` an environment variable that a vendor's
    software sets; anything else is a program on the PATH.
    """
    if tool.startswith(_PYTHON):
        package = tool.removeprefix(_PYTHON)
        missing = importlib.util.find_spec(package) is None
        return f"Python package {package} is not installed here" if missing else ""
    if tool.startswith(_VARIABLE):
        name = tool.removeprefix(_VARIABLE)
        return "" if os.environ.get(name) else f"{name} is not set here"
    return "" if shutil.which(tool) else f"{tool} is not on this machine"


def run_actions(
    bundle: Path,
    actions: Sequence[ActionRecord],
    *,
    timeout: float = TIMEOUT,
) -> list[ActionRecord]:
    """Run every pending action in order; returns them with their new state and detail.

    Actions whose inputs come from one that did not finish stay pending.
    """
    results: list[ActionRecord] = []
    unmade: set[str] = set()
    for action in actions:
        done = _attempt(bundle, action, timeout, unmade)
        if done.state != "done":
            unmade |= set(done.outputs)
        results.append(done)
    return results


def _attempt(bundle: Path, action: ActionRecord, timeout: float, unmade: set[str]) -> ActionRecord:
    if action.state == "done":
        return action
    waiting = [name for name in action.inputs if name in unmade]
    if waiting:
        return _with(action, "pending", f"waits for {', '.join(waiting)}")
    reason = tool_missing(action.tool)
    if reason:
        detail = f"{reason}; {action.detail}" if action.detail else reason
        return _with(action, "pending", detail)
    absent = [n for n in action.inputs if not (bundle / check_bundle_path(n)).is_file()]
    if absent:
        return _with(action, "failed", f"input {', '.join(absent)} is not in the bundle")
    return _run(bundle, action, timeout)


def _with(action: ActionRecord, state: str, detail: str) -> ActionRecord:
    return action.model_copy(update={"state": state, "detail": detail})


def _run(bundle: Path, action: ActionRecord, timeout: float) -> ActionRecord:
    with tempfile.TemporaryDirectory(prefix=".action.", dir=bundle) as scratch:
        places = {
            name: Path(scratch) / f"{i}-{Path(name).name}" for i, name in enumerate(action.outputs)
        }
        argv = [_argument(word, places) for word in action.argv]
        code, text = _call(argv, bundle, timeout)
        if code is None:
            return _with(action, "failed", f"no end after {timeout:.0f} s")
        if code != 0:
            return _with(action, "failed", f"{_how(code)}: {text}" if text else _how(code))
        lacking = [n for n, p in places.items() if not p.is_file() and not (bundle / n).is_file()]
        if lacking:
            return _with(action, "failed", f"it made no {', '.join(lacking)}")
        for name, place in places.items():
            if place.is_file():
                os.replace(place, bundle / check_bundle_path(name))  # noqa: PTH105
    return _with(action, "done", "")


def _argument(word: str, places: dict[str, Path]) -> str:
    if word == PYTHON:
        return sys.executable
    return str(places[word].resolve()) if word in places else word


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _call(argv: list[str], folder: Path, timeout: float) -> tuple[int | None, str]:
    """Exit code (None: out of time) and the end of what it said. Kills the whole group on time-out."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
            env=_environment(),
        )
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            code = None
        except BaseException:
            _kill(process)
            raise
        log.seek(0, os.SEEK_END)
        size = log.tell()
        log.seek(max(0, size - 4 * KEEP_CHARACTERS))
        text = log.read().decode("utf-8", "replace")
    return code, " ".join(text.split())[-KEEP_CHARACTERS:]


def _environment() -> dict[str, str]:
    """The caller's environment, with this package importable by a Python child."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parent.parent.parent)
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
