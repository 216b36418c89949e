"""Options of a target family, ``-O NAME=VALUE``: which names there are, and how values are read.

A family keeps its table of names in ``Backend.options``; ``adcompile list options`` prints them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from adcompile.errors import UsageError

PLACEMENT: Mapping[str, str] = {
    "roi_policy": "of parts per region: auto, mosaic, bucket, loop, profile, whole or host",
    "roi_buckets": "row counts of the policy bucket: 1,8,32",
    "roi_capacity": "rows of the policy mosaic",
    "roi_rows": "nominal regions per image, for counts",
    "min_macs": "parts with fewer multiply-adds go to the host",
    "keep_small": "true: keep parts that cost more than they save",
    "memory_mib": "what the board gives the device parts, in MiB; more is said, or refused by --strict",
}
"""Of every family: what ``place`` reads."""
QUANTIZATION: Mapping[str, str] = {
    "quantizer": "own, quark, vai_q_onnx or onnxruntime-METHOD",
    "float_nodes": "nodes to leave in float, one name a line",
}
"""Of every family that quantizes."""


def check_names(family: str, given: Iterable[str], known: Mapping[str, str]) -> None:
    """Raise UsageError for a name that *family* does not have, with the nearest that it has."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"{family} has no option {name!r}",
                why=f"did you mean {near[0]!r}?" if near else "",
                fix=f"known: {', '.join(known)}; adcompile list options -t {family}",
            )


def float_nodes(options: Mapping[str, str]) -> frozenset[str]:
    """Nodes kept in float: the option ``float_nodes``, names separated by line ends."""
    return frozenset(filter(None, options.get("float_nodes", "").split("\n")))


def whole_number(
    options: Mapping[str, str], name: str, bounds: tuple[int, int], default: int | None
) -> int | None:
    """The option *name* as a number within *bounds*, *default* when it is not given.

    Raises UsageError for anything else.
    """
    text = options.get(name, "")
    if not text:
        return default
    low, high = bounds
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
        raise UsageError(f"-O {name}={text}", why=f"a whole number from {low} to {high} is wanted")
    return int(text)
