"""Throughput of the stage pipeline against frame-by-frame work with the same number of threads.

    python benchmarks/pipeline.py detector.onnx --images DIR [--threads 2] [--frames 40]

The detector is an ONNX file with one image input [3,H,W] and the outputs boxes, labels, scores
and masks. Frame by frame: ONNX Runtime uses all threads for each frame. Pipeline: as many
detector workers, one thread each, while other stages decode, prepare, restore and draw. Results
are compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import onnxruntime

from adcompile.detection.draw import draw
from adcompile.detection.fixed import restore, whole_picture
from adcompile.detection.found import Found, Picture, as_picture
from adcompile.detection.stream import Pipeline, Stage
from adcompile.runtime.images import find_images, read_image
from adcompile.runtime.preprocess import Placement, place

Shown = tuple[Found, Picture]


def stages(model: Path, workers: int, threads: int) -> list[Stage]:
    """Decode, prepare, detect, restore, draw; ``threads`` of ONNX Runtime per detector worker."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]
    spec = whole_picture((int(entry.shape[1]), int(entry.shape[2])))

    def decode(path: Path) -> Picture:
        return as_picture(read_image(path))

    def prepare(picture: Picture) -> tuple[Picture, np.ndarray, Placement]:
        return picture, *place(picture, spec)

    def detect(item: tuple[Picture, np.ndarray, Placement]) -> tuple[Picture, Found, Placement]:
        picture, tensor, where = item
        outputs = session.run(None, {entry.name: tensor})
        return picture, Found.of(dict(zip(names, outputs, strict=True))), where

    def finish(item: tuple[Picture, Found, Placement]) -> Shown:
        picture, found, where = item
        kept = restore(found.above(0.3), where)
        return kept, draw(picture, kept)

    return [
        Stage("decode", decode),
        Stage("prepare", prepare),
        Stage("detect", detect, workers),
        Stage("finish", finish),
    ]


def digest(shown: Shown) -> str:
    """A hash over everything a frame gave."""
    found, picture = shown
    arrays = [picture, found.boxes, found.labels, found.scores]
    if found.masks is not None:
        arrays.append(found.masks)
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def main() -> int:
    """Command line of the module's docstring; exit code 1 when results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    frames = list(itertools.islice(itertools.cycle(find_images(args.images)), args.frames))
    one: Pipeline[Path, Shown] = Pipeline(stages(args.model, 1, args.threads))
    many: Pipeline[Path, Shown] = Pipeline(stages(args.model, args.threads, 1))
    for line in (one, many):
        list(line.serial(frames[:2]))  # warm-up
    serial, threaded, equal = [], [], True
    for _ in range(args.repeats):
        # Alternating, so that other load on the machine meets both.
        expected = [digest(shown) for shown in one.serial(frames)]
        serial.append(one.report.fps)
        equal &= expected == [digest(shown) for shown in many.run(frames)]
        threaded.append(many.report.fps)
    result = {
        "frames": len(frames),
        "threads": args.threads,
        "frame_by_frame_fps": round(statistics.median(serial), 2),
        "pipeline_fps": round(statistics.median(threaded), 2),
        "speedup": round(statistics.median(threaded) / statistics.median(serial), 3),
        "byte_equal": equal,
        "stage_ms": {s.name: round(1000 * s.mean, 2) for s in many.report.stages},
    }
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
