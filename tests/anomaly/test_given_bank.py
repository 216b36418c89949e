"""A memory bank that was made elsewhere becomes a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.config import make_config
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.formats.convert import read_trained
from adcompile.anomaly.samples import DataSet
from adcompile.cli import main
from adcompile.errors import FormatError, UsageError
from adcompile.ir.model_io import to_bytes
from tests.anomaly.conftest import SIDE, tiny_backbone

COLUMNS = 6 + 5  # of the tiny network


def test_a_bank_and_its_network_become_the_same_detector(twill: DataSet, tmp_path: Path) -> None:
    """The bank of a fit, saved under any name, gives the model of that fit."""
    net = tmp_path / "net.onnx"
    net.write_bytes(to_bytes(tiny_backbone(SIDE)))
    values = {"backbone": str(net), "coreset_rows": 40}
    own = fit(make_config("patchcore", values), twill)
    assert own.bank is not None
    np.savez(tmp_path / "bank.npz", my_features=own.bank, count=np.array([40]))
    given = fit(make_config("patchcore", {**values, "bank": str(tmp_path / "bank.npz")}), twill)
    assert to_bytes(given.model) == to_bytes(own.model)
    assert given.notes[-1] == "the memory bank is that of bank.npz: 40 rows"
    assert given.config == own.config  # the path of the file is not part of it


def test_a_bank_that_does_not_fit(
    twill_folder: Path, twill: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another width names the layers; an archive with two matrices asks for a name."""
    net = tmp_path / "net.onnx"
    net.write_bytes(to_bytes(tiny_backbone(SIDE)))
    wide = tmp_path / "wide.npz"
    np.savez(wide, embeddings=np.ones((40, COLUMNS + 1), np.float32))
    words = ["fit", "--bank", str(wide), "--backbone", str(net), "patchcore"]
    assert main([*words, "--data", str(twill_folder), "-o", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert f"{COLUMNS + 1} columns, the network gives {COLUMNS}" in said
    assert "shallow (6) + deep (5)" in said
    np.savez(tmp_path / "two.npz", a=np.ones((4, 3), np.float32), b=np.ones((4, 3), np.float32))
    with pytest.raises(FormatError, match="no memory bank found") as caught:
        read_trained(tmp_path / "two.npz")
    assert "'embeddings'" in caught.value.fix
    np.savez(tmp_path / "ok.npz", embeddings=np.ones((40, COLUMNS), np.float32))
    values = {"backbone": str(net), "bank": str(tmp_path / "ok.npz"), "whiten": 0.1}
    with pytest.raises(UsageError, match="used as it is"):
        fit(make_config("patchcore", values), twill)
