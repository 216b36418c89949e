"""Train a feature network where no pretrained weights can be had: it learns to tell textures apart.

    python examples/pretrain.py -o textures.pth                       # a few minutes on two cores
    adcompile fit patchcore --backbone resnet18 --weights textures.pth --data DIR -o model

Each class is a recipe for a random texture: a band of wavelengths and directions, how regular it
is, how it is coloured. Pictures of one class differ in everything else: phase, light, contrast,
noise, a piece pasted from another class. None of it comes from ``adcompile synth``, so features
are not fitted to the images that a detector is later judged on. Same seed, same bytes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchvision_cpu
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]
Random = np.random.Generator
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Recipe:
    """A texture: ``wavelength`` in pixels, direction in radians, bandwidths, two colours.

    ``sharpness`` bends waves into stripes and blobs; ``crossed`` adds the same at a right angle.
    """

    wavelength: float
    angle: float
    spread: float
    width: float
    sharpness: float
    crossed: bool
    colours: Floats


def recipe(random: Random) -> Recipe:
    dark = random.uniform(0.1, 0.5, 3)
    return Recipe(
        wavelength=float(np.exp(random.uniform(np.log(3.0), np.log(24.0)))),
        angle=float(random.uniform(0, np.pi)),
        spread=float(random.choice((0.05, 0.3, 3.0))),
        width=float(random.choice((0.05, 0.2, 0.6))),
        sharpness=float(random.choice((0.5, 2.0, 6.0))),
        crossed=bool(random.random() < 0.4),
        colours=np.stack([dark, dark + random.uniform(0.15, 0.5) * random.uniform(0.7, 1.0, 3)]),
    )


def paint(kind: Recipe, size: int, random: Random) -> Floats:
    """A picture [size, size, 3] in 0…1: filtered noise, bent, coloured."""
    angle = kind.angle + 0.06 * random.standard_normal()
    wavelength = kind.wavelength * float(np.exp(0.06 * random.standard_normal()))
    waves = _waves(kind, angle, wavelength, size, random)
    if kind.crossed:
        waves = np.maximum(waves, _waves(kind, angle + np.pi / 2, wavelength, size, random))
    value = 0.5 + 0.5 * np.tanh(kind.sharpness * waves)
    return kind.colours[0] + value[..., None] * (kind.colours[1] - kind.colours[0])


def _waves(kind: Recipe, angle: float, wavelength: float, size: int, random: Random) -> Floats:
    y, x = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(x, y) * wavelength + 1e-9
    turn = np.angle(np.exp(2j * (np.arctan2(y, x) - angle))) / 2
    band = np.exp(-0.5 * (np.log(radius) / kind.width) ** 2 - 0.5 * (turn / kind.spread) ** 2)
    noise = np.fft.rfft2(random.standard_normal((size, size)))
    waves = np.fft.irfft2(noise * band, s=(size, size))
    return np.asarray(waves / (waves.std() + 1e-9), np.float64)


def picture(kinds: list[Recipe], label: int, size: int, random: Random) -> Floats:
    """A picture of a class as a camera might see it."""
    image = paint(kinds[label], size, random)
    if random.random() < 0.5:  # a foreign piece: features must stay local
        other = paint(kinds[int(random.integers(len(kinds)))], size, random)
        side = int(random.integers(size // 8, size // 3))
        top, left = random.integers(0, size - side, 2)
        image[top : top + side, left : left + side] = other[:side, :side]
    slope = random.uniform(-0.15, 0.15, 2)
    ramp = np.linspace(-1, 1, size)
    light = random.uniform(0.75, 1.25) + slope[0] * ramp[:, None] + slope[1] * ramp[None]
    image = image * light[..., None] + random.uniform(-0.05, 0.05, 3)
    return image + random.uniform(0.0, 0.04) * random.standard_normal(image.shape)


def batch(kinds: list[Recipe], count: int, size: int, random: Random) -> tuple[Tensor, Tensor]:
    """Normalised images [N, 3, size, size] and labels [N]."""
    labels = random.integers(len(kinds), size=count)
    images = np.stack([picture(kinds, int(label), size, random) for label in labels])
    normal = (np.clip(images, 0, 1) - MEAN) / STD
    moved = np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(moved), torch.from_numpy(labels)


def make_network(name: str, classes: int) -> nn.Module:
    torchvision_cpu.install()
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=classes)
    return network


def train(options: argparse.Namespace) -> nn.Module:
    """Cross-entropy over the recipes; one-cycle learning rate."""
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    kinds = [recipe(random) for _ in range(options.classes)]
    network = make_network(options.backbone, options.classes).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=options.steps)
    start, right = time.monotonic(), 0.0
    for step in range(1, options.steps + 1):
        images, labels = batch(kinds, options.batch, options.size, random)
        found = network(images)
        loss = nn.functional.cross_entropy(found, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        right += 0.05 * (float((found.argmax(1) == labels).float().mean()) - right)
        if step % 20 == 0 or step == options.steps:
            spent, value = time.monotonic() - start, float(loss.detach())
            print(
                f"step {step}/{options.steps}  loss {value:.3f}  right {right:.2f}  {spent:.0f} s"
            )
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet18", help="a torchvision classifier")
    parser.add_argument("--classes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, help="side of the training pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    state = train(options).state_dict()
    # the classifier says which recipe it was; a detector wants the layers below
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(kept, options.output)
    print(
        f"{options.output}: {len(kept)} tensors for --backbone {options.backbone} --weights FILE"
    )


if __name__ == "__main__":
    main()
