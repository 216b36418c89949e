"""Train a small torchvision Mask R-CNN on the drawn shapes, measure it, export it.

    python examples/train_maskrcnn.py -o work/          # about 13 minutes on 2 cores

It takes a GPU where torch sees one (``--device``). Files are those of a CPU either way, so that
``--resume`` works on another machine. On a GPU, torchvision's gradient of RoiAlign adds in any
order: two runs with one seed differ slightly.
Writes ``shapes_coco/`` (COCO format), ``checkpoint.pt`` (continue with ``--resume``),
``curve.json`` (loss while training, AP at the checkpoints) and ``maskrcnn_trained.onnx``, which
declares its pre-processing and its classes.
The detector is torchvision's own classes: ResNet with one block per stage, a feature pyramid of
64 channels, 160x160 input.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import onnx
import torch
import torchvision_cpu
from export_maskrcnn import OUTPUTS, export
from torch import Tensor

from adcompile.contract import CONTRACT_KEY, Contract, Preprocess
from adcompile.detection.coco import Annotation, CocoSet, RunLengths, read_coco
from adcompile.detection.evaluate import Result, evaluate
from adcompile.detection.fixed import FixedSize, whole_picture
from adcompile.detection.found import Floats
from adcompile.detection.shapes import CLASSES, unrolled, write_set
from adcompile.errors import InputError
from adcompile.parallel import cores
from adcompile.runtime.preprocess import preprocess
from adcompile.torch_device import choose_device, describe

if TYPE_CHECKING:
    from torchvision.models.detection.mask_rcnn import MaskRCNN

SIZE = 160
CHANNELS = 64
BATCH = 8


class Target(TypedDict):
    """torchvision's training target: boxes x1 y1 x2 y2, labels, masks [N,H,W] uint8."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor


Sample = tuple[Tensor, Target]


class Point(TypedDict, total=False):
    """One entry of the curve. ``seconds`` is training time so far, ``cpu_seconds`` the processor
    time of all cores in it, which other load on the machine changes less."""

    step: int
    seconds: float
    cpu_seconds: float
    loss: float
    box_ap: float
    mask_ap: float


def build(classes: int = len(CLASSES) + 1, size: int = SIZE, channels: int = CHANNELS) -> MaskRCNN:
    """An untrained detector for ``size`` x ``size`` images; class 0 is the background."""
    torchvision_cpu.install()
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.resnet import BasicBlock, ResNet

    stages = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(
        ResNet(BasicBlock, [1, 1, 1, 1]), stages, [64, 128, 256, 512], channels
    )
    return MaskRCNN(
        backbone,
        min_size=size,
        max_size=size,
        rpn_anchor_generator=AnchorGenerator(
            ((12,), (24,), (48,), (96,), (144,)), ((0.5, 1.0, 2.0),) * 5
        ),
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=48,
        box_head=TwoMLPHead(channels * 7 * 7, 256),
        box_predictor=FastRCNNPredictor(256, classes),
        mask_head=MaskRCNNHeads(channels, (channels, channels), 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes),
    )


def load(coco: CocoSet, size: int) -> list[Sample]:
    """Every image with objects, stretched to ``size``, as torchvision wants it."""
    objects: dict[int, list[Annotation]] = {}
    for annotation in coco.annotations:
        objects.setdefault(annotation.image_id, []).append(annotation)
    spec = Preprocess(size=(size, size), layout="chw", dtype="uint8", scale=1.0)
    samples: list[Sample] = []
    for image in coco.images:
        drawn = objects.get(image.id, [])
        if not drawn:
            continue
        picture = torch.from_numpy(preprocess(coco.picture(image), spec))
        masks = torch.from_numpy(np.stack([visible(annotation) for annotation in drawn]))
        small = torch.nn.functional.interpolate(masks[None].float(), (size, size), mode="area")[0]
        scale = torch.tensor([size / image.width, size / image.height] * 2)
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a.bbox for a in drawn)]
        target: Target = {
            "boxes": torch.tensor(corners) * scale,
            "labels": torch.tensor([a.category_id for a in drawn]),
            "masks": (small >= 0.5).to(torch.uint8),
        }
        samples.append((picture, target))
    return samples


def visible(annotation: Annotation) -> np.ndarray:
    """The mask of a drawn object [H,W]."""
    lengths = annotation.segmentation
    if not isinstance(lengths, RunLengths) or isinstance(lengths.counts, str):
        raise SystemExit("this script trains on the drawn set, whose masks are plain run lengths")
    return unrolled(lengths.counts, lengths.size)


def batches(samples: list[Sample], rng: np.random.Generator) -> Iterator[list[Sample]]:
    """Endless shuffled batches, flipped, turned and recoloured at random."""
    while True:
        order = rng.permutation(len(samples))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield [vary(samples[i], rng) for i in order[start : start + BATCH]]


def vary(sample: Sample, rng: np.random.Generator) -> Sample:
    """One of eight flips and turns (the shapes stay what they are), channels in any order."""
    picture, target = sample
    boxes, masks = target["boxes"], target["masks"]
    side = picture.shape[-1]
    picture = picture[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        picture, masks, boxes = picture.mT, masks.mT, boxes[:, [1, 0, 3, 2]]
    if rng.random() < 0.5:
        picture, masks = picture.flip(-1), masks.flip(-1)
        boxes = torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
    if rng.random() < 0.5:
        picture, masks = picture.flip(-2), masks.flip(-2)
        boxes = torch.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], 1)
    return picture.float() / 255, {"boxes": boxes, "labels": target["labels"], "masks": masks}


def detector(model: MaskRCNN, size: int) -> FixedSize:
    """``model`` as a function of any picture."""
    device = next(model.parameters()).device

    def run(image: Floats) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = model([torch.from_numpy(image).to(device)])[0]
        return {name: found[name].cpu().numpy() for name in OUTPUTS}

    return FixedSize(run, whole_picture((size, size)))


def measure(model: MaskRCNN, val: Path, images: Path, count: int) -> Result:
    """AP of ``model`` on the first ``count`` validation images."""
    model.eval()
    result = evaluate(detector(model, SIZE), val, images, count)
    model.train()
    return result


class Run:
    """The state of one training: everything a checkpoint holds."""

    def __init__(
        self, steps: int, rate: float, seed: int, device: torch.device | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.device = device or torch.device("cpu")
        self.model = build().to(self.device)
        self.steps = steps
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=steps, pct_start=0.1
        )
        self.step = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.curve: list[Point] = []

    def advance(self, batch: list[Sample]) -> float:
        """One optimiser step; the loss."""
        began, cpu_began = time.perf_counter(), time.process_time()
        images = [image.to(self.device) for image, _ in batch]
        targets = [on_device(dict(target), self.device) for _, target in batch]
        loss = sum(self.model(images, targets).values(), torch.zeros(()))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        value = float(loss.detach())  # waits for a GPU
        self.step += 1
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - cpu_began
        return value

    def save(self, path: Path) -> None:
        """Write the checkpoint, on the CPU; the old one stays whole until the new one is."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "curve": self.curve,
        }
        partial = path.with_suffix(".partial")
        torch.save(on_device(state, torch.device("cpu")), partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.curve = state["step"], state["curve"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]


def on_device(value: Any, device: torch.device) -> Any:
    """The same nest of dicts and lists with every tensor on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: on_device(inner, device) for name, inner in value.items()}
    if isinstance(value, list):
        return [on_device(inner, device) for inner in value]
    return value


def train(run: Run, samples: list[Sample], val: Path, folder: Path, every: int) -> None:
    """Train to the last step; every ``every`` steps measure on 60 images and save."""
    run.model.train()
    # A resumed run draws other batches than an uninterrupted one would have.
    source = batches(samples, np.random.default_rng([1, run.step]))
    images = folder / "shapes_coco" / "val"
    recent: list[float] = []
    while run.step < run.steps:
        recent.append(run.advance(next(source)))
        if run.step % 20 == 0:
            point: Point = {
                "step": run.step,
                "seconds": round(run.seconds, 1),
                "cpu_seconds": round(run.cpu_seconds, 1),
                "loss": round(float(np.mean(recent)), 4),
            }
            recent.clear()
            run.curve.append(point)
            left = run.seconds / run.step * (run.steps - run.step)
            print(
                f"step {run.step}/{run.steps}  loss {point['loss']:.3f}  "
                f"{run.seconds:.0f} s, about {left:.0f} s left",
                flush=True,
            )
        if run.step % every == 0 or run.step == run.steps:
            result = measure(run.model, val, images, 60)
            mask = result.mask or (0.0,)
            run.curve.append({"step": run.step, "box_ap": result.box[0], "mask_ap": mask[0]})
            print(
                f"step {run.step}  box AP {result.box[0]:.3f}  mask AP {mask[0]:.3f}", flush=True
            )
            run.save(folder / "checkpoint.pt")
            (folder / "curve.json").write_text(json.dumps(run.curve, indent=1) + "\n")


def prepare(folder: Path, train_images: int, val_images: int) -> tuple[Path, Path]:
    """Draw the two sets unless they are there; paths of their annotations."""
    root = folder / "shapes_coco"
    paths: list[Path] = []
    for split, count, seed in (("train", train_images, 7), ("val", val_images, 8)):
        path = root / "annotations" / f"{split}.json"
        if not path.is_file():
            print(f"drawing {count} {split} images", flush=True)
            write_set(root, split, count, seed, jobs=cores())
        paths.append(path)
    return paths[0], paths[1]


def declare(path: Path) -> None:
    """Write the contract into the ONNX file: how a picture becomes the input, what the labels mean."""
    model = onnx.load(path)
    inputs = {model.graph.input[0].name: whole_picture((SIZE, SIZE))}
    contract = Contract(
        inputs=inputs, roles={n: n for n in OUTPUTS}, classes=("background", *CLASSES)
    )
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.dump()})
    onnx.save(model, path)


def choose(wanted: str) -> torch.device:
    """The device to train on. Operators that this repository computes itself are the CPU's."""
    computed_here = torchvision_cpu.install()
    if not computed_here:
        try:
            return choose_device(wanted)
        except InputError as error:
            raise SystemExit(str(error)) from None
    if wanted not in {"auto", "cpu"}:
        raise SystemExit(
            f"--device {wanted}: torchvision's compiled operators do not load beside this torch; "
            "install the torchvision built for it, or use --device cpu"
        )
    return torch.device("cpu")


def main() -> int:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=1200, help=f"of {BATCH} images each")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--train-images", type=int, default=3000)
    parser.add_argument("--val-images", type=int, default=200)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, help="1 on a busy machine: threads that wait for each other lose"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose(args.device)
    print(f"training on {describe(device)}", flush=True)
    folder: Path = args.output
    folder.mkdir(parents=True, exist_ok=True)
    train_json, val_json = prepare(folder, args.train_images, args.val_images)
    run = Run(args.steps, args.rate, args.seed, device)
    if args.resume and (folder / "checkpoint.pt").is_file():
        run.load(folder / "checkpoint.pt")
    samples = load(read_coco(train_json, train_json.parents[1] / "train"), SIZE)
    train(run, samples, val_json, folder, args.every)
    result = measure(run.model, val_json, val_json.parents[1] / "val", args.val_images)
    (folder / "ap.json").write_text(json.dumps(result.record(), indent=1) + "\n")
    print(json.dumps(result.record(), indent=1))
    run.model.cpu().eval()
    target = folder / "maskrcnn_trained.onnx"
    export(run.model, samples[0][0].float() / 255, target)
    declare(target)
    print(f"trained in {run.seconds:.0f} s ({run.cpu_seconds:.0f} s of processor time)")
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
