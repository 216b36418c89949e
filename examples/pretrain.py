"""Train a feature network where no pretrained weights can be had: it learns to tell textures apart.

    python examples/pretrain.py -o textures.pth                       # a few minutes on two cores
    adcompile fit patchcore --backbone resnet18 --weights textures.pth --data DIR -o model

Each class is a recipe for a random texture (adcompile/anomaly/synth/recipes.py). None of it comes
from ``adcompile synth``, so features are not fitted to the images that a detector is later judged
on. Same seed, same bytes (on one machine and device). The pictures are drawn on the CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torchvision_cpu
from torch import Tensor, nn

from adcompile.anomaly.synth.recipes import Recipe, picture, recipe
from adcompile.errors import InputError
from adcompile.torch_device import choose_device, describe, reproducible

Random = np.random.Generator
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


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


def train(options: argparse.Namespace, device: torch.device) -> nn.Module:
    """Cross-entropy over the recipes; one-cycle learning rate. The network returns to the CPU."""
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    kinds = [recipe(random) for _ in range(options.classes)]
    network = make_network(options.backbone, options.classes).train().to(device)
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=options.steps)
    start, right = time.monotonic(), 0.0
    for step in range(1, options.steps + 1):
        drawn = batch(kinds, options.batch, options.size, random)
        images, labels = (tensor.to(device) for tensor in drawn)
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
    return network.cpu().eval()


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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        device = choose_device(options.device)
        print(f"training on {describe(device)}")
        with reproducible(device):
            state = train(options, device).state_dict()
    except InputError as error:
        raise SystemExit(str(error)) from None
    # the classifier says which recipe it was; a detector wants the layers below
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(kept, options.output)
    print(
        f"{options.output}: {len(kept)} tensors for --backbone {options.backbone} --weights FILE"
    )


if __name__ == "__main__":
    main()
