"""Targets as data: a concrete chip and toolchain, by name.

Each backend folder has a ``targets.yaml``; a bare family name means that family's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """One chip and toolchain.

    ``name`` is canonical ("npu:stx", "trt:orin-nx@10.3"); ``toolchain`` its version; ``precisions``
    those that can be asked for, the first is the default; ``limits`` are numbers the support checks
    read (for example ``topk_max``); ``facts`` are strings for recipes (SM, PRODUCT, opset …).
    """

    name: str
    family: str
    title: str
    toolchain: str
    precisions: tuple[str, ...]
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str = ""
