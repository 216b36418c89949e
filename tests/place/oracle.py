"""Build many small ONNX files with TensorRT-RTX and note what became of each, as JSON lines.

Runs in a process of its own: a parser may crash on a file it does not like, and the library writes
to standard output. Usage: oracle.py FOLDER RESULT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt_rtx as trt


def build(path: Path) -> str:
    """ "" when a plan was built, else the first complaint."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        return f"parser: {parser.get_error(0).desc()}"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    plan = builder.build_serialized_network(network, config)
    return "" if plan is not None else "builder refused"


if __name__ == "__main__":
    with Path(sys.argv[2]).open("w", encoding="utf-8") as result:
        for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
            result.write(json.dumps({"name": file.stem, "error": build(file)[:200]}) + "\n")
            result.flush()
