"""Where a reconstruction differs from its image more than it usually does, at every place.

A reconstruction is never sharp, so the plain squared error is largest at edges of good images.
Here the signed error is smoothed at two scales, what is usual at each place (mean and spread over
the normal images) is taken out, and directions in which all places vary together are scaled down.
What is left is squared, averaged over channels and blurred; the score is its largest root.

Everything before the square is convolutions and additions, so it stays in the device part.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.anomaly.maps import Array, blur_map, gaussian_taps

SCALES = (0.7, 1.5)
"""Deviations of the two blurs, in pixels."""
USUAL_BLUR = 3.0
"""Neighbouring places see the same texture: mean and spread are smoothed this far, or the few
dozen training images make a noisy yardstick."""
SPREAD_FLOOR = 0.3
"""Share of the mean spread added to every place's spread, so that no place decides alone."""
SHRINKAGE = 0.1
"""Added to every eigenvalue of the channels' correlation."""
CHANNELS = 3 * len(SCALES)


def blur_kernels() -> Tensor:
    """Depthwise kernels [6, 1, K, K]: for each colour one blur per scale."""
    taps = [gaussian_taps(scale) for scale in SCALES]
    size = max(len(t) for t in taps)
    padded = [np.pad(t, (size - len(t)) // 2) for t in taps]
    kernels = np.stack([np.outer(t, t) for t in padded] * 3)
    return torch.from_numpy(kernels[:, None].astype(np.float32))


class Deviation(nn.Module):
    """Error [N, 3, H, W] to its deviation [N, 6, H, W] from the usual error.

    ``usual`` and ``gain`` (one over spread) are [1, 6, H, W]; ``mix`` [6, 6] decorrelates.
    """

    kernels: Tensor
    usual: Tensor
    gain: Tensor
    mix: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("kernels", blur_kernels())
        self.register_buffer("usual", torch.zeros(1, CHANNELS, height, width))
        self.register_buffer("gain", torch.ones(1, CHANNELS, height, width))
        self.register_buffer("mix", torch.eye(CHANNELS))

    def smooth(self, error: Tensor) -> Tensor:
        """The error at both scales; outside the image there is none."""
        half = self.kernels.shape[-1] // 2
        return functional.conv2d(error, self.kernels, padding=half, groups=3)

    def forward(self, error: Tensor) -> Tensor:
        """Standardised, decorrelated deviations."""
        standard = (self.smooth(error) - self.usual) * self.gain
        return functional.conv2d(standard, self.mix[:, :, None, None])

    def fit(self, errors: Tensor) -> None:
        """Learn what is usual from the errors [N, 3, H, W] of normal images."""
        smooth: Array = self.smooth(errors).numpy()
        mean = blur_map(smooth.mean(axis=0), USUAL_BLUR)
        spread = blur_map(smooth.std(axis=0), USUAL_BLUR)
        spread += SPREAD_FLOOR * spread.mean(axis=(1, 2), keepdims=True) + 1e-8
        self.usual.copy_(torch.from_numpy(mean)[None])
        self.gain.copy_(torch.from_numpy(1.0 / spread)[None])
        self.mix.copy_(torch.from_numpy(_decorrelation((smooth - mean) / spread)))


def _decorrelation(standard: Array) -> Array:
    """A matrix [C, C] that gives standardised channels [N, C, H, W] unit, uncorrelated spread."""
    rows = standard.transpose(0, 2, 3, 1).reshape(-1, standard.shape[1]).astype(np.float64)
    second = rows.T @ rows / len(rows)
    scale = np.sqrt(np.diag(second)) + 1e-12
    values, axes = np.linalg.eigh(second / np.outer(scale, scale))
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(values))])
    matrix = (axes / np.sqrt(np.maximum(values, 0.0) + SHRINKAGE)).T / scale
    return np.asarray(matrix, dtype=np.float32)
