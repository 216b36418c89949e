"""The step cache: reuse only what is the same, and say why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from adcompile.cache import StepCache


def write(text: str) -> object:
    def produce(folder: Path) -> None:
        (folder / "data").write_text(text)

    return produce


def test_same_fields_are_reused(tmp_path: Path) -> None:
    """The second call does not run; its files are the first one's."""
    cache = StepCache(tmp_path)
    first = cache.step("lower", {"model": "a"}, write("1"))  # type: ignore[arg-type]
    again = cache.step("lower", {"model": "a"}, write("2"))  # type: ignore[arg-type]
    assert first == again
    assert again is not None
    assert (again / "data").read_text() == "1"
    assert [state for _, state, _ in cache.log] == ["ran", "reused"]


def test_the_differing_field_is_named(tmp_path: Path) -> None:
    """A changed option runs the step again and the log names that option."""
    cache = StepCache(tmp_path)
    cache.step("lower", {"model": "a", "precision": "xint8"}, write("1"))  # type: ignore[arg-type]
    cache.step("lower", {"model": "a", "precision": "a8w8"}, write("2"))  # type: ignore[arg-type]
    assert cache.log[-1] == ("lower", "ran", "changed: precision")


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    """An entry whose bytes changed is never used."""
    cache = StepCache(tmp_path)
    entry = cache.step("x", {}, write("1"))  # type: ignore[arg-type]
    assert entry is not None
    (entry / "data").write_text("tampered")
    again = cache.step("x", {}, write("2"))  # type: ignore[arg-type]
    assert again is not None
    assert (again / "data").read_text() == "2"


def test_a_failed_step_leaves_nothing(tmp_path: Path) -> None:
    """An interrupt inside a step leaves no entry and no scratch folder."""

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StepCache(tmp_path).step("x", {}, fail)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
