"""Which code made something: the version, and in a working copy the sources themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import adcompile
from adcompile import version
from adcompile.version import code_version, source_digest


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was computed for another folder does not count."""
    code_version.cache_clear()
    yield
    code_version.cache_clear()


def package(folder: Path, *, checkout: bool) -> Path:
    """A package of one file, with or without what makes its folder a checkout."""
    found = folder / "adcompile"
    found.mkdir(parents=True)
    (found / "a.py").write_text("x = 1\n")
    if checkout:
        (folder / "pyproject.toml").write_text("")
    return found


def test_an_installed_package_is_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read: the version says it all."""
    monkeypatch.setattr(version, "PACKAGE", package(tmp_path, checkout=False))
    assert code_version() == adcompile.__version__


def test_a_working_copy_is_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text is other code; the same text is the same code, wherever it lies."""
    folder = package(tmp_path / "one", checkout=True)
    monkeypatch.setattr(version, "PACKAGE", folder)
    before = code_version()
    assert before == f"{adcompile.__version__}+{source_digest(folder)}"
    (folder / "a.py").write_text("x = 2\n")
    assert code_version() == before, "computed once"
    code_version.cache_clear()
    assert code_version() != before
    assert source_digest(package(tmp_path / "two", checkout=True)) == before.partition("+")[2]


def test_what_counts_as_source(tmp_path: Path) -> None:
    """Names and every byte of every file; byte code does not."""
    folder = package(tmp_path, checkout=True)
    before = source_digest(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"1")
    assert source_digest(folder) == before
    (folder / "t.j2").write_text("")
    with_template = source_digest(folder)
    assert with_template != before
    (folder / "t.j2").rename(folder / "u.j2")
    assert source_digest(folder) not in {before, with_template}
