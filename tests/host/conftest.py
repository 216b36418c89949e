"""The generated data set of the anomaly tests, for the programs that score it."""

from tests.anomaly.conftest import twill, twill_folder

__all__ = ["twill", "twill_folder"]
