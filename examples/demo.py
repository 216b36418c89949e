"""The main job on a real model: Mask R-CNN (torchvision, ResNet50-FPN v2) for three accelerators.

Exports the model once, compiles it for trt, npu and drpai, runs the npu bundle on a photograph and
draws what it found. No download is needed: the weights are random, so the boxes mean nothing, but they
are the same boxes on every target.

    python examples/demo.py --out demo [--size 320x320]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from photos import copy_photographs

ROOT = Path(__file__).parent.parent
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
    bundle = out / "npu-stx"
    adcompile(
        "run", bundle, "--input", f"image={shown}", "-o", out / "found", "--min-score", "0.9999"
    )
    print(f"\ndone in {time.monotonic() - started:.0f} s; open {bundle / 'report.html'}")


if __name__ == "__main__":
    main()
