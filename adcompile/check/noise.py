"""In words: how a quantized part comes to be too noisy although none of its nodes is wrong.

Every layer rounds. When no layer does harm by itself, two things say what to do about it: how the
noise grows through the part, and whether the failing sample is quieter than another one. The steps of
a grid are as large for small values as for large ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adcompile.check.compare import SNR_CAP, snr_db
from adcompile.check.localize import TensorError
from adcompile.check.tolerance import Tolerance
from adcompile.interfaces import Array

QUIET = 3.0  # times smaller values than in another sample are worth saying
ADVICE = (
    "What helps: calibration images like those of the device (--calib), a finer --precision, or "
    "--budget 'snr>=20', which keeps the nodes in float that matter most. A network of random weights "
    "amplifies noise more than a trained one"
)


@dataclass(frozen=True)
class Level:
    """One output of a part on one sample: root mean square of its values, and the ratio in dB."""

    sample: int
    output: str
    rms: float
    snr_db: float


def levels(sample: int, expected: Mapping[str, Array], made: Mapping[str, Array]) -> list[Level]:
    """The outputs that can be compared value by value."""
    found: list[Level] = []
    for name, array in expected.items():
        other = made.get(name)
        if (
            other is None
            or other.shape != array.shape
            or array.dtype.kind != "f"
            or not array.size
        ):
            continue
        wide = np.asarray(array, np.float64)
        ratio = snr_db(wide, np.abs(np.asarray(other, np.float64) - wide))
        found.append(Level(sample, name, float(np.sqrt(np.square(wide).mean())), ratio))
    return found


def accumulated(
    errors: Sequence[TensorError], tolerance: Tolerance, heard: Sequence[Level], sample: int
) -> str:
    """What to say of *sample* when no value in *errors* is wrong by itself; "" without a ratio.

    *errors* are those of a whole run, in execution order; *heard* the outputs on all samples.
    """
    noisy = [(e.value, e.comparison) for e in errors if _ratio(e) < SNR_CAP]
    bad = next((i for i, (_, c) in enumerate(noisy) if not c.ok), None)
    if tolerance.snr_db is None or bad is None:
        return ""
    (first, start), (passed, _) = noisy[0], noisy[bad]
    text = (
        f"no node is wrong by itself; the noise of quantization adds up: "
        f"{start.metrics['snr_db']:.1f} dB at {first!r}, below {tolerance.snr_db:g} dB from "
        f"{passed!r} on (value {bad + 1} of {len(noisy)})"
    )
    own = [level for level in heard if level.sample == sample]
    if own:
        worst = min(own, key=lambda level: level.snr_db)
        text += f", {worst.snr_db:.1f} dB at {worst.output!r}"
    return text


def _ratio(error: TensorError) -> float:
    return error.comparison.metrics.get("snr_db", SNR_CAP)


def quiet(heard: Sequence[Level], sample: int) -> str:
    """A sentence when another sample has much larger values where *sample* is worst, else ""."""
    own = [level for level in heard if level.sample == sample]
    if not own:
        return ""
    worst = min(own, key=lambda level: level.snr_db)
    others = [h for h in heard if h.output == worst.output and h.sample != worst.sample]
    loudest = max(others, key=lambda level: level.rms, default=worst)
    if worst.rms <= 0.0 or loudest.rms < QUIET * worst.rms:
        return ""
    return (
        f"Sample {worst.sample} has values {loudest.rms / worst.rms:.1f} times smaller there than "
        f"sample {loudest.sample} ({loudest.snr_db:.1f} dB), and the same steps"
    )
