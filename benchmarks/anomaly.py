"""Accuracy of the four anomaly detectors on every category of the generated data.

    python benchmarks/anomaly.py                      # all methods, all categories, medium level
    python benchmarks/anomaly.py --quick              # three categories
    python benchmarks/anomaly.py --methods vae --out models/

Each detector is fitted with its defaults on the normal images of one category; its threshold comes
from one half of the test images, and the numbers are those of the other half.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from adcompile.anomaly.config import CONFIGS, load_config, make_config
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.model_folder import Metrics, save_fitted
from adcompile.anomaly.samples import SplitOptions
from adcompile.anomaly.summary import COLUMNS, averages, values_of
from adcompile.anomaly.synth.dataset import CATEGORIES, SynthOptions, write_dataset
from adcompile.parallel import cores

QUICK = ("twill", "leather", "connector")
BARS = {"patchcore": 0.97, "padim": 0.97, "efficientad": 0.90, "vae": 0.90}
"""Image AUROC that the average over the medium level must reach."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--categories", nargs="+", choices=CATEGORIES, default=list(CATEGORIES))
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--level", default="medium")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the training")
    parser.add_argument("--config", type=Path, help="a config.yaml instead of the defaults")
    parser.add_argument("--out", type=Path, help="keep images and models here")
    parser.add_argument("--json", type=Path, help="write all metrics here")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    names = QUICK if options.quick else tuple(options.categories)
    with TemporaryDirectory() as scratch:
        root = options.out or Path(scratch)
        data = root / "data"
        if not data.is_dir():
            made = SynthOptions(names, level=options.level, seed=options.seed)
            write_dataset(data, made, jobs=cores())
        results = {
            method: run(method, names, data, options, root / method) for method in options.methods
        }
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print("\naverage over categories")
    heading("method")
    for method, found in results.items():
        row(method, averages(found))
    side_by_side(results)
    missed = [m for m, found in results.items() if score(found) < BARS[m]]
    for method in missed:
        print(f"{method}: image AUROC {score(results[method]):.4f}, below {BARS[method]}")
    return 1 if missed else 0


def run(
    method: str, names: tuple[str, ...], data: Path, options: argparse.Namespace, out: Path
) -> dict[str, Metrics]:
    """Fit one method on every category and print its rows as they come."""
    values = {} if options.config is None else load_config(options.config)
    values.pop("method", None)
    config = make_config(method, {"seed": options.seed, **values})
    print(f"\n{method}")
    heading("category")
    found: dict[str, Metrics] = {}
    for name in names:
        start = time.process_time()
        fitted = fit(config, read_folder(data / name, SplitOptions(seed=options.seed)))
        found[name] = fitted.metrics
        row(name, values_of(fitted.metrics), f"{time.process_time() - start:.0f} s CPU")
        if options.out is not None:
            save_fitted(fitted, out / name, replace=True)
    row("average", averages(found))
    return found


def side_by_side(results: Mapping[str, Mapping[str, Metrics]]) -> None:
    """One Markdown table of all methods: image AUROC, pixel AUROC and F1 of each category."""
    shown = ("image AUROC", "pixel AUROC", "F1")
    print(f"\n{' / '.join(shown)}, in percent")
    print(f"| category | {' | '.join(results)} |\n|---|{'---|' * len(results)}")
    names = dict.fromkeys(name for found in results.values() for name in found)
    columns = {m: {n: values_of(found[n]) for n in found} for m, found in results.items()}
    for method, found in results.items():
        columns[method]["average"] = averages(found)
    for name in (*sorted(names), "average"):
        cells = [
            " / ".join(percent(columns[method][name][title]) for title in shown)
            for method in results
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def percent(value: float | int | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def score(found: Mapping[str, Metrics]) -> float:
    return float(averages(found)["image AUROC"] or 0.0)


def heading(first: str) -> None:
    print(f"{first:<12}" + "".join(f"{title:>13}" for title in COLUMNS))


def row(name: str, values: Mapping[str, float | int | None], note: str = "") -> None:
    cells = [
        "–" if v is None else str(v) if isinstance(v, int) else f"{v:.4f}" for v in values.values()
    ]
    print(f"{name:<12}" + "".join(f"{cell:>13}" for cell in cells) + f"  {note}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
