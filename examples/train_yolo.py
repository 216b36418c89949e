"""Train a small detector with the structure of YOLOv8 on the drawn shapes, and export it.

    python examples/train_yolo.py -o work/          # 6 to 10 minutes on one core

Writes ``shapes_coco/`` (COCO format: 200 images to measure on, 60 to calibrate with) and
``yolo.onnx``: C2f blocks, a PAN neck, a decoupled head whose box sides are expectations over 16 bins,
and the metadata that Ultralytics' exporter writes. ``--head slice`` cuts box and class rows by Slice,
as newer exports do, ``split`` by Split.

The loss is that of the paper's authors in short: each object takes the ten cells that answer it best
(class score and overlap), classes by binary cross-entropy, boxes by complete IoU and by their bins.
Source: https://docs.ultralytics.com/models/yolov8/ and arXiv 2108.07755 (task-aligned assignment).
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from adcompile.detection.shapes import CLASSES, Recipe, draw_scene, write_set

SIZE = 160
STRIDES = (8, 16, 32)
BINS = 16
BATCH = 16
SCENES = 700
NEAREST = 10  # cells that answer for an object


class Conv(nn.Sequential):
    """Convolution, normalisation, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(plain, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03), nn.SiLU())


class C2f(nn.Module):
    """Two halves, one of them through a bottleneck; all three joined."""

    def __init__(self, inputs: int, outputs: int, *, shortcut: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.before, self.after = Conv(inputs, outputs), Conv(3 * half, outputs)
        self.inside = nn.Sequential(Conv(half, half, 3), Conv(half, half, 3))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.before(x).chunk(2, 1)
        third = self.inside(second)
        return self.after(
            torch.cat((first, second, second + third if self.shortcut else third), 1)
        )


class Pyramid(nn.Module):
    """Three poolings of one map, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after = Conv(channels, channels // 2), Conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.before(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.after(torch.cat(maps, 1))


class Head(nn.Module):
    """Boxes and classes of every cell: raw ones in training, [1, 4+C, A] in an export."""

    def __init__(self, classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.classes, self.export = classes, ""
        self.sides = nn.ModuleList(self._branch(c, 32, 4 * BINS) for c in channels)
        self.kinds = nn.ModuleList(self._branch(c, channels[0], classes) for c in channels)
        for sides, kinds, stride in zip(self.sides, self.kinds, STRIDES, strict=True):
            nn.init.constant_(sides[-1].bias, 1.0)
            nn.init.constant_(kinds[-1].bias, math.log(5 / classes / (SIZE / stride) ** 2))
        self.mean = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.mean.weight.data[:] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)

    @staticmethod
    def _branch(inputs: int, inner: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            Conv(inputs, inner, 3), Conv(inner, inner, 3), nn.Conv2d(inner, outputs, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        joined = [
            torch.cat((s(x), k(x)), 1)
            for s, k, x in zip(self.sides, self.kinds, maps, strict=True)
        ]
        count = 4 * BINS + self.classes
        rows = torch.cat([x.view(x.shape[0], count, -1) for x in joined], 2)
        if not self.export:
            return rows
        centre, stride = (x.t() for x in cells())
        if self.export == "split":
            sides, kinds = rows.split((4 * BINS, self.classes), 1)
        else:
            sides, kinds = rows[:, : 4 * BINS], rows[:, 4 * BINS :]
        shares = sides.view(1, 4, BINS, -1).transpose(2, 1).softmax(1)
        distances = self.mean(shares).view(1, 4, -1)
        low, high = centre - distances[:, :2], centre + distances[:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), 1) * stride
        return torch.cat((boxes, kinds.sigmoid()), 1)


class Yolo(nn.Module):
    """Backbone of five strides, PAN neck, head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 16, 3, 2), Conv(16, 24, 3, 2), C2f(24, 24, shortcut=True)
        )
        self.p3 = nn.Sequential(Conv(24, 48, 3, 2), C2f(48, 48, shortcut=True))
        self.p4 = nn.Sequential(Conv(48, 64, 3, 2), C2f(64, 64, shortcut=True))
        self.p5 = nn.Sequential(Conv(64, 96, 3, 2), C2f(96, 96, shortcut=True), Pyramid(96))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.up4, self.up3 = C2f(160, 64), C2f(112, 48)
        self.down3, self.down4 = Conv(48, 48, 3, 2), Conv(64, 64, 3, 2)
        self.out4, self.out5 = C2f(112, 64), C2f(160, 96)
        self.head = Head(classes, (48, 64, 96))

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        q4 = self.up4(torch.cat((self.up(p5), p4), 1))
        q3 = self.up3(torch.cat((self.up(q4), p3), 1))
        q4 = self.out4(torch.cat((self.down3(q3), q4), 1))
        q5 = self.out5(torch.cat((self.down4(q4), p5), 1))
        return self.head([q3, q4, q5])


def cells() -> tuple[Tensor, Tensor]:
    """Centres of all cells [A,2], x and y in cells, and their strides [A,1]."""
    centres, strides = [], []
    for stride in STRIDES:
        along = torch.arange(SIZE // stride, dtype=torch.float32) + 0.5
        y, x = torch.meshgrid(along, along, indexing="ij")
        centres.append(torch.stack((x, y), -1).view(-1, 2))
        strides.append(torch.full((len(centres[-1]), 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of corners [...,4]."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inside = (high - low).clamp(0).prod(-1)
    total = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return inside / (total - inside + 1e-7)


def complete(a: Tensor, b: Tensor) -> Tensor:
    """IoU less what the centres are apart and the aspects differ."""
    iou = overlap(a, b)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    apart = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).square().sum(1) / 4
    angles = [torch.atan((x[:, 2] - x[:, 0]) / (x[:, 3] - x[:, 1]).clamp(1e-7)) for x in (a, b)]
    aspect = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    weight = (aspect / (aspect - iou + 1 + 1e-7)).detach()
    return iou - apart / (hull.square().sum(1) + 1e-7) - weight * aspect


Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(index: int) -> Sample:
    """A picture, corners of its objects [N,4] and their classes [N]."""
    drawn = draw_scene(3, index, Recipe(sides=(SIZE, SIZE)))
    boxes = []
    for mask in drawn.masks:
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return drawn.image, corners, np.array(drawn.categories, np.int64) - 1


def vary(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirrored, turned, with other colours."""
    image, boxes, labels = sample
    boxes = boxes.copy()
    if rng.random() < 0.5:
        image, boxes[:, [0, 2]] = image[:, ::-1], SIZE - boxes[:, [2, 0]]
    if rng.random() < 0.5:
        image, boxes[:, [1, 3]] = image[::-1], SIZE - boxes[:, [3, 1]]
    if rng.random() < 0.5:
        image, boxes = image.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    return np.ascontiguousarray(image), boxes, labels


def assign(scores: Tensor, corners: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """For one picture: which cells answer for which objects, and how well they should score."""
    centre, stride = cells()
    at = centre * stride
    inside = (at - boxes[:, None, :2]).amin(2).gt(0) & (boxes[:, None, 2:] - at).amin(2).gt(0)
    iou = overlap(boxes[:, None], corners[None]).clamp(0) * inside
    fit = scores[:, labels].t().sqrt() * iou**6
    best = torch.zeros_like(fit).scatter_(1, fit.topk(NEAREST, 1).indices, 1.0)
    best = best * inside * (fit > 1e-9)
    one = torch.zeros_like(best).scatter_(0, iou.argmax(0, keepdim=True), 1.0)
    best = torch.where(best.sum(0) > 1, best * one, best)
    fit = fit * best
    aim = fit / (fit.amax(1, keepdim=True) + 1e-9) * (iou * best).amax(1, keepdim=True)
    which, cell = best.nonzero(as_tuple=True)
    return which, cell, aim[which, cell]


def loss_of(rows: Tensor, truth: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The loss of one batch; *rows* are the head's raw output."""
    centre, stride = cells()
    sides, kinds = rows.transpose(1, 2).split((4 * BINS, rows.shape[1] - 4 * BINS), 2)
    bins = sides.reshape(*sides.shape[:2], 4, BINS)
    distance = bins.softmax(3) @ torch.arange(BINS, dtype=torch.float32)
    corners = torch.cat((centre - distance[..., :2], centre + distance[..., 2:]), 2) * stride
    aims = torch.zeros_like(kinds)
    box_loss = bin_loss = rows.sum() * 0
    for i, (boxes, labels) in enumerate(truth):
        if not len(boxes):
            continue
        with torch.no_grad():
            which, cell, aim = assign(kinds[i].sigmoid(), corners[i], boxes, labels)
        aims[i, cell, labels[which]] = aim
        wanted = boxes[which]
        box_loss = box_loss + ((1 - complete(corners[i, cell], wanted)) * aim).sum()
        low = centre[cell] - wanted[:, :2] / stride[cell]
        high = wanted[:, 2:] / stride[cell] - centre[cell]
        exact = torch.cat((low, high), 1).clamp(0, BINS - 1.01)
        left = exact.long()
        table = bins[i, cell].log_softmax(2)
        near, far = (table.gather(2, (left + k)[..., None])[..., 0] for k in (0, 1))
        miss = -(near * (left + 1 - exact) + far * (exact - left)).mean(1)
        bin_loss = bin_loss + (miss * aim).sum()
    class_loss = f.binary_cross_entropy_with_logits(kinds, aims, reduction="sum")
    return (7.5 * box_loss + 0.5 * class_loss + 1.5 * bin_loss) / aims.sum().clamp(1.0)


def train(steps: int, scenes: list[Sample], seed: int) -> Yolo:
    """A trained network, its weights averaged over the last few hundred steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Yolo(len(CLASSES)).train()
    learned = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=2e-3, weight_decay=1e-3)
    averaged = {k: v.clone() for k, v in network.state_dict().items()}
    start = time.monotonic()
    for step in range(steps):
        rate = 2e-3 * min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate + 2e-5
        batch = [vary(scenes[k], rng) for k in rng.integers(0, len(scenes), BATCH)]
        images = torch.from_numpy(np.stack([image for image, _, _ in batch]))
        truth = [(torch.from_numpy(b), torch.from_numpy(n)) for _, b, n in batch]
        loss = loss_of(network(images.permute(0, 3, 1, 2).float() / 255), truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 10.0)
        optimiser.step()
        keep = 0.998 * (1 - math.exp(-step / 200))
        for name, value in network.state_dict().items():
            mixes = value.dtype.is_floating_point and not name.startswith("head.mean")
            averaged[name] = averaged[name] * keep + value * (1 - keep) if mixes else value.clone()
        if step % 100 == 0:
            print(
                f"step {step} of {steps}: loss {loss.item():.3f}, {time.monotonic() - start:.0f} s"
            )
    network.load_state_dict(averaged)
    return network.eval()


def export(network: Yolo, path: Path, head: str) -> None:
    """The network as ONNX, with an Ultralytics export's metadata."""
    network.head.export = head
    image = torch.zeros(1, 3, SIZE, SIZE)
    names = {"input_names": ["images"], "output_names": ["output0"]}
    torch.onnx.export(network, image, str(path), opset_version=17, dynamo=False, **names)
    model = onnx.load(path)
    classes = repr(dict(enumerate(CLASSES)))
    facts = {"task": "detect", "names": classes, "stride": "32", "imgsz": f"[{SIZE}, {SIZE}]"}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


def main() -> None:
    """Draw, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--head", choices=("split", "slice"), default="slice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.output.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("val", 200, 1), ("train", 60, 2)):
        write_set(asked.output / "shapes_coco", split, count, seed)
    network = train(asked.steps, [scene(i) for i in range(SCENES)], asked.seed)
    export(network, asked.output / "yolo.onnx", asked.head)
    print(f"written: {asked.output / 'yolo.onnx'}")


if __name__ == "__main__":
    main()
