"""R1's variational autoencoder: training, and the detector as one deterministic graph.

Encoder of three convolutions (4×4, stride 2; 32, 64, 128 channels), code mean and log variance,
decoder of three transposed convolutions, sigmoid. Trained on mean squared error plus a small
divergence term. At inference the code's *mean* is used: no sampling, so the same image always
scores the same (the reference export leaves RandomNormalLike in the graph).

Preset ``r1`` scores the mean squared error of the image. Preset ``local`` finds small defects: see
:mod:`adcompile.anomaly.vae_local`.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

from adcompile.anomaly import heads, ops
from adcompile.anomaly.config import TrainedConfig, VaeConfig
from adcompile.anomaly.parts import Parts, Session
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import DataSet
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
from adcompile.anomaly.vae_local import Deviation
from adcompile.contract import Preprocess, Score
from adcompile.errors import UsageError


class Vae(nn.Module):
    """[N, 3, side, side] in 0…1 to its reconstruction; ``code`` gives mean and log variance."""

    def __init__(self, side: int, latent: int) -> None:
        super().__init__()
        if side % 8:
            raise UsageError(
                "the VAE needs an image side that is a multiple of 8", why=f"got {side}"
            )
        self.grid = side // 8
        flat = 128 * self.grid * self.grid
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.mean = nn.Linear(flat, latent)
        self.log_variance = nn.Linear(flat, latent)
        self.expand = nn.Linear(latent, flat)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1),
            nn.Sigmoid(),
        )

    def code(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, each [N, latent]."""
        hidden = self.encoder(images)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, code: Tensor) -> Tensor:
        """The image of a code."""
        hidden = self.expand(code).view(-1, 128, self.grid, self.grid)
        out: Tensor = self.decoder(hidden)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruction from the mean of the code: deterministic."""
        return self.decode(self.code(images)[0])


def train(config: TrainedConfig, data: DataSet, chosen: Preset, session: Session) -> Parts:
    """Train on the normal images (or go on from *start*) and describe the detector."""
    assert isinstance(config, VaeConfig)
    torch.manual_seed(config.seed)
    network = Vae(chosen.preprocess.size[0], config.latent)
    if session.start:
        from_arrays(network, session.start, "weights.npz")
    images = load_images(data.train, chosen.preprocess)
    learn(network.to(session.device), images, config, session)
    local = _usual(network, images) if chosen.score.preset == "local" else None
    network.cpu()

    def build(score: Score) -> ir.Model:
        return build_model(network, score, chosen.preprocess, local)

    statistics = {} if local is None else to_arrays(local)
    return Parts(
        chosen.score, build, chosen.preprocess, weights=to_arrays(network), statistics=statistics
    )


def learn(network: Vae, images: Tensor, config: VaeConfig, session: Session) -> float:
    """Minimise squared error + kl · divergence; keeps the best epoch. Returns its loss."""
    generator = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    keeper = Keeper(network, config.patience, session.checkpoint)
    network.train()
    for epoch in range(config.epochs):
        losses: list[tuple[Tensor, int]] = []
        for index in shuffled(len(images), config.batch, generator):
            spread = torch.randn((len(index), config.latent), generator=generator)
            batch, noise = images[index].to(session.device), spread.to(session.device)
            loss = step_loss(network, batch, noise, config.kl)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append((loss.detach(), len(index)))
        session.tell("epochs", epoch + 1, config.epochs)
        if keeper.done(mean_loss(losses)):
            break
    keeper.restore()
    network.eval()
    return keeper.best


def step_loss(network: Vae, images: Tensor, noise: Tensor, kl: float) -> Tensor:
    """Squared error + kl · divergence of a batch; *noise* [N, latent] samples the code."""
    mean, log_variance = network.code(images)
    back = network.decode(mean + noise * torch.exp(0.5 * log_variance))
    divergence = -0.5 * torch.mean(1 + log_variance - mean**2 - log_variance.exp())
    return functional.mse_loss(back, images) + kl * divergence


def _usual(network: Vae, images: Tensor) -> Deviation:
    """What errors the network usually makes on normal images."""
    local = Deviation(int(images.shape[2]), int(images.shape[3]))
    with torch.no_grad():
        local.fit(images - apply(network, images, 16))
    return local


class _Local(nn.Module):
    """Image to deviation of its reconstruction error."""

    def __init__(self, network: Vae, local: Deviation) -> None:
        super().__init__()
        self.network = network
        self.local = local

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.local(images - self.network(images))
        return out


def build_model(
    network: Vae, score: Score, spec: Preprocess, local: Deviation | None = None
) -> ir.Model:
    """Image to score and map; the reconstruction error is computed in the graph, on 0…1 images."""
    if local is not None:
        return _build_local(_Local(network, local), score, spec)
    model = export_network(network, ["reconstruction"], spec.size[0])
    back = model.graph.outputs[0]
    model.graph.outputs.clear()
    writer = heads.GraphWriter(model)
    error = writer.one("SquaredErrorMap", [model.graph.inputs[0], back], domain=ops.DOMAIN)
    error.shape = ir.Shape([None, 1, *spec.size])
    axes = writer.integers("spatial", [1, 2, 3])
    count = writer.constant("head/pixels", np.array(spec.size[0] * spec.size[1], np.float32))
    total = writer.one("ReduceSum", [error, axes], {"keepdims": 0})
    return heads.finish(writer, writer.one("Div", [total, count]), error, score, spec)


def _build_local(network: _Local, score: Score, spec: Preprocess) -> ir.Model:
    model = export_network(network, ["deviation"], spec.size[0])
    deviation = model.graph.outputs[0]
    model.graph.outputs.clear()
    writer = heads.GraphWriter(model)
    square = writer.one("Mul", [deviation, deviation])
    energy = writer.one("ReduceMean", [square], {"axes": [1], "keepdims": 1})
    smooth = heads.add_map(writer, energy, spec.size, spec.size, score)
    size = writer.one("Sqrt", [smooth])
    return heads.finish(writer, heads.add_maximum(writer, size), size, score, spec)
