"""The verb ``stream``: order, equality with frame-by-frame work, sources, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.cli import main
from adcompile.errors import InputError, ToolMissing, UsageError
from adcompile.runtime.frames import FrameWriter, frames
from adcompile.runtime.streaming import opened
from tests.check import handmade

COUNT = 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of different sizes, so that a frame drawn from another would show."""
    root = tmp_path_factory.mktemp("frames")
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (40 + number, 50 + 2 * number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def test_threads_change_no_byte(bundle: Path, folder: Path) -> None:
    """Three frames at once: same order, same detections, same JPEG bytes as one after the other."""
    with opened(bundle, threads=3, workers=1) as (_, line):
        expected = [(i.frame.name, i.summary, i.jpeg) for i in line.serial(frames(folder))]
    with opened(bundle, threads=3, workers=3) as (_, line):
        found = [(i.frame.name, i.summary, i.jpeg) for i in line.run(frames(folder))]
        assert line.report.frames == COUNT
        assert [s.workers for s in line.report.stages] == [1, 1, 3, 1, 1]
    assert found == expected
    assert [name for name, _, _ in found] == [f"{n}.png" for n in range(COUNT)]
    assert all(jpeg.startswith(b"\xff\xd8") for _, _, jpeg in found)


def test_on_the_command_line(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn frames, one line of results per frame, a summary with the frame rate."""
    out = tmp_path / "out"
    base = ["stream", str(bundle), "-i", str(folder), "--threads", "2", "--json"]
    assert main([*base, "-o", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == COUNT
    assert summary["fps"] > 0
    lines = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(COUNT))
    assert all((out / line["file"]).is_file() for line in lines)
    capsys.readouterr()
    assert main([*base, "--workers", "2", "--fps", "5", "-o", str(tmp_path / "two")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert max(stage["workers"] for stage in summary["stages"]) == 2
    assert main([*base, "--fps", "0"]) == 2
    assert main([*base, "--serial", "-o", str(tmp_path / "serial")]) == 0
    for line in lines:
        serial = (tmp_path / "serial" / line["file"]).read_bytes()
        assert (out / line["file"]).read_bytes() == serial


def test_an_animation_is_a_source(bundle: Path, tmp_path: Path) -> None:
    """Every frame of a GIF, in order."""
    shades = [Image.fromarray(np.full((32, 48, 3), 60 * n, np.uint8)) for n in range(4)]
    shades[0].save(tmp_path / "a.gif", save_all=True, append_images=shades[1:])
    found = list(frames(tmp_path / "a.gif"))
    assert [f.name for f in found] == [f"a.gif#{n}" for n in range(4)]
    assert [int(f.pixels().mean()) // 60 for f in found] == [0, 1, 2, 3]
    with opened(bundle, threads=1) as (_, line):
        assert len(list(line.run(iter(found)))) == 4


def test_bad_sources_and_counts(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing there, an empty folder, a video without ffmpeg, more workers than threads."""
    with pytest.raises(InputError, match="no such folder"):
        list(frames(tmp_path / "none"))
    with pytest.raises(InputError, match="no image"):
        list(frames(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="ffprobe"):
        list(frames(tmp_path / "v.mp4"))
    with pytest.raises(ToolMissing, match="ffmpeg"):
        FrameWriter(tmp_path / "out.mp4", 25)
    with (
        pytest.raises(UsageError, match="3 workers for 2 threads"),
        opened(bundle, threads=2, workers=3),
    ):
        pass


FAKE = """#!{python}
import sys
name, arguments = sys.argv[0], sys.argv[1:]
if name.endswith("ffprobe"):
    print('{{"streams": [{{"width": 4, "height": 2}}]}}')
elif "-i" in arguments and arguments[arguments.index("-i") + 1] == "-":
    open(arguments[-1], "wb").write(sys.stdin.buffer.read())
else:
    sys.stdout.buffer.write(bytes(range(48)))
"""


def test_videos_go_through_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program of that name: raw frames are read, JPEG frames are handed over in order."""
    import sys

    for name in ("ffmpeg", "ffprobe"):
        program = tmp_path / name
        program.write_text(FAKE.format(python=sys.executable))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"x")
    found = [f.pixels() for f in frames(tmp_path / "v.mp4")]
    assert [f.shape for f in found] == [(2, 4, 3), (2, 4, 3)]
    assert found[1].reshape(-1).tolist() == list(range(24, 48))
    with FrameWriter(tmp_path / "new" / "o.mp4", 25) as writer:
        assert [writer.write(n, data) for n, data in enumerate((b"one", b"two"))] == ["o.mp4"] * 2
    assert (tmp_path / "new" / "o.mp4").read_bytes() == b"onetwo"


def test_a_video_that_ffmpeg_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is an error; an error of our own is not hidden by it."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    refusal = pytest.raises(InputError, match="could not write the video")
    with refusal as refused, FrameWriter(tmp_path / "o.mp4", 25):
        pass
    assert "exit code 3" in refused.value.why
    with pytest.raises(ZeroDivisionError), FrameWriter(tmp_path / "o.mp4", 25):
        raise ZeroDivisionError
