"""Times the enrolment of a new category in a finished bundle: 50 images, ResNet18 at 224 pixels.

    python benchmarks/enrol.py [--images 50] [--threads 2] [--target trt] [--ratio 0.1]
                               [--work DIR] [--method patchcore]

A bundle of PatchCore (ResNet18, seeded random weights: the time does not depend on them) is built
from one generated category; then another category is enrolled from images through the bundle's own
parts, exactly as ``adcompile category add BUNDLE NAME --data DIR`` does, and timed by phase. The
device part runs in simulation, on the CPU. ``--work`` keeps the bundle for the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import adcompile
from adcompile.anomaly.categories.enrol import add_category, config_for, from_images
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.samples import SplitOptions
from adcompile.anomaly.synth.dataset import SynthOptions, write_dataset
from adcompile.cli import main as adc

sys.path.insert(0, str(Path(__file__).parents[1]))


def prepare(work: Path, method: str, target: str, images: int) -> Path:
    """Data and bundle in *work*; what is there is kept."""
    bundle = work / f"bundle-{method}-{target.replace(':', '-')}"
    if not (work / "data").exists():
        options = SynthOptions(
            ("twill", "leather"), size=256, train=images, test_good=0, test_bad=0
        )
        write_dataset(work / "data", options)
    if bundle.exists():
        return bundle
    from examples.torchvision_cpu import install

    install()
    good = work / "data" / "twill" / "train" / "good"
    fit = ["fit", method, "--data", str(good), "-o", str(work / method), "--force"]
    fit += ["--backbone", "resnet18", "--weights", "random", "--image-size", "224"]
    build = ["build", str(work / method), "--target", target, "--calib", str(good)]
    if adc(fit) != 0 or adc([*build, "-o", str(bundle)]) not in {0, 1}:
        raise SystemExit("the bundle could not be built")
    return bundle


def measure(folder: Path, data: Path, ratio: float, threads: int) -> None:
    """Enrol once and print seconds by phase."""
    phases: dict[str, float] = {}
    last = start = time.perf_counter()

    def watch(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        phases[what] = phases.get(what, 0.0) + now - last
        last = now

    with adcompile.load(folder, threads=threads) as bundle:
        score = bundle.manifest.contract.score
        searches = score is not None and score.method == "patchcore"
        config = config_for(bundle, {"coreset_ratio": ratio} if searches else {})
        found = read_folder(data, SplitOptions(config.test_ratio, config.validation, config.seed))
        learned = from_images(bundle, found, config, watch)
        category = add_category(bundle, "new", learned, replace=True)
    total = time.perf_counter() - start
    phases["write, check, rest"] = total - sum(phases.values())
    print(
        f"{category.images} images, {category.rows} × {category.columns} numbers, {threads} threads"
    )
    for name, seconds in phases.items():
        print(f"  {name:<20}{seconds:8.2f} s")
    print(f"  {'total':<20}{total:8.2f} s   (bar: 60 s)")


def main() -> None:
    """Parse arguments, prepare, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--target", default="trt")
    parser.add_argument("--method", default="patchcore", choices=("patchcore", "padim"))
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = chosen.work or Path(scratch)
        bundle = prepare(work, chosen.method, chosen.target, chosen.images)
        measure(bundle, work / "data" / "leather" / "train" / "good", chosen.ratio, chosen.threads)


if __name__ == "__main__":
    main()
