"""A bundle as a detector, so that it is evaluated exactly like the model it came from."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from adcompile.anomaly.detector import Detector
from adcompile.manifest import TensorSpec
from adcompile.runtime.bundle import Bundle, load
from adcompile.runtime.executor import Array


class _BundleRunner:
    def __init__(self, bundle: Bundle, category: str) -> None:
        self._bundle = bundle
        self._category = category
        self.where = str(bundle.path)
        self.inputs: Sequence[TensorSpec] = bundle.inputs

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:
        found = self._bundle.run(feeds, category=self._category).outputs
        return {name: found[name] for name in outputs}


@contextmanager
def open_bundle_detector(
    path: Path, device: str = "auto", category: str = ""
) -> Generator[Detector, None, None]:
    """The detector in a bundle, or one of its categories; closed with the block.

    Raises ModelError when the bundle is no detector of ours.
    """
    with load(path, device) as bundle:
        yield detector_of(bundle, category)


def detector_of(bundle: Bundle, category: str = "") -> Detector:
    """The detector in an open bundle; ModelError when it is no detector of ours."""
    return Detector(_BundleRunner(bundle, category), bundle.contract(category))
