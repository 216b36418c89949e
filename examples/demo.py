"""The main job on a real model: Mask R-CNN (torchvision, ResNet50-FPN v2) for three accelerators.

Exports the model once, compiles it for trt, npu and drpai, runs the original and the three bundles on a
photograph, and draws what each of them found side by side (``compared.png``). No download is needed: the
weights are random, so the boxes mean nothing in themselves; what counts is that every target finds the
original's. (Random weights magnify rounding: a trained network agrees better.)

    python examples/demo.py --out demo [--size 320x320]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from photos import copy_photographs
from PIL import Image

from adcompile.check.detections import box_iou
from adcompile.detection.draw import draw
from adcompile.detection.fixed import restore
from adcompile.detection.found import Found
from adcompile.runtime.bundle import load
from adcompile.runtime.session import open_session

ROOT = Path(__file__).parent.parent
SHOWN = 6  # detections in every panel of the comparison
CALIBRATION_PHOTOS = 4  # enough for a demonstration; a hundred for a product
TARGETS = (("trt:rtx-ada", "fp16"), ("npu:stx", "a8w8"), ("drpai:v2h", "int8"))


def adcompile(*arguments: str | Path) -> None:
    """Run one adcompile command, shown as a person would type it."""
    words = [str(a) for a in arguments]
    print("\n$ adcompile " + " ".join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", "adcompile", *words], check=False)
    if done.returncode == 1:  # the answer is "no": shown, and no reason to stop a demonstration
        print("exit code 1: the bundle is outside its tolerances")
    elif done.returncode:
        sys.exit(done.returncode)


def export(model: Path, size: str) -> None:
    """Export the model from torchvision unless an earlier run did."""
    if model.exists():
        print(f"{model} is there already")
        return
    print(f"exporting torchvision maskrcnn_resnet50_fpn_v2 at {size} (about 90 s) …", flush=True)
    script = ROOT / "examples" / "export_maskrcnn.py"
    command = [sys.executable, script, "--size", size, "--weights", "raw", "-o", model]
    subprocess.run(command, check=True)


def compare(model: Path, bundles: Sequence[Path], photo: Path, to: Path) -> None:
    """Draw the best detections of the original and of every bundle side by side, and count how
    many of the original's each bundle finds (same label, boxes that overlap by half)."""
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    found: dict[str, Found] = {}
    for folder in bundles:
        with load(folder, "simulate") as bundle:
            feeds, places = bundle.feeds(photo)
            where = next(iter(places.values()))
            if not found:
                outputs = open_session(model).run(feeds)
                found["original"] = restore(Found.of(outputs), where)
            found[folder.name] = restore(Found.of(bundle.run(feeds).outputs), where)
    best = {name: each.above(_score_of_last_shown(each)) for name, each in found.items()}
    sheet = np.concatenate([draw(pixels, each, min_score=0.0) for each in best.values()], axis=1)
    Image.fromarray(sheet).save(to)
    print(f"\n{to}: the {SHOWN} best of {', '.join(found)}, from left to right")
    wanted = best["original"]
    for name, each in found.items():
        close = box_iou(wanted.boxes, each.boxes) >= 0.5
        same = wanted.labels[:, np.newaxis] == each.labels
        hits = int((close & same).any(axis=1).sum())
        print(f"  {name:<12} {len(each)} detections, {hits} of the original's {len(wanted)} best")


def _score_of_last_shown(found: Found) -> float:
    return float(np.sort(found.scores)[-SHOWN:].min(initial=1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--size", default="320x320")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    photos = copy_photographs(out / "photos")
    shown = next(p for p in photos if p.name == "astronaut.png")
    calibration = out / "calibration"
    calibration.mkdir(exist_ok=True)
    for photo in photos[:: max(1, len(photos) // CALIBRATION_PHOTOS)][:CALIBRATION_PHOTOS]:
        shutil.copy(photo, calibration)
    model = out / "maskrcnn.onnx"
    export(model, arguments.size)

    adcompile("check", model, "--target", "trt,npu,drpai")
    for target, precision in TARGETS:
        bundle = out / target.replace(":", "-")
        adcompile(
            "build", model, "--target", target, "--precision", precision,
            "--calib", calibration, "--golden", shown, "-o", bundle, "--force",
        )  # fmt: skip
    bundles = [out / target.replace(":", "-") for target, _ in TARGETS]
    adcompile("run", bundles[1], "--input", f"image={shown}", "-o", out / "found")
    compare(model, bundles, shown, out / "compared.png")
    print(f"\ndone in {time.monotonic() - started:.0f} s; open {bundles[1] / 'report.html'}")


if __name__ == "__main__":
    main()
