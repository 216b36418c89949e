"""The example scripts import each other by bare name, as they do when run; so do the tests."""

from __future__ import annotations

import sys

import pytest

from tests.detectors import EXAMPLES, Exported, export_detector

sys.path.insert(0, str(EXAMPLES))

pytest.importorskip("torch", reason="the examples need the `train` extra")
pytest.importorskip("PIL")


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The training example's architecture at 64x64, exported once per session."""
    return export_detector(tmp_path_factory.mktemp("exported"))
