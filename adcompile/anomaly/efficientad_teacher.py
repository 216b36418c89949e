"""A teacher for EfficientAD where none was trained on ImageNet: distilled from filters, whitened."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import EfficientadConfig
from adcompile.anomaly.efficientad_networks import PatchNetwork
from adcompile.anomaly.filters import filter_network
from adcompile.anomaly.parts import Session
from adcompile.anomaly.synth.recipes import picture, recipe
from adcompile.anomaly.train_loop import apply, shuffled
from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD

F64 = npt.NDArray[np.float64]

NOISE = 100.0
"""A whitened direction is at least this many times (20 dB) stronger than 8-bit rounding in it."""


def other_textures(side: int, count: int, seed: int) -> Tensor:
    """Pictures in 0…1 of textures that belong to no category: something to be strange on."""
    random = np.random.default_rng([seed, 7919])
    kinds = [recipe(random) for _ in range(count)]
    made = np.stack([picture(kinds, label, side, random) for label in range(count)])
    pixels = np.clip(made, 0.0, 1.0).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))


def distill(
    teacher: nn.Module, images: Tensor, config: EfficientadConfig, session: Session
) -> float:
    """Teach a patch network the filters' description of *images*; returns the last loss.

    The teacher is on ``session.device``.
    """
    targets = _filter_targets(images, config.channels, config.seed)
    optimiser = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(config.seed)
    loss = torch.zeros(())
    step = 0
    while step < config.distill:
        for index in shuffled(len(images), 4, generator):
            found = teacher(images[index].to(session.device))
            loss = functional.mse_loss(found, targets[index].to(session.device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            session.tell("distill teacher", min(step, config.distill), config.distill)
            if step >= config.distill:
                break
    return float(loss.detach())


def _filter_targets(images: Tensor, channels: int, seed: int) -> Tensor:
    """The filters' cells and contrast, mixed to *channels* by a fixed random rotation, at the
    patch network's positions (centre of place i is pixel 4 i + 16)."""
    side = int(images.shape[-1])
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    runner = FeatureRunner(load_backbone(filter_network(side)))
    features = np.concatenate(runner(((images - mean) / std).numpy()), axis=1)
    features = (features - features.mean((0, 2, 3), keepdims=True)) / (
        features.std((0, 2, 3), keepdims=True) + 1e-6
    )
    mix = np.random.default_rng(seed).standard_normal((channels, features.shape[1]))
    mixed = np.einsum("dc,nchw->ndhw", mix / np.sqrt(features.shape[1]), features, optimize=True)
    places = side // 4 - 8
    centres = (4.0 * torch.arange(places) + 16.5) / side * 2.0 - 1.0
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.stack((x, y), dim=-1).expand(len(images), -1, -1, -1)
    return functional.grid_sample(
        torch.from_numpy(mixed.astype(np.float32)),
        grid,
        padding_mode="border",
        align_corners=False,
    )


def whiten(teacher: PatchNetwork, images: Tensor, shrink: float) -> None:
    """Make the description of normal *images* uncorrelated, of variance about one.

    Directions that a device with 8-bit numbers could not tell from its own rounding are not
    amplified: ``NOISE`` times the covariance of that rounding is added to the covariance, and
    *shrink* times its mean variance. Symmetric (ZCA), so that every channel holds a bit of all
    directions: one quantization step suits all, and dividing channels by their deviation does not
    undo what was added.
    """
    with torch.no_grad():
        rows = _rows(teacher, images)
        rounding = _rows(eight_bits(teacher, images), images) - rows
        matrix = torch.from_numpy(_whitener(rows.numpy(), rounding.numpy(), shrink))
        last = teacher.last
        assert last.bias is not None
        weight = matrix @ last.weight.cpu().double().flatten(1)
        bias = matrix @ (last.bias.cpu().double() - rows.mean(0))
        last.weight.copy_(weight.reshape(last.weight.shape))
        last.bias.copy_(bias)


def _whitener(rows: F64, rounding: F64, shrink: float) -> F64:
    """Symmetric [C, C], for rows and their rounding [N, C]."""
    covariance = np.cov(rows.T) + NOISE * (rounding.T @ rounding) / len(rounding)
    floor = shrink * float(np.trace(covariance)) / len(covariance)
    found = np.linalg.eigh(covariance)
    axes = found.eigenvectors
    made: F64 = (axes / np.sqrt(np.maximum(found.eigenvalues, 0.0) + floor)) @ axes.T
    return made


def _rows(teacher: nn.Module, images: Tensor) -> Tensor:
    """Descriptions of every place [N, C], double."""
    return apply(teacher, images).permute(0, 2, 3, 1).flatten(0, 2).double()


def eight_bits(teacher: PatchNetwork, images: Tensor) -> PatchNetwork:
    """A copy of the teacher that rounds weights per channel, and every convolution's input by the
    range it has on some of *images*, to 8 bits: roughly what integer devices do."""
    made = copy.deepcopy(teacher)
    layers = [layer for layer in made.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        step = layer.weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 127.0
        layer.weight.copy_(_rounded(layer.weight, step))
    for layer in layers:
        layer.register_forward_pre_hook(_InputRounding())
    apply(made, images[:8])
    return made


class _InputRounding:
    """A hook of a layer: the first input decides the range, all are rounded."""

    def __init__(self) -> None:
        self.step: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = inputs[0]
        if self.step is None:
            self.step = ((values.amax() - values.amin()) / 255.0).clamp_min(1e-12)
        return (_rounded(values, self.step),)


def _rounded(values: Tensor, step: Tensor) -> Tensor:
    return (values / step).round() * step
