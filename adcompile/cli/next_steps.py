"""What a person does with a bundle that was just built: commands, in order, with their reason."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adcompile.manifest import ActionRecord, Manifest

Step = tuple[str, str]  # command, what it is for


def next_steps(manifest: Manifest, bundle: Path, model: Path, *, ok: bool) -> list[Step]:
    """The commands that are left to run, the nearest first."""
    out, source = shlex.quote(str(bundle)), shlex.quote(str(model))
    if not ok:
        return [(f"adcompile verify {out} --model {source}", "find the node or pass at fault")]
    steps: list[Step] = [(_evaluate(manifest, out, source), "accuracy on your own images")]
    host = bundle / "host"
    if f"{host.name}/CMakeLists.txt" in manifest.files:
        where, build, test = (shlex.quote(str(host / x)) for x in ("", "build", "build/selftest"))
        compiled = f"cmake -S {where} -B {build} && cmake --build {build} -j"
        steps.append((f"{compiled} && {test} {out}", "the C++ program, checked on this machine"))
    steps += [_pending(action) for action in manifest.actions if action.state == "pending"]
    if any(part.placement == "device" for part in manifest.parts):
        steps.append((f"adcompile verify {out} --device require", "where the device is"))
    return steps


def _evaluate(manifest: Manifest, out: str, source: str) -> str:
    roles = set((manifest.roles or manifest.contract.roles).values())
    if manifest.contract.score is not None:
        return f"adcompile eval {source} {out} --data DIR"
    if {"boxes", "scores"} <= roles:
        return f"adcompile eval {source} {out} --images DIR [--coco FILE]"
    return f"adcompile eval {source} {out} --images DIR"


def _pending(action: ActionRecord) -> Step:
    return shlex.join(action.argv), f"{action.name}: {action.detail}"
