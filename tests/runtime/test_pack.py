"""Packed bundles: same bytes for the same content, every verb reads them, hostile ones are refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import FormatError, InputError, UsageError
from adcompile.manifest import FileRecord, Manifest, file_sha256, read_manifest
from adcompile.pack import leave_out, pack
from adcompile.runtime.categories import Category
from adcompile.unpack import bundle_folder, unpack
from tests.compile.models import cnn

Entries = dict[str, bytes]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpacked bundles of the tests stay apart from a user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "adcompile" / "bundles"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with everything in it."""
    options = BuildOptions(golden_count=1, cache=False, precision="a8w8")
    return compile(cnn(), "npu", tmp_path_factory.mktemp("pack") / "out", options).path


def contents(folder: Path) -> Entries:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("compress", [False, True])
def test_there_and_back(bundle: Path, tmp_path: Path, compress: bool) -> None:
    """Packing twice gives the same bytes, without a clock; unpacking gives the same files."""
    first = pack(bundle, tmp_path / "a.adz", compress=compress)
    os.utime(bundle / "plan.yaml", (1, 1))
    second = pack(bundle, tmp_path / "sub" / "b.adz", compress=compress)
    assert first.sha256 == second.sha256 == file_sha256(tmp_path / "a.adz")
    assert (first.size < first.unpacked) == compress
    with zipfile.ZipFile(first.path) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    unpack(first.path, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(bundle)


def test_programs_stay_programs(bundle: Path, tmp_path: Path) -> None:
    """A file that can be executed is so on the board, too; the others are not."""
    copy = shutil.copytree(bundle, tmp_path / "b")
    (copy / "plan.yaml").chmod(0o755)
    pack(copy, tmp_path / "a.adz")
    unpack(tmp_path / "a.adz", tmp_path / "out")
    assert (tmp_path / "out" / "plan.yaml").stat().st_mode & stat.S_IXUSR
    assert not (tmp_path / "out" / "manifest.json").stat().st_mode & stat.S_IXUSR


def test_every_verb_takes_the_file(
    bundle: Path, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """run, verify, preflight, bench, stream, eval and diff; unpacked once, named like the file."""
    file = str(tmp_path / "model.adz")
    assert main(["pack", str(bundle), "-o", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == []
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 32, 32), np.float32))
    inputs = ["-i", str(tmp_path / "x.npy")]
    photos = tmp_path / "photos"
    photos.mkdir()
    np.save(photos / "x.npy", np.zeros((1, 3, 32, 32), np.float32))
    for words in (
        ["run", file, *inputs],
        ["verify", file],
        ["preflight", file],
        ["bench", file, "--runs", "1", "--warmup", "0"],
        ["eval", file, str(bundle), "--images", str(photos)],
        ["diff", file, str(bundle), "--fail-on", "any"],
        ["pack", file, "-o", str(tmp_path / "again.adz")],
    ):
        assert main(words) == 0, words
    said = capsys.readouterr().out
    assert "nothing changed: all files are equal" in said
    assert "Agreement with model" in said
    assert [p.name for p in own_cache.glob("*/*")] == ["model"]
    with adcompile.load(file) as opened:
        assert opened.path.parent.parent == own_cache


def test_the_cache_is_not_believed(bundle: Path, tmp_path: Path) -> None:
    """What was changed in the cache is made again from the archive, whatever its manifest says."""
    file = pack(bundle, tmp_path / "m.adz").path
    folder = bundle_folder(file)
    before = (folder / "plan.yaml").stat().st_ino
    assert bundle_folder(file) == folder
    assert (folder / "plan.yaml").stat().st_ino == before
    (folder / "plan.yaml").write_text("other")
    assert bundle_folder(file) == folder
    assert contents(folder) == contents(bundle)
    (folder / "stray").write_text("other")
    assert contents(bundle_folder(file)) == contents(bundle)
    manifest = read_manifest(folder).model_copy(update={"pipeline": "other"})
    (folder / "manifest.json").write_text(manifest.dump())
    assert contents(bundle_folder(file)) == contents(bundle)


def test_what_stands_in_the_place_of_the_cache(bundle: Path, tmp_path: Path) -> None:
    """A link or a file there makes way for the bundle, and what the link points at stays."""
    file = pack(bundle, tmp_path / "m.adz").path
    folder = bundle_folder(file)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for target in (tmp_path / "nowhere", tmp_path / "copy", None):
        shutil.rmtree(folder)
        folder.touch() if target is None else folder.symlink_to(target, target_is_directory=True)
        assert bundle_folder(file) == folder
        assert not folder.is_symlink()
        assert contents(folder) == contents(bundle) == contents(copy)


def test_several_may_unpack_at_once(bundle: Path, tmp_path: Path, own_cache: Path) -> None:
    """The first that is done wins, and nobody takes the folder away under it."""
    file = pack(bundle, tmp_path / "m.adz").path
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(bundle_folder, [file] * 4))
    assert len(set(folders)) == 1
    assert contents(folders[0]) == contents(bundle)
    assert [p.name for p in own_cache.glob("*/*")] == ["m"]
    assert not list(own_cache.glob("*/.*"))


def test_what_is_left_out_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without golden data and host code it still runs; verify, bench and preflight say why not."""
    file = str(tmp_path / "small.adz")
    words = ["pack", str(bundle), "-o", file, "--without", "golden,host", "--without", "report"]
    assert main(words) == 0
    assert "without golden, host, report" in capsys.readouterr().out
    names = zipfile.ZipFile(file).namelist()
    assert not [n for n in names if n.startswith(("golden", "host", "report"))]
    for verb in ("verify", "bench"):
        assert main([verb, file]) == 2
        assert "it was packed without" in capsys.readouterr().err
    assert main(["preflight", file, "--json"]) == 0
    said = {f["subject"]: f["text"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert said["verification"].startswith("packed without golden data")
    assert said["C++ program"] == "the bundle was packed without its project"
    with adcompile.load(file) as opened:
        opened.run({"image": np.zeros((1, 3, 32, 32), np.float32)})
    assert main(["unpack", file, "-o", str(tmp_path / "out")]) == 0
    assert "packed without golden, host, report" in capsys.readouterr().out
    assert main(["unpack", file, "-o", str(tmp_path / "out")]) == 2
    assert main(["unpack", file, "-o", str(tmp_path / "out"), "--force"]) == 0
    assert main(["unpack", file, "-o", str(tmp_path), "--force"]) == 2


def test_data_of_a_waiting_step_stays(bundle: Path) -> None:
    """Calibration data of a recipe can go when the recipe was run, not before."""
    manifest = read_manifest(bundle)
    record = FileRecord(size=1, sha256="0")
    files = {**manifest.files, "parts/x/calib/0.bin": record, "parts/x/calib.txt": record}
    done = manifest.model_copy(update={"files": files, "actions": ()})
    assert done.files.keys() - leave_out(done, ["calib"]).files == {"parts/x/calib/0.bin"}
    action = {"name": "compile x", "part": "x", "tool": "t", "argv": ("t",)}
    waiting = Manifest.model_validate({**done.model_dump(), "actions": [action]})
    with pytest.raises(UsageError, match="still needed"):
        leave_out(waiting, ["calib"])
    with pytest.raises(UsageError, match="'tests'"):
        leave_out(done, ["tests"])


def test_categories_travel_along(bundle: Path, tmp_path: Path) -> None:
    """A category's files are in no manifest of the bundle, but in its own list."""
    copy = shutil.copytree(bundle, tmp_path / "b")
    manifest = read_manifest(copy)
    home = copy / "categories" / "leather"
    home.mkdir(parents=True)
    (home / "x.adbank").write_bytes(b"bank")
    category = Category(
        name="leather",
        engine={p: r.sha256 for p, r in manifest.files.items() if p.endswith(".onnx")},
        score={"method": "vae"},  # type: ignore[arg-type]
        made_from="photos",
        parts={},
        files={"x.adbank": FileRecord(size=4, sha256=file_sha256(home / "x.adbank"))},
    )
    (home / "category.json").write_text(category.dump())
    unpack(pack(copy, tmp_path / "a.adz").path, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(copy)
    pack(copy, tmp_path / "b.adz", without=["categories"])
    assert contents(bundle_folder(tmp_path / "b.adz")).keys() == contents(bundle).keys()
    (home / "x.adbank").write_bytes(b"else")
    with pytest.raises(FormatError, match="changed"):
        pack(copy, tmp_path / "c.adz")


def test_pack_refuses(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged bundle, a name without the suffix, a file that is there, what is no bundle."""
    copy = shutil.copytree(bundle, tmp_path / "b")
    (copy / "plan.yaml").write_text("x")
    with pytest.raises(FormatError, match="wrong size"):
        pack(copy, tmp_path / "a.adz")
    assert main(["pack", str(bundle), "-o", str(tmp_path / "a.zip")]) == 2
    assert main(["pack", str(bundle), "-o", str(tmp_path / "a.adz")]) == 0
    assert main(["pack", str(bundle), "-o", str(tmp_path / "a.adz")]) == 2
    assert main(["pack", str(bundle), "-o", str(tmp_path / "a.adz"), "--force"]) == 0
    assert main(["pack", str(tmp_path), "-o", str(tmp_path / "c.adz")]) == 2
    capsys.readouterr()
    assert main(["category", "list", str(tmp_path / "a.adz")]) == 0
    assert main(["category", "remove", str(tmp_path / "a.adz"), "x"]) == 2
    assert "adcompile unpack" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.glob("*.adz")) == ["a.adz"]
    assert not list(tmp_path.glob(".*"))


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def with_manifest(entries: Entries, **changes: object) -> Entries:
    """The entries with a manifest that is sealed again after *changes*."""
    manifest = Manifest.model_validate_json(entries["manifest.json"])
    return {**entries, "manifest.json": manifest.model_copy(update=changes).dump().encode()}


def listing(entries: Entries, name: str, data: bytes, size: int | None = None) -> Entries:
    """The entries with one more file, and a manifest that lists it."""
    manifest = Manifest.model_validate_json(entries["manifest.json"])
    record = FileRecord(size=len(data) if size is None else size, sha256="0" * 64)
    return with_manifest({**entries, name: data}, files={**manifest.files, name: record})


def zipped(path: Path, entries: Entries, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data, method)
    return path


HOSTILE: dict[str, tuple[str, Callable[[Entries, Path], Path]]] = {
    "climbs out": ("unsafe path", lambda e, p: zipped(p, {**e, "../x": b""})),
    "is absolute": ("unsafe path", lambda e, p: zipped(p, {**e, "/tmp/x": b""})),
    "drive": ("unsafe path", lambda e, p: zipped(p, {**e, "C:x": b""})),
    "is a folder": ("unsafe path", lambda e, p: zipped(p, {**e, "golden/": b""})),
    "clashes in case": ("unsafe entry", lambda e, p: zipped(p, {**e, "PLAN.yaml": b""})),
    "clashes composed": (
        "unsafe entry",
        lambda e, p: zipped(p, {**e, "\u00e9": b"", "e\u0301": b""}),
    ),
    "below a file": ("unsafe entry", lambda e, p: zipped(p, {**e, "plan.yaml/x": b""})),
    "control character": ("unsafe entry", lambda e, p: zipped(p, {**e, "a\nb": b""})),
    "is not listed": ("no manifest lists", lambda e, p: zipped(p, {**e, "x": b""})),
    "is missing": (
        "missing",
        lambda e, p: zipped(p, {n: d for n, d in e.items() if n != "plan.yaml"}),
    ),
    "has another size": ("wrong size", lambda e, p: zipped(p, {**e, "plan.yaml": b"x"})),
    "has other content": (
        "was changed",
        lambda e, p: zipped(p, {**e, "plan.yaml": e["plan.yaml"][:-1] + b"?"}),
    ),
    "has an edited manifest": (
        "manifest was changed",
        lambda e, p: zipped(
            p, {**e, "manifest.json": e["manifest.json"].replace(b'"ok": "yes"', b'"ok": "no"')}
        ),
    ),
    "no manifest": ("not a packed bundle", lambda e, p: zipped(p, {"plan.yaml": b""})),
    "manifest lists itself": (
        "cannot list itself",
        lambda e, p: zipped(p, itself(e)),
    ),
    "another method": ("neither stored nor", lambda e, p: zipped(p, e, zipfile.ZIP_BZIP2)),
    "is no archive": ("damaged", lambda e, p: Path(shutil.copyfile(__file__, p))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind: str, bundle: Path, tmp_path: Path) -> None:
    """Nothing is written outside, and nothing is left behind."""
    message, make = HOSTILE[kind]
    archive = make(contents(bundle), tmp_path / "a.adz")
    with pytest.raises(FormatError, match=message):
        unpack(archive, tmp_path / "deep" / "out")
    with pytest.raises(FormatError):
        adcompile.load(archive)
    assert not list((tmp_path / "deep").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.adz", "cache", "deep"]


def itself(entries: Entries) -> Entries:
    """A manifest that lists itself."""
    manifest = Manifest.model_validate_json(entries["manifest.json"])
    record = FileRecord(size=1, sha256="0" * 64)
    return with_manifest(entries, files={**manifest.files, "manifest.json": record})


def bomb(entries: Entries, path: Path) -> Path:
    """256 MiB of zeros in 256 KiB; its manifest owns up to it."""
    size = 1 << 28
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in listing(entries, "x", b"", size).items():
            if name != "x":
                archive.writestr(name, data)
        with archive.open("x", "w") as stream:
            for _ in range(size >> 24):
                stream.write(bytes(1 << 24))
    return path


def test_a_bomb_is_not_unpacked(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is much larger than the archive is refused before the first byte."""
    monkeypatch.setattr("adcompile.unpack.SMALL", 0)
    with pytest.raises(FormatError, match="unpacks to too much"):
        unpack(bomb(contents(bundle), tmp_path / "a.adz"), tmp_path / "out")


def test_many_lists_are_a_bomb_too(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of categories count before the first of them is written."""
    monkeypatch.setattr("adcompile.unpack.SMALL", 0)
    monkeypatch.setattr("adcompile.unpack.MOST_GROWTH", 10)
    lists = {f"categories/c{i}/category.json": bytes(1 << 20) for i in range(8)}
    archive = zipped(tmp_path / "a.adz", contents(bundle) | lists, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="unpacks to too much"):
        unpack(archive, tmp_path / "out")


def test_links_and_doubles_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A symbolic link, two files of one name, an entry with a password."""
    entries = contents(bundle)
    link = tmp_path / "link.adz"
    with zipfile.ZipFile(link, "w") as archive:
        for name, data in entries.items():
            mode = 0o120777 if name == "plan.yaml" else 0o100644
            archive.writestr(entry(name, mode), data)
    with pytest.raises(FormatError, match="unsafe entry"):
        unpack(link, tmp_path / "out")
    twice = zipped(tmp_path / "twice.adz", entries)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("plan.yaml", b"other")
    with pytest.raises(FormatError, match="unsafe entry"):
        unpack(twice, tmp_path / "out")
    locked = zipped(tmp_path / "locked.adz", {"a": b""} | entries).read_bytes()
    at = locked.index(b"PK\x01\x02")
    (tmp_path / "locked.adz").write_bytes(locked[: at + 8] + b"\x01" + locked[at + 9 :])
    with pytest.raises(FormatError, match="unsafe entry"):
        unpack(tmp_path / "locked.adz", tmp_path / "out")


def test_a_cut_or_flipped_archive_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Wherever it is cut, and whichever byte is flipped: an error of ours, or the same bundle."""
    data = pack(bundle, tmp_path / "m.adz", without=["host", "golden"]).path.read_bytes()
    rng = np.random.default_rng(0)
    wanted = contents(bundle_folder(tmp_path / "m.adz"))
    for number in range(60):
        at = int(rng.integers(0, len(data)))
        flipped = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        file = tmp_path / f"{number}.adz"
        file.write_bytes(data[:at] if number % 3 == 0 else flipped)
        try:
            folder = unpack(file, tmp_path / f"out{number}")
        except FormatError:
            continue
        assert contents(folder) == wanted


def test_no_room_is_said(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is unpacked the disk is asked."""
    file = pack(bundle, tmp_path / "m.adz").path
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(InputError, match="no room"):
        unpack(file, tmp_path / "out")
