"""Inverse covariances as triangular factors: half the numbers, and a more exact distance.

An inverse covariance A is Lᵀ·L with L lower triangular, so that (x - m)ᵀ·A·(x - m) is the squared
length of L·(x - m): a sum of squares, which cannot cancel. In float32 the quadratic form loses as
many digits as the condition of A has, the length half as many.

Packed factors are what the op ``WhitenedMap`` reads: [B, C·(C + 1)/2, 16], the lower triangles row
by row, 16 patches beside each other (one vector of a processor), B groups of them, zeros in the
places that are left over in the last group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.maps import Array
from adcompile.errors import InputError

LANES = 16
CHUNK = 4 * LANES  # patches in double precision at a time

Doubles = npt.NDArray[np.float64]


def triangle(channels: int) -> int:
    """Numbers in a triangle of that many rows, the diagonal included."""
    return channels * (channels + 1) // 2


def packed_shape(patches: int, channels: int) -> tuple[int, int, int]:
    """Shape of the packed factors of [patches, channels, channels]."""
    return -(-patches // LANES), triangle(channels), LANES


def fits(mean: npt.NDArray[np.generic], factor: npt.NDArray[np.generic]) -> bool:
    """True when *factor* is as large as packed factors for *mean* [C, P] are."""
    return mean.ndim == 2 and factor.shape == packed_shape(mean.shape[1], mean.shape[0])


class Packer:
    """Collects lower triangles [n, C, C] of patches in order, n a multiple of 16 but for the last."""

    def __init__(self, patches: int, channels: int) -> None:
        self.packed = np.zeros(packed_shape(patches, channels), dtype=np.float32)
        self._places = np.tril_indices(channels)
        self._done = 0

    def add(self, lower: Doubles) -> None:
        """Put the next patches down, rounded to float32."""
        rows, columns = self._places
        numbers = lower[:, rows, columns]
        groups = -(-len(numbers) // LANES)
        padded = np.zeros((groups * LANES, numbers.shape[1]))
        padded[: len(numbers)] = numbers
        start = self._done // LANES
        self.packed[start : start + groups] = padded.reshape(groups, LANES, -1).transpose(0, 2, 1)
        self._done += len(numbers)


def factor_of(inverse: Array) -> Array:
    """Packed factors of inverse covariances [P, C, C]; only their symmetric part counts.

    Raises InputError when one of them is not positive definite, which rounding can do to the inverse
    of an almost singular matrix.
    """
    patches, channels = inverse.shape[:2]
    packer = Packer(patches, channels)
    for start in range(0, patches, CHUNK):
        part = inverse[start : start + CHUNK].astype(np.float64)
        turned = (part + part.transpose(0, 2, 1))[:, ::-1, ::-1] / 2
        try:
            # Cholesky's lower·upper of the matrix turned by 180 degrees is upper·lower of the matrix
            lower = np.linalg.cholesky(turned)
        except np.linalg.LinAlgError:
            raise InputError(
                "an inverse covariance is not positive definite",
                where=f"patches {start} to {start + len(part) - 1}",
            ) from None
        packer.add(np.asarray(lower, np.float64).transpose(0, 2, 1)[:, ::-1, ::-1])
    return packer.packed


def lower_of(factor: Array, patches: int) -> Iterator[Array]:
    """The lower triangular matrices behind packed factors, [n, C, C] for n patches at a time."""
    count = factor.shape[1]
    channels = int((np.sqrt(8.0 * count + 1) - 1) / 2)
    rows, columns = np.tril_indices(channels)
    for start in range(0, patches, CHUNK):
        groups = factor[start // LANES : (start + CHUNK) // LANES]
        numbers = groups.transpose(0, 2, 1).reshape(-1, count)[: patches - start]
        lower = np.zeros((len(numbers), channels, channels), dtype=np.float32)
        lower[:, rows, columns] = numbers
        yield lower


def dense_of(factor: Array, patches: int) -> Array:
    """The lower triangular matrices [P, C, C] behind packed factors."""
    return np.concatenate(list(lower_of(factor, patches)))


def inverse_of(factor: Array, patches: int) -> Array:
    """The inverse covariances [P, C, C] behind packed factors, symmetric to the bit."""
    found: list[Array] = []
    for lower in lower_of(factor, patches):
        wide = lower.astype(np.float64)
        product = wide.transpose(0, 2, 1) @ wide
        found.append(np.asarray((product + product.transpose(0, 2, 1)) / 2, np.float32))
    return np.concatenate(found)
