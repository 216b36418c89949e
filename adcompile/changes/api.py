"""``adcompile.diff(old, new)``: all sections in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adcompile.changes import declared, graph, learned, results
from adcompile.changes.read import Side, read_side
from adcompile.changes.record import Diff, Section

_SECTIONS: tuple[Callable[[Side, Side], Section], ...] = (  # in the order of TOPICS
    *(declared.model, declared.target, declared.options),
    *(graph.rewrites, graph.placement, graph.parts, graph.precision),
    *(learned.quantization, learned.bank),
    *(results.accuracy, declared.sizes, declared.tools),
)


def diff(
    old: str | Path,
    new: str | Path,
    *,
    images: str | Path | None = None,
    device: str = "auto",
) -> Diff:
    """What differs between two bundles (folders or archives) and what it cost.

    *images*, an image (or ``.npy``/``.npz`` of inputs) or a folder of them, are run through both, on
    *device* (``auto``, ``simulate``, ``require``), and the outputs compared. Seals and hashes are
    checked first. Raises FormatError for what is no intact bundle, InputError for unusable images.
    """
    one, two = read_side(Path(old)), read_side(Path(new))
    found = [make(one, two) for make in _SECTIONS]
    agreement = None
    if images is not None:
        agreement = results.agreed(one.path, two.path, Path(images), device=device)
    return Diff(Path(old), Path(new), tuple(s for s in found if s.changes or s.notes), agreement)
