"""EfficientAD: training, in minutes on a CPU, and the detector as one graph.

The published teacher is distilled from a network trained on ImageNet. Without that file the
teacher is distilled here, from the built-in Gabor filters on random textures: it then describes
local structure and colour, which is what the student has to reproduce on normal images. Such a
teacher is whitened on the normal images (a linear map, so it goes into the last convolution): what
hardly varies between them, and so gives a defect away, then weighs as much as what always varies.
The untrained student says nothing, its error is the Mahalanobis distance of one global Gaussian,
and training goes on from there.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.anomaly import heads, ops
from adcompile.anomaly.config import EfficientadConfig, TrainedConfig
from adcompile.anomaly.efficientad_networks import Networks, PatchNetwork
from adcompile.anomaly.efficientad_teacher import distill, other_textures, whiten
from adcompile.anomaly.parts import Parts, Session
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.scoring import Quantiles, quantiles_of
from adcompile.anomaly.torch_backbones import load_weights
from adcompile.anomaly.torch_export import export_network
from adcompile.anomaly.train_loop import (
    Keeper,
    apply,
    from_arrays,
    load_images,
    mean_loss,
    shuffled,
    to_arrays,
)
from adcompile.contract import Preprocess, Score

PAD = 4
HARD = 0.999
"""Only distances above this quantile are learned from, so easy places do not dominate."""


def train(config: TrainedConfig, data: DataSet, chosen: Preset, session: Session) -> Parts:
    """Teacher (loaded, kept or distilled), then student and autoencoder on the normal images."""
    assert isinstance(config, EfficientadConfig)
    torch.manual_seed(config.seed)
    side = chosen.preprocess.size[0]
    networks = Networks(config.model_size, side, config.channels, config.width)
    images = load_images(data.train, chosen.preprocess)
    outside = other_textures(side, 48, config.seed)
    networks.to(session.device)
    if session.start:
        from_arrays(networks, session.start, "weights.npz")
    else:
        if config.teacher:
            load_weights(networks.teacher, Path(config.teacher))
        else:
            distill(networks.teacher, outside, config, session)
        shrink = (0.0 if config.teacher else 0.01) if config.whiten is None else config.whiten
        if shrink > 0.0:
            whiten(networks.teacher, images, shrink)
            start_silent(networks.student)
    set_statistics(networks, images)
    learn(networks, images, outside, config, session)
    normal = [sample for sample in data.validation if not sample.label] or list(data.train)
    quantiles = measure_quantiles(networks, load_images(normal, chosen.preprocess))
    networks.cpu()

    def build(score: Score) -> ir.Model:
        return build_model(networks, quantiles, score, chosen.preprocess)

    return Parts(chosen.score, build, chosen.preprocess, weights=to_arrays(networks))


def start_silent(student: PatchNetwork) -> None:
    """A student that predicts the mean everywhere."""
    assert student.last.bias is not None
    nn.init.zeros_(student.last.weight)
    nn.init.zeros_(student.last.bias)


def set_statistics(networks: Networks, images: Tensor) -> None:
    """Mean and deviation of the teacher's channels over normal images."""
    out = apply(networks.teacher, images)
    networks.mean.copy_(out.mean(dim=(0, 2, 3))[None, :, None, None])
    networks.std.copy_(out.std(dim=(0, 2, 3))[None, :, None, None].clamp_min(1e-6))


def learn(
    networks: Networks,
    images: Tensor,
    outside: Tensor,
    config: EfficientadConfig,
    session: Session,
) -> float:
    """Train student and autoencoder; the student is also kept quiet on *outside* pictures."""
    trained = [*networks.student.parameters(), *networks.ae.parameters()]
    optimiser = torch.optim.Adam(
        trained, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-len(images) // config.batch)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, int(0.8 * steps)), 0.1)
    generator = torch.Generator().manual_seed(config.seed)
    keeper = Keeper(networks, config.patience, session.checkpoint)
    strangers = _endless(outside, config.batch, generator)
    device = session.device
    networks.train()
    for epoch in range(config.epochs):
        losses: list[tuple[Tensor, int]] = []
        for index in shuffled(len(images), config.batch, generator):
            strange = next(strangers).to(device)
            loss = step_loss(networks, images[index].to(device), strange, draw_jitter())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append((loss.detach(), len(index)))
        session.tell("epochs", epoch + 1, config.epochs)
        if keeper.done(mean_loss(losses)):
            break
    keeper.restore()
    networks.eval()
    return keeper.best


def _endless(images: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        for index in shuffled(len(images), batch, generator):
            yield images[index]


def step_loss(
    networks: Networks, images: Tensor, strange: Tensor, jitter: tuple[int, float]
) -> Tensor:
    """The loss of a batch of normal images and one of strange ones."""
    teacher = networks.describe(images)
    student = networks.student(images)
    channels = networks.channels
    distance = (teacher - student[:, :channels]) ** 2
    hard = torch.quantile(
        distance.detach().flatten()[:: max(1, distance.numel() // 1_000_000)], HARD
    )
    picked: Tensor = distance[distance >= hard].mean()
    quiet: Tensor = (networks.student(strange)[:, :channels] ** 2).mean()
    turned = _jittered(images, *jitter)
    code = networks.ae(turned)
    copied = networks.student(turned)[:, channels:]
    ae_loss = functional.mse_loss(code, networks.describe(turned))
    return picked + quiet + ae_loss + functional.mse_loss(copied, code.detach())


def draw_jitter() -> tuple[int, float]:
    """Which of brightness, contrast and saturation is moved, and the factor, within a fifth."""
    factor = float(torch.empty(()).uniform_(0.8, 1.2))
    return int(torch.randint(3, ())), factor


def _jittered(images: Tensor, kind: int, factor: float) -> Tensor:
    if kind == 0:
        return (images * factor).clamp(0.0, 1.0)
    grey = images.mean(dim=(1, 2, 3) if kind == 1 else 1, keepdim=True)
    return (grey + (images - grey) * factor).clamp(0.0, 1.0)


def measure_quantiles(networks: Networks, images: Tensor) -> Quantiles:
    """0.9 and 0.995 quantiles of both error maps over normal images."""
    student_map: list[Tensor] = []
    code_map: list[Tensor] = []
    channels = networks.channels
    device = networks.mean.device
    with torch.no_grad():
        for part in torch.split(images, 8):
            teacher, student, code = networks(part.to(device))
            student_map.append(((teacher - student[:, :channels]) ** 2).mean(1).cpu())
            code_map.append(((code - student[:, channels:]) ** 2).mean(1).cpu())
    arrays = ([each.numpy() for each in maps] for maps in (student_map, code_map))
    return quantiles_of(*arrays)


def build_model(
    networks: Networks, quantiles: Quantiles, score: Score, spec: Preprocess
) -> ir.Model:
    """Image to score and map: two error maps, padded, enlarged, scaled by quantiles, averaged."""
    side = spec.size[0]
    model = export_network(networks, ["teacher", "student", "autoencoder"], side)
    teacher, student, code = list(model.graph.outputs)
    model.graph.outputs.clear()
    writer = heads.GraphWriter(model)
    channels, places = networks.channels, side // 4 - 8
    zero, axis = writer.integers("zero", [0]), writer.integers("channel_axis", [1])
    half, end = writer.integers("half", [channels]), writer.integers("end", [2 * channels])
    first = writer.one("Slice", [student, zero, half, axis])
    second = writer.one("Slice", [student, half, end, axis])
    maps: list[ir.Value] = []
    pairs = ((teacher, first), (code, second))
    for (goal, guess), scale in zip(pairs, quantiles.scales(), strict=True):
        error = writer.one("SquaredErrorMap", [goal, guess], domain=ops.DOMAIN)
        large = heads.add_map(writer, error, (places, places), spec.size, score, pad=PAD)
        factor = writer.constant(f"head/gain_{len(maps)}", np.array(scale.gain, np.float32))
        shift = writer.constant(f"head/shift_{len(maps)}", np.array(scale.shift, np.float32))
        maps.append(writer.one("Sub", [writer.one("Mul", [large, factor]), shift]))
    whole = writer.one("Add", maps)
    return heads.finish(writer, heads.add_maximum(writer, whole), whole, score, spec)
