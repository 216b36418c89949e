"""EfficientAD's networks: two patch description networks and an autoencoder.

Tensor names are those of anomalib's checkpoints, so that its weights load (width 1). Images come
in 0…1; every network normalises them inside, so nothing outside may do it again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD
from adcompile.errors import UsageError


def normalise(images: Tensor) -> Tensor:
    """ImageNet's mean and deviation on 0…1 images."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images - mean) / std


def enlarge(x: Tensor, size: int) -> Tensor:
    """Bilinear, [N, C, H, W] to [N, C, size, size].

    torch's own has no deterministic gradient on a GPU, so there it is two matrix products.
    """
    if x.device.type == "cpu":
        return functional.interpolate(x, size=size, mode="bilinear")
    return enlarge_by_products(x, size)


def enlarge_by_products(x: Tensor, size: int) -> Tensor:
    """:func:`enlarge` along one axis, then the other."""
    wide = x @ _bilinear(x.shape[3], size, x)
    return (wide.mT @ _bilinear(x.shape[2], size, x)).mT


def _bilinear(count: int, size: int, like: Tensor) -> Tensor:
    """Weights [count, size] of *count* pixels in *size* new ones: pixel centres at one half, the
    border repeated."""
    where = (torch.arange(size, device=like.device) + 0.5) * (count / size) - 0.5
    pixels = torch.arange(count, device=like.device)[:, None]
    weights = 1.0 - (where.clamp(0.0, count - 1.0) - pixels).abs()
    return weights.clamp_min(0.0).to(like.dtype)


def _wide(channels: int, width: float) -> int:
    return max(8, round(channels * width))


class SmallPatchNetwork(nn.Module):
    """Four convolutions, no padding: [N, 3, S, S] to [N, C, S/4 - 8, S/4 - 8]."""

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        a, b = _wide(128, width), _wide(256, width)
        self.conv1 = nn.Conv2d(3, a, 4)
        self.conv2 = nn.Conv2d(a, b, 4)
        self.conv3 = nn.Conv2d(b, b, 3)
        self.conv4 = nn.Conv2d(b, channels, 4)

    @property
    def last(self) -> nn.Conv2d:
        """The layer that gives the description; nothing follows it."""
        return self.conv4

    def forward(self, images: Tensor) -> Tensor:
        """Patch descriptions."""
        x = functional.relu(self.conv1(normalise(images)))
        x = functional.avg_pool2d(x, 2, 2)
        x = functional.relu(self.conv2(x))
        x = functional.avg_pool2d(x, 2, 2)
        x = functional.relu(self.conv3(x))
        out: Tensor = self.conv4(x)
        return out


class MediumPatchNetwork(nn.Module):
    """Six convolutions: [N, 3, S, S] to [N, C, S/4 - 8, S/4 - 8]."""

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        a, b = _wide(256, width), _wide(512, width)
        self.conv1 = nn.Conv2d(3, a, 4)
        self.conv2 = nn.Conv2d(a, b, 4)
        self.conv3 = nn.Conv2d(b, b, 1)
        self.conv4 = nn.Conv2d(b, b, 3)
        self.conv5 = nn.Conv2d(b, channels, 4)
        self.conv6 = nn.Conv2d(channels, channels, 1)

    @property
    def last(self) -> nn.Conv2d:
        """The layer that gives the description; nothing follows it."""
        return self.conv6

    def forward(self, images: Tensor) -> Tensor:
        """Patch descriptions."""
        x = functional.relu(self.conv1(normalise(images)))
        x = functional.avg_pool2d(x, 2, 2)
        x = functional.relu(self.conv2(x))
        x = functional.avg_pool2d(x, 2, 2)
        x = functional.relu(self.conv3(x))
        x = functional.relu(self.conv4(x))
        x = functional.relu(self.conv5(x))
        out: Tensor = self.conv6(x)
        return out


class _Encoder(nn.Module):
    def __init__(self, side: int, width: float) -> None:
        super().__init__()
        a, b = _wide(32, width), _wide(64, width)
        self.enconv1 = nn.Conv2d(3, a, 4, 2, 1)
        self.enconv2 = nn.Conv2d(a, a, 4, 2, 1)
        self.enconv3 = nn.Conv2d(a, b, 4, 2, 1)
        self.enconv4 = nn.Conv2d(b, b, 4, 2, 1)
        self.enconv5 = nn.Conv2d(b, b, 4, 2, 1)
        self.enconv6 = nn.Conv2d(b, b, min(8, side // 32))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.enconv1, self.enconv2, self.enconv3, self.enconv4, self.enconv5):
            x = functional.relu(layer(x))
        out: Tensor = self.enconv6(x)
        return out


class _Decoder(nn.Module):
    def __init__(self, side: int, channels: int, width: float) -> None:
        super().__init__()
        b = _wide(64, width)
        sizes = (
            side // 64 - 1,
            side // 32,
            side // 16 - 1,
            side // 8,
            side // 4 - 1,
            side // 2 - 1,
        )
        self.sizes = [max(1, size) for size in sizes]
        self.last = side // 4 - 8
        for index in range(1, 7):
            setattr(self, f"deconv{index}", nn.Conv2d(b, b, 4, 1, 2))
        self.deconv7 = nn.Conv2d(b, b, 3, 1, 1)
        self.deconv8 = nn.Conv2d(b, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for index, size in enumerate(self.sizes, start=1):
            x = enlarge(x, size)
            layer: nn.Module = getattr(self, f"deconv{index}")
            x = functional.dropout(functional.relu(layer(x)), 0.2, self.training)
        x = enlarge(x, self.last)
        out: Tensor = self.deconv8(functional.relu(self.deconv7(x)))
        return out


class Autoencoder(nn.Module):
    """[N, 3, S, S] to [N, C, S/4 - 8, S/4 - 8] through a small code."""

    def __init__(self, side: int, channels: int, width: float = 1.0) -> None:
        super().__init__()
        self.encoder = _Encoder(side, width)
        self.decoder = _Decoder(side, channels, width)

    def forward(self, images: Tensor) -> Tensor:
        """A prediction of the teacher's output."""
        out: Tensor = self.decoder(self.encoder(normalise(images)))
        return out


PatchNetwork = SmallPatchNetwork | MediumPatchNetwork
_PATCH: dict[str, type[PatchNetwork]] = {"small": SmallPatchNetwork, "medium": MediumPatchNetwork}


class Networks(nn.Module):
    """Teacher, student and autoencoder; gives (teacher, student, autoencoder) outputs.

    The teacher's output is normalised per channel by ``mean`` and ``std`` of normal images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: str, side: int, channels: int, width: float) -> None:
        super().__init__()
        if side < 64 or side % 32:
            raise UsageError(
                "EfficientAD needs an image side of at least 64 and a multiple of 32",
                why=f"got {side}",
            )
        self.channels = channels
        self.teacher: PatchNetwork = _PATCH[size](channels, width)
        self.student: PatchNetwork = _PATCH[size](2 * channels, width)
        self.ae = Autoencoder(side, channels, width)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def describe(self, images: Tensor) -> Tensor:
        """The teacher's normalised output; no gradient."""
        with torch.no_grad():
            out: Tensor = (self.teacher(images) - self.mean) / self.std
        return out

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three outputs."""
        return self.describe(images), self.student(images), self.ae(images)
