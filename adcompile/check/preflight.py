"""Will a bundle run on this machine, where, and what is left to do? Nothing is executed.

Every finding names its subject and what to do about it. Files and versions are compared with the
manifest; with *open_parts* the runtime of every device part is asked to open it, which is the only
honest answer to whether the device takes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from adcompile.errors import AdcompileError, FormatError
from adcompile.manifest import Manifest, check_files, check_seal, read_manifest
from adcompile.pack import GOLDEN, HOST
from adcompile.runtime.bundle import load
from adcompile.unpack import bundle_folder

OK, ADVICE, TODO, FAILS = "ok", "advice", "to do", "fails"
HOST_TOOLS = ("cmake", "c++")


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: ok, advice (runs, but look), to do (a step is left), fails (will not run)."""

    subject: str
    state: str
    text: str
    fix: str = ""

    def record(self) -> dict[str, str]:
        """Plain data, for ``--json``."""
        return asdict(self)


def preflight(
    folder: Path, versions: Mapping[str, str], *, device: str = "auto", open_parts: bool = True
) -> list[Finding]:
    """Every finding about the bundle in *folder*, in the order in which things would go wrong.

    *versions* are the packages installed here. Raises FormatError for what is no bundle.
    """
    folder = bundle_folder(folder)
    manifest = read_manifest(folder)
    files = _files(folder, manifest)
    found = [files, *_versions(manifest, versions), *_actions(folder, manifest)]
    if files.state == OK:
        found += _parts(folder, device) if open_parts else []
    found += [_verified(manifest), *_host(manifest)]
    return found


def _files(folder: Path, manifest: Manifest) -> Finding:
    try:
        check_seal(folder)
        check_files(folder, manifest)
    except FormatError as error:
        text = ": ".join(part for part in (error.what, error.where, error.why) if part)
        return Finding("files", FAILS, text, error.fix or "copy the bundle again")
    size = sum(record.size for record in manifest.files.values())
    return Finding("files", OK, f"{len(manifest.files)} files, {size / 2**20:.1f} MiB, all intact")


def _versions(manifest: Manifest, versions: Mapping[str, str]) -> Iterator[Finding]:
    """Only the packages that run a bundle; those that built it need not be here."""
    built, here = manifest.tools.get("onnxruntime", ""), versions.get("onnxruntime", "")
    if not here:
        fix = "pip install onnxruntime; the C++ program runs without it"
        yield Finding("onnxruntime", FAILS, "not installed: host parts need it in Python", fix)
    elif built.split(".")[:2] != here.split(".")[:2]:
        text = f"{here} here, {built or 'unknown'} where the bundle was verified"
        yield Finding("onnxruntime", ADVICE, text, "adcompile verify tells whether it matters")
    else:
        yield Finding("onnxruntime", OK, here)


def _actions(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    for action in manifest.actions:
        if action.state == "pending":
            yield Finding(action.name, TODO, action.detail, action.command(folder))
        elif action.state == "failed":
            yield Finding(action.name, FAILS, action.detail, "build the bundle again")


def _parts(folder: Path, device: str) -> Iterator[Finding]:
    with load(folder, device, check=False) as bundle:
        for part in bundle.manifest.parts:
            if part.placement != "device":
                continue
            subject = f"part {part.name}"
            try:
                executor = bundle.executor(part)
            except AdcompileError as error:
                text = ": ".join(t for t in (error.what, error.why) if t)
                yield Finding(subject, FAILS, text, error.fix)
                continue
            state = ADVICE if executor.simulated else OK
            fix = "adcompile doctor says what the device needs" if executor.simulated else ""
            yield Finding(subject, state, executor.where, fix)


def _verified(manifest: Manifest) -> Finding:
    """What was said when it was built, and whether it can be asked again here."""
    subject, answer = "verification", manifest.results.get("ok")
    if answer == "no":
        fix = "adcompile verify BUNDLE --model MODEL.onnx narrows it down"
        return Finding(subject, FAILS, "the bundle failed it when it was built", fix)
    if not manifest.golden:
        packed = GOLDEN in manifest.left_out
        fix = "pack it with its golden data" if packed else "build it with --golden IMAGE"
        text = "packed without golden data" if packed else "no golden data"
        return Finding(subject, ADVICE, f"{text}: results cannot be checked here", fix)
    samples = f"{len(manifest.golden)} samples for adcompile verify"
    if answer is None:
        return Finding(
            subject, ADVICE, f"not done when it was built; {samples}", "adcompile verify"
        )
    return Finding(subject, OK, f"passed on {manifest.verified_on}; {samples}")


def _host(manifest: Manifest) -> Iterator[Finding]:
    if HOST in manifest.left_out:
        yield Finding("C++ program", OK, "the bundle was packed without its project")
    if "host/CMakeLists.txt" not in manifest.files:
        return
    missing = [tool for tool in HOST_TOOLS if shutil.which(tool) is None]
    if missing:
        text = f"{' and '.join(missing)} not found"
        yield Finding("C++ program", ADVICE, text, "or build it elsewhere for this machine")
    else:
        yield Finding("C++ program", OK, "cmake and a compiler are here")
