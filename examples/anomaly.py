"""From generated images to verified bundles: four anomaly detectors, two accelerators.

    python examples/anomaly.py --out anomaly                    # twill, all methods, drpai and trt
    python examples/anomaly.py --out anomaly --category tile --methods padim --targets drpai:v2h

Every step is a command of adcompile, printed before it runs: synth, fit, build, verify, eval. The
last table compares each bundle with the fitted model on the same test images. Exit code 1 when a
bundle could not be verified.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path

from adcompile.anomaly.config import CONFIGS
from adcompile.cli import main as adcompile

TARGETS = ("drpai:v2h", "trt")


def step(*words: str | Path) -> int:
    """Print a command, run it, and give its exit code."""
    line = [str(word) for word in words]
    print(f"\n$ adcompile {shlex.join(line)}", flush=True)
    start = time.monotonic()
    code = adcompile(line)
    print(f"  exit code {code}, {time.monotonic() - start:.1f} s", flush=True)
    return code


def images(target: str, data: Path) -> tuple[str | Path, ...]:
    """What the build looks at. Bank, statistics, quantiles and threshold are measured again on an
    integer network; 16-bit features are the float ones."""
    good = data / "train" / "good"
    return ("--calib", good) if target.startswith("trt") else ("--data", good, "--val", data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("anomaly"))
    parser.add_argument("--category", default="twill")
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    options = parser.parse_args()
    data = options.out / "data" / options.category
    if not data.is_dir():
        step("synth", "-o", options.out / "data", "--category", options.category)
    failed: list[str] = []
    for method in options.methods:
        model = options.out / method
        if step("fit", method, "--data", data, "-o", model, "--force"):
            failed.append(method)
            continue
        bundles: list[Path] = []
        for target in options.targets:
            bundle = options.out / f"{method}-{target.replace(':', '-')}"
            words = ("build", model, "--target", target, *images(target, data))
            if step(*words, "-o", bundle, "--force") or step("verify", bundle):
                failed.append(bundle.name)
            else:
                bundles.append(bundle)
        step("eval", model, *bundles, "--data", data)
    print("\nnot verified: " + ", ".join(failed) if failed else "\nall bundles verified")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
