"""Throughput of the stage pipeline against frame-by-frame work with the same number of threads.

    python benchmarks/pipeline.py BUNDLE --images DIR [--threads 2] [--frames 40]

Frame by frame: ONNX Runtime uses all threads for each frame. Pipeline: as many copies of the bundle,
one thread each, while other stages decode, prepare, draw and encode. Results are compared byte by
byte. This is what ``adcompile stream`` runs, with and without ``--serial``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
from pathlib import Path

from adcompile.runtime.frames import Frame, frames
from adcompile.runtime.streaming import Item, opened


def digest(item: Item) -> str:
    """A hash over everything a frame gave: outputs, detections, the drawn frame."""
    total = hashlib.sha256(item.jpeg)
    total.update(json.dumps(item.summary, sort_keys=True).encode())
    for name, array in sorted(item.outputs.items()):
        total.update(name.encode() + array.tobytes())
    return total.hexdigest()


def main() -> int:
    """Command line of the module's docstring; exit code 1 when results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    chosen: list[Frame] = list(itertools.islice(itertools.cycle(frames(args.images)), args.frames))
    serial, threaded, equal = [], [], True
    with (
        opened(args.bundle, threads=args.threads, workers=1) as (_, one),
        opened(args.bundle, threads=args.threads, workers=args.threads) as (_, many),
    ):
        for line in (one, many):
            list(line.serial(chosen[:2]))  # warm-up
        for _ in range(args.repeats):
            # Alternating, so that other load on the machine meets both.
            expected = [digest(item) for item in one.serial(chosen)]
            serial.append(one.report.fps)
            equal &= expected == [digest(item) for item in many.run(chosen)]
            threaded.append(many.report.fps)
        stages = {s.name: round(1000 * s.mean, 2) for s in many.report.stages}
    result = {
        "frames": len(chosen),
        "threads": args.threads,
        "frame_by_frame_fps": round(statistics.median(serial), 2),
        "pipeline_fps": round(statistics.median(threaded), 2),
        "speedup": round(statistics.median(threaded) / statistics.median(serial), 3),
        "byte_equal": equal,
        "stage_ms": stages,
    }
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
