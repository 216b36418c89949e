"""Frames from a folder, an animated image or a video; drawn frames to a folder or a video.

Animated GIF, WebP, TIFF and PNG are read by Pillow. Any other video goes through the program
``ffmpeg``, where it is installed, as raw RGB; nothing else is needed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from PIL import Image, ImageSequence

from adcompile.errors import FormatError, InputError, ToolMissing
from adcompile.runtime.images import FORMATS, ImageArray, find_images, read_image

ANIMATED = (".gif", ".webp", ".tif", ".tiff", ".png", ".apng")
VIDEO = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
QUALITY = 92
MAX_FRAME_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame before it is decoded: a number, a name, and a file or pixels."""

    number: int
    name: str
    source: Path | ImageArray

    def pixels(self) -> ImageArray:
        """H×W×C, decoded now if it is a file."""
        return read_image(self.source) if isinstance(self.source, Path) else self.source


def frames(source: Path) -> Iterator[Frame]:
    """The frames of a folder of images, an image, an animation or a video, in order.

    Raises InputError when there is no such thing, FormatError when it cannot be decoded, ToolMissing
    for a video without ffmpeg.
    """
    if source.is_dir():
        for number, file in enumerate(find_images(source)):
            yield Frame(number, file.name, file)
        return
    if not source.is_file():
        raise InputError("no such folder, image or video", where=str(source))
    suffix = source.suffix.lower()
    if suffix in VIDEO:
        pixels = _decoded_by_ffmpeg(source)
    elif suffix in ANIMATED:
        pixels = _decoded_by_pillow(source)
    else:
        pixels = iter([read_image(source)])
    for number, image in enumerate(pixels):
        yield Frame(number, f"{source.name}#{number}", image)


def count_frames(source: Path) -> int | None:
    """How many there are, where that is known without decoding."""
    return len(find_images(source)) if source.is_dir() else None


def _decoded_by_pillow(source: Path) -> Iterator[ImageArray]:
    try:
        with Image.open(source, formats=(*FORMATS, "GIF")) as image:
            for each in ImageSequence.Iterator(image):
                yield np.array(each.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise FormatError("cannot be decoded", where=str(source), why=str(error)) from error


def _program(name: str, source: Path) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(
            f"{name} is not installed",
            where=str(source),
            why="videos are decoded and encoded by it",
            fix="install ffmpeg, or give a folder of images",
        )
    return found


def _decoded_by_ffmpeg(source: Path) -> Iterator[ImageArray]:
    probe = [_program("ffprobe", source), "-v", "error", "-select_streams", "v:0"]
    probe += ["-show_entries", "stream=width,height", "-of", "json", str(source)]
    answer = subprocess.run(probe, capture_output=True, text=True, check=False)
    try:
        stream = json.loads(answer.stdout)["streams"][0]
        width, height = int(stream["width"]), int(stream["height"])
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(
            "video cannot be decoded", where=str(source), why=answer.stderr.strip()[-200:]
        ) from error
    size = width * height * 3
    if not 0 < size <= MAX_FRAME_BYTES:
        raise FormatError("video frames are too large", where=str(source), why=f"{width}×{height}")
    command = [_program("ffmpeg", source), "-v", "error", "-i", str(source)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(size)) == size:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.kill()  # the reader may have left early; a finished process does not mind


class FrameWriter:
    """Takes encoded frames in order: JPEG files in a folder, or the frames of a video file."""

    def __init__(self, target: Path, fps: float) -> None:
        """Open *target*: a video when it ends like one, else a folder that is made."""
        self.target = target
        self.video = target.suffix.lower() in VIDEO
        self._process: subprocess.Popen[bytes] | None = None
        try:
            (target.parent if self.video else target).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "cannot write frames", where=str(target), why=error.strerror or str(error)
            ) from error
        if self.video:
            command = [_program("ffmpeg", target), "-v", "error", "-y", "-f", "mjpeg"]
            command += ["-framerate", f"{fps:g}", "-i", "-", "-pix_fmt", "yuv420p"]
            # sides of a video are even numbers
            command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", str(target)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def write(self, number: int, data: bytes) -> str:
        """Write one JPEG; returns its file name. Raises InputError when that fails."""
        name = self.target.name if self.video else f"{number:06d}.jpg"
        try:
            if self._process is None:
                (self.target / name).write_bytes(data)
            else:
                self._pipe().write(data)
        except OSError as error:
            raise InputError(
                "cannot write a frame", where=str(self.target), why=error.strerror or str(error)
            ) from error
        return name

    def _pipe(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):  # it has ended early: its exit code says so
            self._pipe().close()
        code = self._process.wait()
        if code and kind is None:
            raise InputError(
                "ffmpeg could not write the video",
                where=str(self.target),
                why=f"exit code {code}; it said why above",
                fix="another ending, or a folder for the frames",
            )
