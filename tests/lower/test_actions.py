"""Vendor commands: done, pending or failed, never half a file."""

from __future__ import annotations

from pathlib import Path

from adcompile.lower.actions import run_actions
from adcompile.manifest import PYTHON, ActionRecord


def action(
    code: str, *, tool: str = "python:json", outputs: tuple[str, ...] = ("out.txt",)
) -> ActionRecord:
    return ActionRecord(
        name="a", part="p", tool=tool, argv=(PYTHON, "-c", code, *outputs), outputs=outputs
    )


WRITE = "import sys; open(sys.argv[1], 'w').write('made')"


def test_the_command_for_a_person() -> None:
    """It works from any folder, and names a program instead of a placeholder."""
    waits = ActionRecord(name="a", part="p", tool="t", argv=(PYTHON, "-m", "x", "a b"))
    assert waits.command(Path("my out")) == "(cd 'my out' && python -m x 'a b')"


def test_outputs_appear_when_the_tool_succeeds(tmp_path: Path) -> None:
    """The output is made elsewhere and renamed into place."""
    (done,) = run_actions(tmp_path, [action(WRITE)])
    assert (done.state, (tmp_path / "out.txt").read_text()) == ("done", "made")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.txt"]


def test_a_failing_tool_leaves_nothing_but_its_words(tmp_path: Path) -> None:
    """Half a file and an exit code: failed, with the reason; the bundle is as before."""
    code = f"{WRITE}; sys.stderr.write('no such layer'); sys.exit(4)"
    (done,) = run_actions(tmp_path, [action(code)])
    assert done.state == "failed"
    assert "exit code 4: no such layer" in done.detail
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tool_leaves_the_action_pending(tmp_path: Path) -> None:
    """Not an error: the reason is recorded; what depends on it waits."""
    first = action(WRITE, tool="no-such-program")
    second = ActionRecord(
        name="b", part="p", tool="python:json", argv=(PYTHON,), inputs=("out.txt",)
    )
    states = run_actions(tmp_path, [first, second])
    assert [s.state for s in states] == ["pending", "pending"]
    assert "no-such-program is not on this machine" in states[0].detail
    assert "waits for out.txt" in states[1].detail


def test_a_hanging_tool_is_stopped(tmp_path: Path) -> None:
    """Out of time: failed, and the process is gone."""
    (done,) = run_actions(tmp_path, [action("import time; time.sleep(60)")], timeout=0.5)
    assert (done.state, done.detail[:9]) == ("failed", "no end af")


def test_a_crash_is_named(tmp_path: Path) -> None:
    """A parser that dies by a signal is a failed action."""
    (done,) = run_actions(tmp_path, [action("import os; os.abort()")])
    assert done.state == "failed"
    assert "SIGABRT" in done.detail


def test_a_tool_that_makes_nothing_failed(tmp_path: Path) -> None:
    """Exit code 0 without the promised file is a failure."""
    (done,) = run_actions(tmp_path, [action("pass")])
    assert (done.state, done.detail) == ("failed", "it made no out.txt")
