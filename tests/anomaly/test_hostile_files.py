"""Trained-model files that lie: refused with a sentence, in bounded memory, with nothing run."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.formats.convert import read_trained
from adcompile.anomaly.formats.npz import write_npz
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.errors import AdcompileError, FormatError

MIB = 1 << 20


def archive_of(path: Path, data: bytes, *, compress: bool = False) -> Path:
    """A torch archive around a pickle."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
    return path


def peak_of(action: Callable[[], object]) -> int:
    """Bytes allocated at most while *action* fails with our error."""
    tracemalloc.start()
    try:
        with pytest.raises(AdcompileError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def laughs(depth: int) -> bytes:
    """A list of two references to a list of two references to …: 2^depth leaves."""
    body = b"\x80\x02](K\x01K\x01eq\x00"
    for level in range(depth):
        body += b"](h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    return body + b"."


def test_shared_lists_are_converted_once(tmp_path: Path) -> None:
    """A pickle whose lists share each other would unfold to 2^100 values."""
    content = read_torch_file(archive_of(tmp_path / "a.pth", laughs(100)))
    assert isinstance(content, list)
    assert content[0] is content[1]


def test_a_list_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """Nothing follows such a list for ever."""
    path = archive_of(tmp_path / "a.pth", b"\x80\x02]q\x00h\x00a.")
    with pytest.raises(FormatError, match="contains itself"):
        read_torch_file(path)


def test_depth_is_bounded(tmp_path: Path) -> None:
    """Ten thousand nested tuples are refused, not recursed into."""
    path = archive_of(tmp_path / "a.pth", b"\x80\x02)" + b"\x85" * 10_000 + b".")
    with pytest.raises(FormatError, match="nested too deeply"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.hmc"])
def test_compressed_pickle_bomb(tmp_path: Path, name: str) -> None:
    """A compressed member of a checkpoint is refused before it unfolds."""
    bomb = b"\x80\x02X" + struct.pack("<I", 32 * MIB) + bytes(32 * MIB) + b"."
    path = archive_of(tmp_path / name, bomb, compress=True)
    del bomb
    assert path.stat().st_size < MIB
    assert peak_of(lambda: read_trained(path)) < 4 * MIB


def test_members_may_not_overlap(tmp_path: Path) -> None:
    """A thousand names for the same bytes claim more than the file has."""
    path = tmp_path / "a.pth"
    write_torch_file(path, {"x": np.zeros(MIB, np.uint8)})
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    table = bytes(data[start : start + size])
    at = table.index(b"archive/data/0") - 46
    entry = table[at : at + 46 + len(b"archive/data/0")]
    extra = b"".join(entry[:-1] + bytes([65 + i]) for i in range(26))
    head = struct.pack("<HHII", count + 26, count + 26, size + len(extra), start)
    path.write_bytes(bytes(data[:start]) + table + extra + b"PK\x05\x06\0\0\0\0" + head + b"\0\0")
    assert peak_of(lambda: read_torch_file(path)) < MIB
    with pytest.raises(FormatError, match="overlap"):
        read_torch_file(path)


def test_tensors_sharing_a_storage_share_memory(tmp_path: Path) -> None:
    """Two thousand tensors over one storage of 1 MiB take 1 MiB, not 2 GiB."""
    torch = pytest.importorskip("torch")
    base = torch.zeros(MIB // 4)
    torch.save([base.view(-1)[:] for _ in range(2000)], tmp_path / "a.pth")
    tracemalloc.start()
    content = read_torch_file(tmp_path / "a.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(content, list)
    assert len(content) == 2000
    assert peak < 24 * MIB


def test_npz_bomb(tmp_path: Path) -> None:
    """An archive of 128 MiB of zeros in 0.2 MiB is refused before it unfolds."""
    path = tmp_path / "memory_bank.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("embeddings.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 15, 1024)}
        )
        for _ in range(128):
            file.write(bytes(MIB))
    assert path.stat().st_size < MIB
    assert peak_of(lambda: read_trained(path)) < 4 * MIB


def test_npz_header_claims_more_than_there_is(tmp_path: Path) -> None:
    """A header of 1 TiB over a few bytes allocates nothing."""
    path = tmp_path / "memory_bank.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("embeddings.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 28, 1024)}
        )
        file.write(bytes(64))
    assert peak_of(lambda: read_trained(path)) < MIB


@pytest.mark.parametrize("kind", ["npz", "pth"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_truncated_archives(tmp_path: Path, kind: str, share: float) -> None:
    """A file cut anywhere is refused with our error."""
    path = tmp_path / f"a.{kind}"
    rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    if kind == "npz":
        write_npz(path, {"embeddings": rows})
    else:
        write_torch_file(path, {"memory_bank": rows, "num_neighbors": 3})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError):
        read_trained(path)


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    """Bytes flipped inside a deflate stream: our error, not zlib's."""
    path = tmp_path / "a.npz"
    write_npz(path, {"embeddings": np.random.default_rng(0).random((64, 64)).astype(np.float32)})
    data = bytearray(path.read_bytes())
    for at in range(200, 600):
        data[at] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(FormatError, match="not a readable"):
        read_trained(path)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.bin", b"PC" + struct.pack("<4f3i", 1, 0, 2, 0.1, 9, 2**31 - 1, 2**31 - 1)),
        ("a.index", b"IxF2" + struct.pack("<iqqq?iQ", 1024, 1 << 40, 0, 0, True, 1, 1 << 50)),
    ],
)
def test_headers_that_claim_terabytes(tmp_path: Path, name: str, head: bytes) -> None:
    """Sizes are compared with the file's before anything is allocated."""
    path = tmp_path / name
    path.write_bytes(head + bytes(4096))
    assert peak_of(lambda: read_trained(path)) < MIB


class Bomb:
    """Pickles as a call that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, protocol: int) -> None:
    """A checkpoint whose threshold is a call is refused by field, and the call never happens."""
    content = {"memory_bank": 1, "num_neighbors": 3, "thresould": Bomb(tmp_path / "made")}
    path = archive_of(tmp_path / "a.pth", pickle.dumps(content, protocol=protocol))
    with pytest.raises(FormatError) as caught:
        read_trained(path)
    assert "memory_bank" in caught.value.where
    assert not (tmp_path / "made").exists()
