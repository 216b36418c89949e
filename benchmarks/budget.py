"""An accuracy budget: what its search costs and what it keeps in float, in this tree and in another.

    python benchmarks/budget.py                              # PaDiM on a random ResNet, generated images
    python benchmarks/budget.py --tree ../older --rounds 3   # the same with another checkout, in turn
    python benchmarks/budget.py --model fitted --data good --val labelled --budget "auroc_loss<=0.01"

Every build is a process of its own without the step cache; the trees take turns. "ranking" is what
looking at single nodes takes, "tries" what measuring choices in the form that the bundle runs takes:
CPU seconds of all threads, which depend less than the clock on what else the machine does. A budget
that cannot be met is a result too: the best that was found is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

from texture_networks import SIDE, residual_network

from adcompile.cli import main as adcompile

HERE = Path(__file__).resolve()
BUDGETS = ("snr>=26", "snr>=32", "map_agreement>=0.999")


def cpu_seconds() -> float:
    """What this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Clock:
    """CPU seconds per phase of a build, told by its messages."""

    def __init__(self) -> None:
        self.spent = {"ranking": 0.0, "tries": 0.0}
        self._phase = ""
        self._since = cpu_seconds()

    def __call__(self, text: str) -> None:
        """The build begins with something; messages inside of a search belong to its phase."""
        now = cpu_seconds()
        if self._phase:
            self.spent[self._phase] += now - self._since
        self._since = now
        if text.startswith(("search: nodes of", "search: what to leave")):
            self._phase = "ranking"
        elif text.startswith("search:"):
            self._phase = "tries"
        elif text.startswith("lower "):
            self._phase = ""


def build(arguments: argparse.Namespace) -> dict[str, object]:
    """One build in this process: what it cost, and what it chose."""
    from adcompile.compiler import BuildOptions, compile
    from adcompile.errors import NegativeAnswer

    options = BuildOptions(
        data=arguments.data,
        val=arguments.val,
        budget=arguments.budget[0],
        host_code=False,
        cache=False,
    )
    clock, found = Clock(), dict[str, object]()
    with tempfile.TemporaryDirectory() as work:
        try:
            result = compile(
                arguments.model, arguments.target, Path(work) / "out", options, watch=clock
            )
            chosen = cast("dict[str, object]", result.search["chosen"])
            steps = cast("list[object]", result.search["steps"])
            found = {"steps": len(steps), **chosen}
        except NegativeAnswer as error:
            found = {"why": error.why}
    return {**clock.spent, "build": cpu_seconds(), **found}


def described(found: dict[str, object], metric: str) -> str:
    """What was chosen, in words."""
    if "why" in found:
        return f"not met: {found['why']}"
    metrics = cast("dict[str, float]", found["metrics"])
    precisions = cast("dict[str, str]", found["precisions"])
    what = ", ".join(precisions.values()) or f"{found['promoted']} nodes in float"
    share = 100.0 * cast("float", found["share"])
    tried = f"{found['steps']} measured"
    return f"{metric} {metrics[metric]:.4f} with {what}, {share:.1f} % of the work, {tried}"


def prepare(arguments: argparse.Namespace, work: Path) -> None:
    """Images and a fitted detector, where none were given."""
    adcompile(["synth", "-o", str(work / "data"), "--category", "tile", "--train", "24"])
    data = work / "data" / "tile"
    (work / "network.onnx").write_bytes(residual_network(384))
    command = ["fit", "padim", "--data", str(data), "--backbone", str(work / "network.onnx")]
    adcompile([*command, "-o", str(work / "padim"), "--image-size", str(SIDE), "--features", "64"])
    arguments.model, arguments.data = work / "padim", data / "train" / "good"
    arguments.val = data


def compared(arguments: argparse.Namespace, budget: str) -> None:
    """One budget, every tree in turn; medians over the rounds."""
    trees = [HERE.parents[1], *([] if arguments.tree is None else [arguments.tree])]
    command = [sys.executable, str(HERE), "--child", "--budget", budget]
    command += ["--target", arguments.target, "--model", str(arguments.model.resolve())]
    for option in ("data", "val"):
        if (value := getattr(arguments, option)) is not None:
            command += [f"--{option}", str(value.resolve())]
    runs: dict[Path, list[dict[str, object]]] = {tree: [] for tree in trees}
    for _ in range(arguments.rounds):
        for tree in trees:
            where = {**os.environ, "PYTHONPATH": str(tree.resolve())}
            done = subprocess.run(
                command, env=where, check=True, stdout=subprocess.PIPE, text=True
            )
            runs[tree].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\n{budget}", flush=True)
    for tree, found in runs.items():
        middle = {
            name: statistics.median(cast("float", run[name]) for run in found)
            for name in ("ranking", "tries", "build")
        }
        name = "this tree" if tree == trees[0] else tree.name
        costs = "CPU s: ranking {ranking:.1f}, tries {tries:.1f}, build {build:.1f}".format(
            **middle
        )
        metric = budget.partition(">")[0].partition("<")[0]
        print(f"  {name}: {costs}; {described(found[0], metric)}", flush=True)


def main() -> int:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--val", type=Path)
    parser.add_argument("--target", default="drpai:v2h")
    parser.add_argument("--budget", action="append", help="repeat for several")
    parser.add_argument("--tree", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(build(arguments)))
        return 0
    with tempfile.TemporaryDirectory() as work:
        if arguments.model is None:
            prepare(arguments, Path(work))
        for budget in arguments.budget or BUDGETS:
            compared(arguments, budget)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
