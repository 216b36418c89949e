"""``--locked``: a build that gives exactly the portable files of an earlier one, or the answer no.

The lock is the earlier bundle's ``manifest.json``: what decided it (``identity``), and the hash of every
file. What decides is compared before any work, the files before the bundle appears.
"""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.errors import LockBroken, UsageError
from adcompile.job import DIGEST, Job
from adcompile.manifest import MANIFEST, Manifest, check_seal, read_manifest
from adcompile.steps.emitting import REPORT, REPRODUCER
from adcompile.steps.tools import tool_versions
from adcompile.unpack import bundle_folder

FOLLOWS = ("parts/", "bank/", "golden/", "host/")
"""Folders in the order in which one decides the next; ``plan.yaml`` decides them all."""


def check_lock(job: Job) -> None:
    """Compare what decides this build with the lock. Raises LockBroken naming the first difference,
    UsageError for a lock that does not list all files, FormatError for what is no lock."""
    lock = _read(job)
    if lock is None:
        return
    if lock.left_out:
        why = f"its bundle was packed without {', '.join(lock.left_out)}"
        raise UsageError("the lock is not complete", where=str(job.options.locked), why=why)
    before, now = lock.identity, job.identity()
    changed = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    changed = list(dict.fromkeys(changed))
    if not changed:
        return
    first, *rest = changed
    more = f"; also: {', '.join(name.replace('_', ' ') for name in rest)}" if rest else ""
    if first == "tools":
        why, fix = _tools(lock.tools), "install the versions of the lock, or make a new lock"
    else:
        why = _change(first, before.get(first, ""), now.get(first, ""))
        fix = "build as the lock was built, or make a new lock: build without --locked"
    raise LockBroken(
        "this build differs from the lock", where=str(job.options.locked), why=why + more, fix=fix
    )


def hold_lock(job: Job, manifest: Manifest | None) -> None:
    """Compare the files of the bundle, as *manifest* lists them, with the lock. Raises LockBroken.

    Left aside is what vendor tools made, and what says how the bundle was verified on a machine.
    """
    lock = _read(job)
    if lock is None:
        return
    assert manifest is not None
    made = {name for each in (lock, manifest) for a in each.actions for name in a.outputs}
    before, now = (
        {n: r.sha256 for n, r in each.files.items() if n not in made and not _is_local(n)}
        for each in (lock, manifest)
    )
    changed = [n for n in before.keys() | now.keys() if before.get(n) != now.get(n)]
    if not changed:
        return
    first, *rest = sorted(changed, key=_order)
    word = "is new" if first not in before else "is gone" if first not in now else "differs"
    more = f", as {len(rest)} other files do" if rest else ""
    raise LockBroken(
        "this build came out otherwise than the lock",
        where=str(job.options.locked),
        why=f"{first} {word}{more}, although model, options, data and versions are the same: "
        f"adcompile's code or the machine is another (lock: {lock.verified_on or 'not verified'})",
        fix="build without --locked, and ask adcompile diff what changed",
    )


def _read(job: Job) -> Manifest | None:
    """The lock of this build: a manifest file, or the bundle (or archive) that holds one."""
    path = job.options.locked
    if path is None:
        return None
    path = bundle_folder(path)
    folder, name = (path, MANIFEST) if path.is_dir() else (path.parent, path.name)
    manifest = read_manifest(folder, name)
    check_seal(folder, name)
    return manifest


def _is_local(name: str) -> bool:
    """The page says where the bundle was verified; a reproducer is there when that failed."""
    return name == REPORT or name.startswith(f"{REPRODUCER}/")


def _order(name: str) -> tuple[int, str]:
    place = next((i for i, each in enumerate(FOLLOWS) if name.startswith(each)), -1)
    return place, name


def _change(name: str, before: str, now: str) -> str:
    what = name.replace("_", " ")
    if before.startswith(DIGEST) or now.startswith(DIGEST):
        word = "only in the lock" if not now else "not in the lock" if not before else "another"
        return f"{what}: {word}"
    return f"{what}: {before or 'none'} in the lock, {now or 'none'} here"


def _tools(before: Mapping[str, str]) -> str:
    now = tool_versions()
    found = [
        f"{name}: {before.get(name, 'not installed')} in the lock, {now.get(name, 'not installed')} here"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    return "; ".join(found)
