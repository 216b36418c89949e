"""The frame of the command line: verbs, exit codes, no traceback for user errors."""

from __future__ import annotations

import json

import pytest

from adcompile.cli import VERBS, _app, console, main
from adcompile.errors import AdcompileError, InputError, NegativeAnswer, ToolMissing


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb of the table is in the overview."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No verb of the overview is hollow: each has a file and a help text of its own."""
    assert main([verb, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_a_near_verb_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    """A typo is answered with the verb that was meant."""
    assert main(["biuld"]) == 2
    assert "build" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(NegativeAnswer("no"), 1), (InputError("bad"), 2), (ToolMissing("gone"), 3)],
)
def test_errors_become_exit_codes(
    error: AdcompileError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each class of error has its exit code; with --json the record goes to stdout."""

    def raising(**_: object) -> None:
        raise error

    monkeypatch.setattr("adcompile.cli._app", lambda _verb: raising)
    assert main(["build"]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert main(["build", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["exit_code"] == code


def test_wrong_option_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option exits 2 and prints how to go on."""
    assert main(["build", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["build", "m.onnx", "-t", "npu", "--calibration", "x"], "--calibration"),
        (["check", "m.onnx"], "--target"),
        (["biuld"], "no such verb"),
    ],
)
def test_wrong_usage_is_json_when_asked(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that reads stdout gets a record for every way to fail."""
    assert main([*words, "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert what in record["what"]
    assert record["exit_code"] == 2


def test_app_is_typer() -> None:
    """Verbs are typer applications (help, types and completion come from there)."""
    assert callable(_app("build"))


def test_a_log_without_a_terminal_is_not_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short steps say nothing there; a step after a long silence is a line."""
    with console.watching("load") as watch:
        watch("quick")
        monkeypatch.setattr(console, "SILENCE", 0.0)
        watch("slow [1 of 2]")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "slow [1 of 2]\n")
