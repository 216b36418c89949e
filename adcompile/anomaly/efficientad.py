"""EfficientAD: training on the CPU in minutes, and the detector as one graph.

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

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.anomaly import heads, ops
from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import EfficientadConfig, TrainedConfig
from adcompile.anomaly.efficientad_networks import Networks, PatchNetwork
from adcompile.anomaly.filters import filter_network
from adcompile.anomaly.parts import Parts, Session
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.scoring import Quantiles
from adcompile.anomaly.synth.recipes import picture, recipe
from adcompile.anomaly.torch_backbones import load_weights
from adcompile.anomaly.torch_export import export_network
from adcompile.anomaly.train_loop import Keeper, from_arrays, load_images, shuffled, to_arrays
from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD, Preprocess, Score
from adcompile.errors import InputError

F64 = npt.NDArray[np.float64]

PAD = 4
NOISE = 100.0
"""A whitened direction is at least this many times (20 dB) stronger than 8-bit rounding in it."""
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

    def build(score: Score) -> ir.Model:
        return build_model(networks, quantiles, score, chosen.preprocess)

    return Parts(chosen.score, build, chosen.preprocess, weights=to_arrays(networks))


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
    """Teach a patch network the filters' description of *images*; returns the last loss."""
    targets = _filter_targets(images, config.channels, config.seed)
    optimiser = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(config.seed)
    loss = torch.zeros(())
    step = 0
    while step < config.distill:
        for index in shuffled(len(images), 4, generator):
            loss = functional.mse_loss(teacher(images[index]), targets[index])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            if session.watch is not None:
                session.watch("distill teacher", min(step, config.distill), config.distill)
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
        weight = matrix @ last.weight.double().flatten(1)
        bias = matrix @ (last.bias.double() - rows.mean(0))
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
    out = torch.cat([teacher(part) for part in torch.split(images, 8)])
    return out.permute(0, 2, 3, 1).flatten(0, 2).double()


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
    made(images[:8])
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


def start_silent(student: PatchNetwork) -> None:
    """A student that predicts the mean everywhere."""
    assert student.last.bias is not None
    nn.init.zeros_(student.last.weight)
    nn.init.zeros_(student.last.bias)


def set_statistics(networks: Networks, images: Tensor) -> None:
    """Mean and deviation of the teacher's channels over normal images."""
    with torch.no_grad():
        out = torch.cat([networks.teacher(part) for part in torch.split(images, 8)])
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
    networks.train()
    for epoch in range(config.epochs):
        total = 0.0
        for index in shuffled(len(images), config.batch, generator):
            loss = _loss(networks, images[index], next(strangers))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(index)
        if session.watch is not None:
            session.watch("epochs", epoch + 1, config.epochs)
        if keeper.done(total / len(images)):
            break
    keeper.restore()
    networks.eval()
    return keeper.best


def _endless(images: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        for index in shuffled(len(images), batch, generator):
            yield images[index]


def _loss(networks: Networks, images: Tensor, strange: Tensor) -> Tensor:
    teacher = networks.describe(images)
    student = networks.student(images)
    channels = networks.channels
    distance = (teacher - student[:, :channels]) ** 2
    hard = torch.quantile(
        distance.detach().flatten()[:: max(1, distance.numel() // 1_000_000)], HARD
    )
    picked: Tensor = distance[distance >= hard].mean()
    quiet: Tensor = (networks.student(strange)[:, :channels] ** 2).mean()
    turned = _jitter(images)
    code = networks.ae(turned)
    copied = networks.student(turned)[:, channels:]
    ae_loss = functional.mse_loss(code, networks.describe(turned))
    return picked + quiet + ae_loss + functional.mse_loss(copied, code.detach())


def _jitter(images: Tensor) -> Tensor:
    """Brightness, contrast or saturation moved by a fifth, one of them per batch."""
    factor = float(torch.empty(()).uniform_(0.8, 1.2))
    kind = int(torch.randint(3, ()))
    if kind == 0:
        return (images * factor).clamp(0.0, 1.0)
    grey = images.mean(dim=(1, 2, 3) if kind == 1 else 1, keepdim=True)
    return (grey + (images - grey) * factor).clamp(0.0, 1.0)


def measure_quantiles(networks: Networks, images: Tensor) -> Quantiles:
    """0.9 and 0.995 quantiles of both error maps over normal images."""
    student_map: list[Tensor] = []
    code_map: list[Tensor] = []
    channels = networks.channels
    with torch.no_grad():
        for part in torch.split(images, 8):
            teacher, student, code = networks(part)
            student_map.append(((teacher - student[:, :channels]) ** 2).mean(1))
            code_map.append(((code - student[:, channels:]) ** 2).mean(1))
    ends: list[float] = []
    for maps in (student_map, code_map):
        values = torch.cat(maps).numpy()
        ends += [float(np.quantile(values, q)) for q in (0.9, 0.995)]
    if not (ends[1] > ends[0] and ends[3] > ends[2]):
        raise InputError("the error maps of normal images are constant", why=f"quantiles {ends}")
    return Quantiles(*ends)


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
    for goal, guess, low, high in (
        (teacher, first, quantiles.student_low, quantiles.student_high),
        (code, second, quantiles.autoencoder_low, quantiles.autoencoder_high),
    ):
        error = writer.one("SquaredErrorMap", [goal, guess], domain=ops.DOMAIN)
        large = heads.add_map(writer, error, (places, places), spec.size, score, pad=PAD)
        gain = np.float32(0.5 * 0.1 / (high - low))
        factor = writer.constant(f"head/gain_{len(maps)}", np.array(gain, np.float32))
        shift = writer.constant(f"head/shift_{len(maps)}", np.array(gain * low, np.float32))
        maps.append(writer.one("Sub", [writer.one("Mul", [large, factor]), shift]))
    whole = writer.one("Add", maps)
    return heads.finish(writer, heads.add_maximum(writer, whole), whole, score, spec)
