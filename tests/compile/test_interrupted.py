"""Builds that are stopped half-way: by a person, by a signal, by a full disk. Nothing is left behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from adcompile.compiler import BuildOptions, compile
from adcompile.steps import recording
from tests.compile.models import cnn, detector

OPTIONS = BuildOptions(precision="xint8", golden_count=1)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache and scratch space of the test alone, so that leftovers can be seen."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "out").mkdir()
    onnx.save(cnn(), tmp_path / "m.onnx")
    return tmp_path


def leftovers(folder: Path) -> list[str]:
    """What a stopped build left: bundles, staging folders, scratch folders, half cache entries."""
    places = [*(folder / "out").iterdir(), *(folder / "scratch").glob("adcompile-*")]
    places += (folder / "cache").rglob("*.part")
    return [str(place) for place in places]


def steps(folder: Path) -> list[str]:
    """The steps that a whole build announces."""
    seen: list[str] = []
    compile(folder / "m.onnx", "npu", folder / "whole", OPTIONS, watch=seen.append)
    return list(dict.fromkeys(seen))


def test_an_interrupt_at_any_step_leaves_nothing(own_places: Path) -> None:
    """Every step that a build announces, stopped there, leaves no file; the next build works."""
    announced = steps(own_places)
    assert {"load", "place and partition", "emit", "write", "verify"} <= set(announced)
    before = (own_places / "m.onnx").read_bytes()
    for number, step in enumerate(announced):

        def stop(seen: str, at: str = step) -> None:
            if seen == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compile(
                own_places / "m.onnx",
                "npu",
                own_places / "out" / f"b{number}",
                replace(OPTIONS, cache=False),
                watch=stop,
            )
        assert leftovers(own_places) == [], step
    assert (own_places / "m.onnx").read_bytes() == before
    assert compile(own_places / "m.onnx", "npu", own_places / "out" / "b", OPTIONS).ok


def test_an_interrupted_replacement_keeps_the_old_bundle(own_places: Path) -> None:
    """--force replaces a bundle only by a complete one."""
    target = own_places / "out" / "b"
    compile(own_places / "m.onnx", "npu", target, OPTIONS)
    old = (target / "manifest.json").read_bytes()

    def stop(step: str) -> None:
        if step == "verify":
            raise KeyboardInterrupt

    options = replace(OPTIONS, seed=1, force=True)
    with pytest.raises(KeyboardInterrupt):
        compile(own_places / "m.onnx", "npu", target, options, watch=stop)
    assert (target / "manifest.json").read_bytes() == old
    assert [p.name for p in (own_places / "out").iterdir()] == ["b"]


SLOW_BUILD = """
import sys, time
import adcompile.steps.emitting as emitting
from adcompile.cli import entry
def slow(folder, **options):
    print("verifying", flush=True)
    time.sleep(60)
emitting.verify_bundle = slow
sys.argv = ["adcompile", "build", "m.onnx", "-t", "npu", "--precision", "fp32", "-o", "out/b"]
entry()
"""


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_command_cleanly(
    own_places: Path, kind: signal.Signals, code: int
) -> None:
    """Ctrl-C and a polite kill while a bundle is half written: the shell's usual exit codes, a
    word, no traceback and no file."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD],
        cwd=own_places,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore SIGINT, and hand that down
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "verifying\n"
        assert leftovers(own_places)  # it is in the middle of it
        running.send_signal(kind)
        _, shown = running.communicate(timeout=60)
    assert running.returncode == code
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert leftovers(own_places) == []


FULL_DISK = """
import json, os, resource, sys
from adcompile.cli import main
codes = []
for number, limit in enumerate(json.loads(sys.argv[1])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    codes.append(main(["build", "m.onnx", "-t", sys.argv[2], "-o", f"out/b{number}", "--no-cache"]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps(codes))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are a POSIX thing")
@pytest.mark.parametrize("target", ["npu", "drpai"])
def test_a_full_disk_is_said(own_places: Path, target: str) -> None:
    """Writes that fail after so many bytes, at many points of a build: a sentence with the file,
    exit code 2, and nothing left."""
    limits = [0, 1, 500, 2000, 6000, 13000]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, json.dumps(limits), target],
        cwd=own_places,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == [2] * len(limits), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == len(limits)
    assert done.stderr.count("at: ") == len(limits)
    assert leftovers(own_places) == []


def test_more_golden_samples_than_boundaries_are_kept(
    own_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors between the parts are bounded; later samples have none, and the build goes on."""
    bounded = functools.partial(recording.record_boundaries, max_bytes=1)
    monkeypatch.setattr(recording, "record_boundaries", bounded)
    options = replace(OPTIONS, golden_count=3, host_code=False)
    result = compile(detector(), "npu", own_places / "out" / "b", options)
    assert result.ok
    assert [bool(sample.boundaries) for sample in result.manifest.golden] == [True, False, False]
