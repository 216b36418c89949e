"""An error that is no AdcompileError: said to be ours, with its traceback, under its own exit code."""

from __future__ import annotations

import json

import pytest

from adcompile import cli


def broken(verb: str) -> object:
    raise KeyError(verb)


def test_a_defect_is_called_a_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not exit code 1, which means that the answer is no."""
    monkeypatch.setattr(cli, "_app", broken)
    assert cli.main(["doctor"]) == 4
    found = capsys.readouterr()
    assert found.out == ""
    assert "Traceback" in found.err
    assert "error: adcompile has a defect: KeyError: 'doctor'" in found.err
    assert cli.main(["doctor", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["exit_code"] == 4


def test_what_the_system_refuses_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No space, no permission: one sentence with the file, no traceback."""

    def full(verb: str) -> object:
        raise OSError(28, "No space left on device", f"/data/{verb}")

    monkeypatch.setattr(cli, "_app", full)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "error: No space left on device\n  at: /data/doctor\n"
