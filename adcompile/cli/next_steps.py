"""What a person does with a bundle that was just built: commands, in order, with their reason."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adcompile.target import FLOAT_PRECISIONS

if TYPE_CHECKING:
    from adcompile.manifest import Manifest

Step = tuple[str, str]  # command, what it is for
WANTED_SNR = 20  # dB
_ENGINES = {
    "trt": "ADC_WITH_TENSORRT",
    "drpai": "ADC_WITH_DRPAI",
    "npu": "ADC_WITH_ONNXRUNTIME",
}  # options of the generated project's CMake


@dataclass(frozen=True)
class Asked:
    """What the build was called with: its *words*, the *model*, a labelled folder (*val*), and the next
    *finer* precision of the target, "" without one."""

    words: Sequence[str]
    model: Path
    val: Path | None = None
    finer: str = ""

    def again(self, option: str, value: str) -> str:
        """The same build with *option* set to *value*, in the place of the bundle that is there."""
        words = iter(self.words)
        kept: list[str] = []
        for word in words:
            if word == option:
                next(words, None)
            elif word != "--force" and not word.startswith(f"{option}="):
                kept.append(word)
        return shlex.join(["adcompile", "build", *kept, option, value, "--force"])


def next_steps(manifest: Manifest, bundle: Path, asked: Asked, *, ok: bool) -> list[Step]:
    """The commands that are left to run, the nearest first."""
    out = shlex.quote(str(bundle))
    if not ok:
        return _after_failure(manifest, out, asked)
    steps: list[Step] = [(_evaluate(manifest, out, asked), "accuracy on your own images")]
    on_device = any(part.placement == "device" for part in manifest.parts)
    host = bundle / "host"
    if f"{host.name}/CMakeLists.txt" in manifest.files:
        where, build, test = (shlex.quote(str(host / x)) for x in ("", "build", "build/selftest"))
        make = f"&& cmake --build {build} -j"
        checked = f"cmake -S {where} -B {build} {make} && {test} {out}"
        steps.append((checked, "the C++ program, checked on this machine"))
        engine = _ENGINES.get(manifest.target.partition(":")[0])
        if on_device and engine is not None:
            command = f"cmake -S {where} -B {build} -D{engine}=ON {make}"
            steps.append((command, "the same on the board, where it runs the device parts"))
    steps += [
        (action.command(bundle), f"{action.name}: {action.detail}")
        for action in manifest.actions
        if action.state == "pending"
    ]
    if on_device:
        steps.append((f"adcompile verify {out} --device require", "where the device is"))
    return steps


def _after_failure(manifest: Manifest, out: str, asked: Asked) -> list[Step]:
    """Noise of a coarse number format has remedies; anything else is looked for."""
    parts = [part for part in manifest.parts if part.placement == "device"]
    noisy = any(part.precision not in FLOAT_PRECISIONS for part in parts)
    if not noisy or "culprit" not in manifest.results:
        source = shlex.quote(str(asked.model))
        return [(f"adcompile verify {out} --model {source}", "find the node or pass at fault")]
    steps = [(_evaluate(manifest, out, asked), "whether it matters on your own images")]
    if asked.finer:
        steps.append((asked.again("--precision", asked.finer), "finer numbers on the device"))
    if manifest.contract.score is None and "budget wanted" not in manifest.results:
        why = f"the fewest nodes in float that reach {WANTED_SNR} dB"
        steps.append((asked.again("--budget", f"snr>={WANTED_SNR}"), why))
    return steps


def _evaluate(manifest: Manifest, out: str, asked: Asked) -> str:
    source = shlex.quote(str(asked.model))
    roles = set((manifest.roles or manifest.contract.roles).values())
    if manifest.contract.score is not None:
        data = "DIR" if asked.val is None else shlex.quote(str(asked.val))
        return f"adcompile eval {source} {out} --data {data}"
    if {"boxes", "scores"} <= roles:
        return f"adcompile eval {source} {out} --images DIR [--coco FILE]"
    return f"adcompile eval {source} {out} --images DIR"
