"""A bundle as stages of a pipeline: decode, prepare, infer, draw, encode.

Frame by frame, one bundle uses all threads for each frame. As a pipeline, several copies of the bundle
with one thread each work on different frames, while other threads decode, draw and encode. A stage
sees the same input either way, so the results are equal byte for byte.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from adcompile.detection.stream import Pipeline, Stage
from adcompile.errors import UsageError
from adcompile.runtime.bundle import Bundle, load
from adcompile.runtime.deliver import show
from adcompile.runtime.executor import Array
from adcompile.runtime.frames import QUALITY, Frame
from adcompile.runtime.heatmap import Picture
from adcompile.runtime.images import ImageArray
from adcompile.runtime.preprocess import Placement
from adcompile.runtime.session import default_threads
from adcompile.unpack import bundle_folder


@dataclass(slots=True)
class Item:
    """A frame on its way; each stage fills in its own."""

    frame: Frame
    image: ImageArray
    feeds: dict[str, Array]
    where: Placement | None
    outputs: dict[str, Array]
    summary: dict[str, object]
    picture: Picture | None = None
    jpeg: bytes = b""


def stages(
    bundles: Sequence[Bundle], *, min_score: float = 0.5, drawn: bool = True
) -> list[Stage]:
    """The stages over *bundles*, copies of one; as many frames are inferred at once."""
    free: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
    for each in bundles:
        free.put(each)
    first = bundles[0]
    if len(first.inputs) != 1 or first.inputs[0].name not in first.manifest.contract.inputs:
        raise UsageError(
            "only a bundle with one image input can be streamed",
            where=str(first.path),
            why="inputs: " + ", ".join(spec.name for spec in first.inputs),
        )

    def decode(frame: Frame) -> Item:
        return Item(frame, frame.pixels(), {}, None, {}, {})

    def prepare(item: Item) -> Item:
        item.feeds, places = first.feeds(item.image)
        item.where = next(iter(places.values()), None)
        return item

    def infer(item: Item) -> Item:
        bundle = free.get()
        try:
            item.outputs = bundle.run(item.feeds).outputs
        finally:
            free.put(bundle)
        item.feeds = {}
        return item

    def draw(item: Item) -> Item:
        item.summary, item.picture = show(
            first.manifest, item.outputs, item.image, item.where, min_score
        )
        return item

    def encode(item: Item) -> Item:
        if drawn and item.picture is not None:
            buffer = io.BytesIO()
            Image.fromarray(item.picture).save(buffer, format="JPEG", quality=QUALITY)
            item.jpeg = buffer.getvalue()
        return item

    return [
        Stage("decode", decode),
        Stage("prepare", prepare),
        Stage("infer", infer, len(bundles)),
        Stage("draw", draw),
        Stage("encode", encode),
    ]


@contextmanager
def opened(
    path: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    min_score: float = 0.5,
    drawn: bool = True,
    options: Mapping[str, str] | None = None,
) -> Generator[tuple[Bundle, Pipeline[Frame, Item]]]:
    """A bundle and its pipeline. *workers* copies of it share *threads*; None: one per thread.

    Raises UsageError when the counts do not fit together.
    """
    total = threads or default_threads()
    copies = workers or total
    if copies < 1 or total < copies:
        raise UsageError(f"{copies} workers for {total} threads", fix="one thread each at least")
    folder = bundle_folder(path)
    with ExitStack() as stack:
        bundles = [
            stack.enter_context(
                load(folder, device, threads=total // copies, options=options, check=number == 0)
            )
            for number in range(copies)
        ]
        for bundle in bundles:
            _ = bundle.executors  # opened now: not part of the first frames' time
        yield bundles[0], Pipeline(stages(bundles, min_score=min_score, drawn=drawn))
