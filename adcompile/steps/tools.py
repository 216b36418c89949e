"""Versions of the packages that decide numbers; recorded in every manifest."""

from __future__ import annotations

import importlib.metadata

TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "amd-quark", "tensorrt", "tensorrt-rtx")


def tool_versions() -> dict[str, str]:
    """Installed ones only, by name."""
    found: dict[str, str] = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
