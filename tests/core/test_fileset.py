"""The inert set of output files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.errors import FormatError, InputError, UsageError
from adcompile.fileset import FileSet, publish, staging
from adcompile.manifest import check_bundle_path


@pytest.mark.parametrize(
    "bad", ["", "/etc/passwd", "../x", "a/../../b", "a\\b", "c:x", "a//b", "./a", "a/", "a\0b"]
)
def test_unsafe_paths_are_refused(bad: str) -> None:
    """Nothing can be written outside the bundle."""
    with pytest.raises(FormatError):
        FileSet().add(bad, "x")


@given(st.text(max_size=30))
def test_no_accepted_path_leaves_its_root(name: str) -> None:
    """Whatever is accepted stays below the root, for any text."""
    try:
        path = check_bundle_path(name)
    except FormatError:
        return
    root = Path("/bundles/one")
    assert (root / path).is_relative_to(root)
    assert ".." not in path.parts


def test_duplicates_and_case_clashes_are_refused() -> None:
    """Two names that one file system would merge are an error."""
    files = FileSet()
    files.add("a/Model.onnx", "1")
    with pytest.raises(UsageError, match="added twice"):
        files.add("a/model.onnx", "2")


def test_same_content_same_digest() -> None:
    """The digest depends on names and contents only, not on the order of adding."""
    one, two = FileSet(), FileSet()
    one.add("a", "1")
    one.add("b", "2")
    two.add("b", "2")
    two.add("a", "1")
    assert one.digest() == two.digest()
    two.add("c", "3")
    assert one.digest() != two.digest()


def test_publish_replaces_only_when_asked(tmp_path: Path) -> None:
    """An existing output is kept unless replacing was asked for; then the swap is whole."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    fresh = staging(target)
    (fresh / "new").write_text("new")
    with pytest.raises(UsageError, match="already exists"):
        publish(fresh, target, replace=False)
    assert (target / "old").read_text() == "old"
    publish(fresh, target, replace=True)
    assert sorted(p.name for p in target.iterdir()) == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_unwritable_parent_is_an_input_error(tmp_path: Path) -> None:
    """A path below a file cannot be created: said, not raised as OSError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        staging(tmp_path / "file" / "out")
