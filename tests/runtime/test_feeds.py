"""Arrays from files and against their declaration: damage never escapes, symbols agree."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.errors import FormatError, InputError, UsageError
from adcompile.manifest import TensorSpec
from adcompile.runtime.arrays import file_name, open_array, safe_names, save_array
from adcompile.runtime.feeds import check_feeds, read_array, read_arrays


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.zeros((0, 4), np.float16),
        np.array(3.5),
        np.array([True, False]),
    ],
)
def test_round_trip(tmp_path: Path, array: np.ndarray) -> None:
    """Both readers give back what numpy wrote, in either order of axes."""
    (tmp_path / "a.npy").write_bytes(npy(array))
    (tmp_path / "a.npz").write_bytes(npz(x=array))
    for found in (read_array(tmp_path / "a.npy"), read_arrays(tmp_path / "a.npz")["x"]):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000,)") + bytes(64),
        header("(16,)") + bytes(63),
        header("(-4,)") + bytes(64),
        header("(2, 2)", "|O") + bytes(64),
        header("('a',)"),
        b"\x93NUMPY\x09\x00" + bytes(64),
        npy(np.array([{"a": 1}], dtype=object)),
        b"",
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    """A header that promises more than the file holds never allocates it."""
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a readable"):
        read_array(path)


WHOLE = {"a.npy": npy(np.arange(12.0).reshape(3, 4)), "a.npz": npz(x=np.arange(9), y=np.ones(3))}


@given(
    name=st.sampled_from(sorted(WHOLE)),
    place=st.floats(0, 1),
    change=st.binary(max_size=6),
    cut=st.booleans(),
)
def test_damage_never_escapes(
    tmp_path: Path, name: str, place: float, change: bytes, cut: bool
) -> None:
    """Any damage gives arrays or a FormatError."""
    data = WHOLE[name]
    at = int(place * len(data))
    path = tmp_path / name
    path.write_bytes(data[:at] + change + (b"" if cut else data[at + len(change) :]))
    try:
        found = read_array(path) if name.endswith("npy") else read_arrays(path)
    except FormatError as error:
        found = error
    assert isinstance(found, np.ndarray | dict | FormatError)


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def test_symbols_have_one_size() -> None:
    """A named free dimension is the same everywhere; "?" may differ."""
    specs = [spec("a", "n", 2), spec("b", "n"), spec("c", "?"), spec("d", "?")]

    def feeds(rows: int) -> dict[str, np.ndarray]:
        shapes = {"a": (3, 2), "b": (rows,), "c": (1,), "d": (5,)}
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    assert list(check_feeds(specs, feeds(3))) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="'b' has the wrong shape"):
        check_feeds(specs, feeds(4))


def test_feeds_become_contiguous() -> None:
    """Views in odd orders are accepted; scalars stay scalars."""
    array = np.zeros((4, 6), np.float32)[::2, ::3].T
    found = check_feeds([spec("a", 2, 2), spec("s")], {"a": array, "s": np.float32(1)})
    assert found["a"].flags["C_CONTIGUOUS"]
    assert found["s"].shape == ()


def test_all_wrong_names_at_once() -> None:
    """Unknown and missing names come in one message."""
    with pytest.raises(UsageError, match="unknown: y; missing: x"):
        check_feeds([spec("x", 1)], {"y": np.zeros(1, np.float32)})


@given(st.lists(st.text(max_size=12), unique=True, max_size=8))
def test_file_names_are_safe_and_distinct(names: list[str]) -> None:
    """Whatever tensors are called, file names are plain, and differ on any file system."""
    files = safe_names(names)
    assert len({f.casefold() for f in files.values()}) == len(names)
    for file in [*files.values(), *(file_name(i, n) for i, n in enumerate(names))]:
        assert file.isascii()
        assert not set(file) & set('/\\:*?"<>| \0')
        assert not file.startswith((".", "-"))


def test_recorded_arrays(tmp_path: Path) -> None:
    """Written arrays are mapped back; paths out of the folder and damage are refused."""
    array = np.arange(6.0).reshape(2, 3)
    size = save_array(tmp_path / "d/a.npy", array.T)
    assert size == (tmp_path / "d/a.npy").stat().st_size
    assert np.array_equal(open_array(tmp_path, "d/a.npy"), array.T)
    (tmp_path / "e.npy").write_bytes(b"")
    for name in ("../a.npy", "e.npy", "none.npy", "/etc/passwd"):
        with pytest.raises(FormatError):
            open_array(tmp_path, name)
    with pytest.raises(InputError, match="cannot write"):
        save_array(tmp_path / "d/a.npy/b.npy", array)
