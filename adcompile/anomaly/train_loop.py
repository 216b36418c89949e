"""What the trained methods share: batches of tensors, early stop, checkpoints, tensors as arrays.

Images stay in main memory and go to the network's device batch by batch; arrays are of the CPU.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from adcompile.anomaly.formats.npz import write_npz
from adcompile.anomaly.images import tensor_of
from adcompile.anomaly.model_folder import Arrays
from adcompile.anomaly.samples import Sample
from adcompile.contract import Preprocess
from adcompile.errors import FormatError, InputError

MAX_CACHED_BYTES = 4 << 30


def load_images(samples: Sequence[Sample], spec: Preprocess) -> Tensor:
    """All images as one float32 tensor [N, C, H, W]; refuses what would not fit in memory."""
    if not samples:
        raise InputError("there is no image to train on")
    first = tensor_of(samples[0], spec)
    if first.nbytes * len(samples) > MAX_CACHED_BYTES:
        raise InputError(
            "the training images do not fit in memory",
            why=f"{len(samples)} images of {first.nbytes} bytes",
            fix="fewer images, or a smaller --image-size",
        )
    stack = np.empty((len(samples), *first.shape[1:]), dtype=np.float32)
    for index, sample in enumerate(samples):
        stack[index] = tensor_of(sample, spec)[0]
    return torch.from_numpy(stack)


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch in a seeded random order."""
    order = torch.randperm(count, generator=generator)
    yield from torch.split(order, batch)


def apply(network: Module, images: Tensor, batch: int = 8) -> Tensor:
    """What *network* makes of [N, C, H, W] on its device, a batch at a time, in main memory."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return torch.cat([network(part.to(device)).cpu() for part in torch.split(images, batch)])


def mean_loss(losses: Sequence[tuple[Tensor, int]]) -> float:
    """Mean over the images of an epoch, from the loss and size of every batch.

    A GPU is waited for here, once per epoch, and not after every step.
    """
    values = [float(loss) for loss in torch.stack([loss for loss, _ in losses]).cpu()]
    total = sum(value * size for value, (_, size) in zip(values, losses, strict=True))
    return total / sum(size for _, size in losses)


@dataclass
class Keeper:
    """Keeps the best state of a network and says when to stop: ``patience`` epochs without gain.

    With ``checkpoint`` the best state is on disk too: an interrupted run leaves it, whole.
    """

    network: Module
    patience: int
    checkpoint: Path | None = None
    best: float = float("inf")
    waited: int = 0
    state: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def done(self, loss: float) -> bool:
        """Record the loss of an epoch; True when training should stop."""
        if not np.isfinite(loss):
            raise InputError(
                "training diverged", why=f"the loss is {loss}", fix="a smaller --learning-rate"
            )
        if loss < self.best * (1.0 - 1e-4):
            self.best, self.waited = loss, 0
            self.state = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            if self.checkpoint is not None:
                save_checkpoint(self.network, self.checkpoint)
            return False
        self.waited += 1
        return self.waited >= self.patience

    def restore(self) -> None:
        """Put the best state back."""
        if self.state:
            self.network.load_state_dict(self.state)


def save_checkpoint(network: Module, path: Path) -> None:
    """Replace *path* by the network's tensors: a reader sees the old file or the new one."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        write_npz(scratch, to_arrays(network))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def to_arrays(
    network: Module,
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """The tensors of a network by name."""
    state: Mapping[str, Tensor] = network.state_dict()
    return {name: t.detach().cpu().numpy().copy() for name, t in state.items()}


def from_arrays(network: Module, arrays: Arrays, where: str, prefix: str = "") -> None:
    """Load saved tensors; missing, unexpected and misshaped ones are named."""
    given = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    own: Mapping[str, Tensor] = network.state_dict()
    missing = sorted(set(own) - set(given))
    odd = sorted(set(given) - set(own))
    wrong = sorted(k for k in set(own) & set(given) if tuple(own[k].shape) != given[k].shape)
    if missing or odd or wrong:
        raise FormatError(
            "the weights do not fit the network",
            where=where,
            why=f"missing {missing[:5]}, unexpected {odd[:5]}, other shape {wrong[:5]}",
        )
    network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in given.items()})
