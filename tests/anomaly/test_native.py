"""Compiling our own kernels on demand: cached, atomic, and never fatal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adcompile import native
from adcompile.anomaly import search
from adcompile.anomaly.bank import prepare_bank
from adcompile.errors import ToolMissing


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder with one small library in it."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "a.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'
    )
    monkeypatch.setattr(native, "SOURCES", folder)
    return folder


def test_built_once_and_again_when_a_source_changes(tiny: Path, tmp_path: Path) -> None:
    """The key is the content: a second load builds nothing, a changed file does."""
    compiler = native.find_compiler()
    cache = tmp_path / "cache"
    first = native.load_from("a", ["a.cpp"], [], cache, compiler)
    assert first.library is not None
    assert first.library.answer() == 42
    (built,) = cache.iterdir()
    stamp = built.stat().st_mtime_ns
    native.load_from("a", ["a.cpp"], [], cache, compiler)
    assert [p.stat().st_mtime_ns for p in cache.iterdir()] == [stamp]
    (tiny / "a.cpp").write_text((tiny / "a.cpp").read_text() + "\n")
    native.load_from("a", ["a.cpp"], [], cache, compiler)
    assert len(list(cache.iterdir())) == 2


def test_a_compiler_error_is_a_reason(tiny: Path, tmp_path: Path) -> None:
    """Broken sources leave no file behind."""
    (tiny / "a.cpp").write_text("not C++\n")
    loaded = native.load_from("a", ["a.cpp"], [], tmp_path / "cache", native.find_compiler())
    assert loaded.library is None
    assert "compiler failed" in loaded.reason
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_compiler_is_a_reason(tmp_path: Path) -> None:
    """And says what to install."""
    loaded = native.load_from("a", ["a.cpp"], [], tmp_path, None)
    assert (loaded.library, "g++" in loaded.reason) == (None, True)


def test_missing_kernels_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy is far slower: whoever waits for it should know why."""
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    with pytest.warns(RuntimeWarning, match="slowly: no C"):
        assert native.load("a", ("missing.cpp",)).library is None
    assert native.load("a", ("missing.cpp",)).library is None  # filterwarnings is "error"


def test_a_cache_others_can_write_is_not_used(tiny: Path, tmp_path: Path) -> None:
    """A library planted by another user must not be loaded."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    loaded = native.load_from("a", ["a.cpp"], [], cache, native.find_compiler())
    assert loaded.library is None
    assert "writable by other users" in loaded.reason


def test_without_kernels_the_search_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" falls back to NumPy; an explicit instruction set says what is missing."""
    monkeypatch.setattr(search, "load_kernels", lambda: native.Loaded(None, "none here"))
    bank = prepare_bank(np.eye(4, dtype=np.float32))
    assert search.knn(bank, np.eye(4, dtype=np.float32), 1)[1].tolist() == [[0], [1], [2], [3]]
    with pytest.raises(ToolMissing, match="portable"):
        search.knn(bank, np.eye(4, dtype=np.float32), 1, path="portable")
