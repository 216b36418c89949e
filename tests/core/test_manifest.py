"""Reading manifests: every damage is named before anything of the bundle is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adcompile.contract import Contract
from adcompile.errors import FormatError
from adcompile.fileset import FileSet
from adcompile.manifest import Manifest, ModelRecord, check_files, read_manifest


def bundle(folder: Path) -> Path:
    files = FileSet()
    files.add("parts/a.bin", b"12345")
    records = files.write_into(folder)
    manifest = Manifest(
        adcompile="0",
        model=ModelRecord(name="m", sha256="0", opset=17, inputs=(), outputs=()),
        contract=Contract(),
        target="npu:stx",
        parts=(),
        files=records,
    )
    (folder / "manifest.json").write_text(manifest.dump())
    return folder


def test_round_trip(tmp_path: Path) -> None:
    """What was written is read back, and written again the same."""
    path = bundle(tmp_path)
    manifest = read_manifest(path)
    check_files(path, manifest)
    assert manifest.dump() == (path / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"schema_version": 99}, "newer"),
        ({"schema_version": "1"}, "no schema_version"),
        ({"parts": 3}, "does not fit"),
        ({"files": {"../x": {"size": 1, "sha256": ""}}}, "unsafe path"),
        ({"contract": {"unknown": 1}}, "does not fit"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, edit: dict[str, object], message: str) -> None:
    """A changed manifest is refused with the field at fault."""
    path = bundle(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(FormatError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[", "[]", "\xff", "{" * 2000])
def test_not_json(tmp_path: Path, text: str) -> None:
    """Bytes that are no JSON object are refused."""
    bundle(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError):
        read_manifest(tmp_path)


def test_not_a_bundle(tmp_path: Path) -> None:
    """A missing folder and a folder without manifest are told apart from damage."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FormatError, match="not a bundle"):
            read_manifest(path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "link"])
def test_changed_files_are_found(tmp_path: Path, damage: str) -> None:
    """Size, content, absence and links are all noticed."""
    path = bundle(tmp_path)
    file = path / "parts" / "a.bin"
    if damage == "flip":
        file.write_bytes(b"12346")
    elif damage == "truncate":
        file.write_bytes(b"123")
    else:
        file.unlink()
    if damage == "link":
        other = tmp_path / "other"
        other.write_bytes(b"12345")
        file.symlink_to(other)
    with pytest.raises(FormatError):
        check_files(path, read_manifest(path))
