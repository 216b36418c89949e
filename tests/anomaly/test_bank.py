"""The bank file: lossless, one form per content, and suspicious of everything it reads."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adcompile.anomaly.bank import pack_bank, prepare_bank, read_bank, write_bank
from adcompile.anomaly.formats.ours import read_bank_file, write_bank_file
from adcompile.anomaly.sections import ENTRY, HEADER, Container, pack_container, read_container
from adcompile.anomaly.statistics import Statistics, read_statistics
from adcompile.anomaly.whiten import packed_shape
from adcompile.errors import FormatError, InputError, UsageError


def rows_of(count: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


def resealed(data: bytes) -> bytes:
    """*data* with all checksums made right again, so that deeper checks are reached."""
    out = bytearray(data)
    count = int.from_bytes(out[12:16], "little")
    for i in range(min(count, 64)):
        at = HEADER.size + ENTRY.size * i
        offset = int.from_bytes(out[at + 72 : at + 80], "little")
        size = int.from_bytes(out[at + 80 : at + 88], "little")
        if offset + size <= len(out):
            out[at + 88 : at + 92] = zlib.crc32(out[offset : offset + size]).to_bytes(4, "little")
    out[128:132] = bytes(4)
    end = HEADER.size + ENTRY.size * count
    out[128:132] = zlib.crc32(out[: min(end, len(out))]).to_bytes(4, "little")
    return bytes(out)


def section_offset(data: bytes, name: str) -> int:
    """Where the bytes of a section begin."""
    for i in range(int.from_bytes(data[12:16], "little")):
        fields = ENTRY.unpack_from(data, HEADER.size + ENTRY.size * i)
        if fields[0].rstrip(b"\0").decode() == name:
            return int(fields[7])
    raise AssertionError(name)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (16, 5), (17, 32), (300, 40), (37, 384)])
def test_rows_come_back_bit_for_bit(count: int, columns: int, tmp_path: Path) -> None:
    """A bank file gives back the float32 rows, contract and producer it was made of."""
    rows = rows_of(count, columns)
    path = tmp_path / "a.adbank"
    write_bank(path, prepare_bank(rows, contract="c" * 64, producer=bytes(range(32))))
    bank = read_bank(path)
    assert bank.original_rows().tobytes() == rows.tobytes()
    assert (bank.contract, bank.producer) == ("c" * 64, bytes(range(32)))


def test_equal_rows_give_equal_bytes() -> None:
    """Preparing a bank is deterministic."""
    rows = rows_of(200, 24)
    assert pack_bank(prepare_bank(rows)) == pack_bank(prepare_bank(rows.copy()))


def test_sections_start_on_cache_lines() -> None:
    """Kernels may assume 64-byte alignment inside the file, and rows are padded to it."""
    data = pack_bank(prepare_bank(rows_of(50, 7)))
    bank = read_bank(data)
    assert [section_offset(data, name) % 64 for name in bank.sections] == [0] * len(bank.sections)
    assert bank.sections["rows"].shape[1] * 4 % 64 == 0


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (np.zeros((0, 4), np.float32), "0 rows"),
        (np.zeros((4, 0), np.float32), "0 columns"),
        (np.zeros(4, np.float32), "axes"),
        (np.zeros((2, 2)), "float64"),
        (np.array([[1, np.nan]], np.float32), "NaN"),
        (np.array([[np.inf, 0]], np.float32), "NaN"),
    ],
)
def test_unusable_rows_are_refused(rows: NDArray[np.float32], word: str) -> None:
    """Empty, NaN, wrong rank, wrong type: an error that says which."""
    with pytest.raises(InputError, match=word):
        prepare_bank(rows)


@pytest.mark.parametrize("axes", [1, 33, 512])
def test_numbers_of_axes_are_refused_unless_possible(axes: int) -> None:
    """Only what the kernels' blocks allow."""
    with pytest.raises(UsageError, match=f"{axes} axes"):
        prepare_bank(rows_of(40, 6), axes=axes)


SMALL = pack_bank(prepare_bank(rows_of(40, 6), axes=32))


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (0, b"X", "magic"),
        (8, b"\x02", "version"),
        (12, b"\x63", "sections|checksum"),
        (16, b"\x01", "file size"),
        (24, b"\x01", "checksum"),
        (140, b"\x01", "checksum"),
    ],
)
def test_a_damaged_header_is_refused_by_field(at: int, value: bytes, word: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(FormatError, match=word):
        read_bank(SMALL[:at] + value + SMALL[at + 1 :])


@pytest.mark.parametrize("length", [0, 1, 100, 191, 192, 500, 4000])
def test_a_truncated_file_is_refused(length: int) -> None:
    """Cut anywhere, a file never opens."""
    with pytest.raises(FormatError):
        read_bank(SMALL[:length])


@pytest.mark.parametrize("name", ["rows", "order", "whole", "head", "row_terms", "numbers"])
def test_a_flipped_bit_in_any_section_is_found(name: str) -> None:
    """Checksums cover the data."""
    data = bytearray(SMALL)
    data[section_offset(SMALL, name) + 1] ^= 4
    with pytest.raises(FormatError, match=f"{name}.checksum"):
        read_bank(bytes(data))


def test_a_wrong_permutation_is_refused() -> None:
    """An index outside the bank, or one twice, must not reach the search."""
    for number in (40, 2**31, 1):
        data = bytearray(SMALL)
        at = section_offset(SMALL, "order")
        data[at : at + 4] = number.to_bytes(4, "little")
        data[at + 4 : at + 8] = number.to_bytes(4, "little")
        with pytest.raises(FormatError, match="order"):
            read_bank(resealed(bytes(data)))


def test_nan_inside_is_refused() -> None:
    """A bank that was tampered with behind right checksums still cannot hold NaN."""
    data = bytearray(SMALL)
    at = section_offset(SMALL, "rows")
    data[at : at + 4] = np.array([np.nan], np.float32).tobytes()
    with pytest.raises(FormatError, match="rows"):
        read_bank(resealed(bytes(data)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, HEADER.size + ENTRY.size * 16 + 600), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_no_mutation_gets_past_the_reader(changes: list[tuple[int, int]], seal: bool) -> None:
    """Whatever bytes change: FormatError, or a bank whose arrays have the declared sizes."""
    data = bytearray(SMALL)
    for at, value in changes:
        data[at] = value
    try:
        bank = read_bank(resealed(bytes(data)) if seal else bytes(data))
    except FormatError:
        return
    assert bank.original_rows().shape == (40, bank.columns)


def test_another_kind_of_container_is_not_a_bank() -> None:
    """Statistics in the same container are told apart by their kind."""
    data = pack_container(Container("gaussian", {"mean": rows_of(3, 3)}))
    assert read_container(data).kind == "gaussian"
    with pytest.raises(FormatError, match="kind"):
        read_bank(data)


@pytest.mark.parametrize(
    "content",
    [
        Container("Bad Kind", {"a": rows_of(1, 1)}),
        Container("knn-l2", {}),
        Container("knn-l2", {"Bad Name": rows_of(1, 1)}),
        Container("knn-l2", {"a": np.zeros((2, 2), np.complex64)}),
        Container("knn-l2", {"a": np.zeros((0, 2), np.float32)}),
        Container("knn-l2", {"a": rows_of(1, 1)}, contract="line\nbreak"),
        Container("knn-l2", {"a": rows_of(1, 1)}, producer=b"short"),
    ],
)
def test_what_the_container_cannot_hold_is_refused(content: Container) -> None:
    """Nothing is written that the reader would refuse."""
    with pytest.raises(FormatError):
        pack_container(content)


def test_a_missing_file_is_a_format_error(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(FormatError, match="cannot be read"):
        read_bank(tmp_path / "none.adbank")


@pytest.mark.parametrize("form", ["inverse", "factor"])
def test_statistics_as_a_bank_file(tmp_path: Path, form: str) -> None:
    """PaDiM's arrays come back bit for bit; what does not fit together is refused by name."""
    rng = np.random.default_rng(0)
    mean = rng.random((3, 4), dtype=np.float32)
    shape = (4, 3, 3) if form == "inverse" else packed_shape(4, 3)
    matrix = rng.random(shape, dtype=np.float32)
    path = tmp_path / "s.adbank"
    path.write_bytes(Statistics({"mean": mean, form: matrix}).file("id"))
    found = read_statistics(path)
    assert found.kind == {"inverse": "gaussian", "factor": "whitened"}[form]
    assert np.array_equal(found.mean, mean)
    assert np.array_equal(found.arrays[form], matrix)
    assert found.contract == "id"
    again = tmp_path / "again.adbank"
    write_bank_file(again, read_bank_file(path))
    assert np.array_equal(read_statistics(again).inverse(), found.inverse())
    with pytest.raises(FormatError, match="disagree"):
        Statistics({"mean": mean, form: matrix[:, :2]})
    with pytest.raises(FormatError, match="NaN"):
        Statistics({"mean": mean, form: np.full_like(matrix, np.nan)})
    with pytest.raises(FormatError, match="statistics"):
        read_statistics(pack_bank(prepare_bank(mean)))


def test_statistics_whose_kind_contradicts_their_arrays() -> None:
    """A file that says one form and holds the other is refused."""
    arrays = {"mean": np.zeros((3, 4), np.float32), "factor": np.zeros((1, 6, 16), np.float32)}
    for kind, sections in (("gaussian", arrays), ("whitened", {"mean": arrays["mean"]})):
        with pytest.raises(FormatError, match="not a file of statistics"):
            read_statistics(pack_container(Container(kind, sections)))
