"""The example exports: a whole detector and feature backbones, equal to torch."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_features import build as build_features
from export_features import export as export_features
from export_maskrcnn import OUTPUTS, load_image, parse_size
from photos import copy_photographs, photographs
from PIL import Image

from tests.examples.conftest import Exported


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the exporter's loop shapes make it warn at every run
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_exported_detector_finds_what_torch_finds(detector: Exported) -> None:
    """Rule: on real photographs the ONNX file gives torch's boxes, labels, scores and masks."""
    session = _session(detector.path)
    counts: list[int] = []
    for image in detector.images.values():
        with torch.no_grad():
            wanted = {k: v.numpy() for k, v in detector.model([image])[0].items()}
        names = [output.name for output in session.get_outputs()]
        got = dict(zip(names, session.run(None, {"image": image.numpy()}), strict=True))
        assert tuple(names) == OUTPUTS
        assert got["masks"].shape == wanted["masks"].shape == (len(wanted["scores"]), 1, 64, 64)
        counts.append(len(wanted["scores"]))
        for row in range(counts[-1]):
            near = np.abs(got["boxes"] - wanted["boxes"][row]).max(axis=1) < 1e-2
            same = np.flatnonzero(near & (got["labels"] == wanted["labels"][row]))
            assert len(same) >= 1
            assert np.abs(got["scores"][same] - wanted["scores"][row]).min() < 1e-4
            assert (
                np.abs(got["masks"][same] - wanted["masks"][row]).max(axis=(1, 2, 3)).min() < 1e-2
            )
    assert max(counts) >= 5


def test_random_weights_are_worth_compiling(detector: Exported) -> None:
    """Rule: settled random weights give several classes, several counts and varied masks."""
    with torch.no_grad():
        found = [detector.model([image])[0] for image in detector.images.values()]
    assert len({len(f["scores"]) for f in found}) >= 3
    assert len(torch.cat([f["labels"] for f in found]).unique()) >= 3
    masks = torch.cat([f["masks"] for f in found])
    inside = (masks > 0.5).float().mean(dim=(1, 2, 3))
    assert inside.max() > 0
    assert inside.min() < 0.5


def _operators(graph: onnx.GraphProto) -> set[str]:
    found: set[str] = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            found |= _operators(attribute.g)
    return found


def test_the_export_is_an_ordinary_file(detector: Exported) -> None:
    """Rule: one input, four outputs, control flow inside: what a user would bring."""
    model = onnx.load(detector.path)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["image"]
    assert {"NonMaxSuppression", "RoiAlign", "Loop", "If"} <= _operators(model.graph)


def test_features_are_the_network_cut_at_two_layers(tmp_path: Path) -> None:
    """Rule: outputs layer2 and layer3 equal torch's, fixed shapes, same seed same bytes."""
    features = build_features("resnet18", "random", 64, seed=1)
    path = tmp_path / "sub" / "features.onnx"
    export_features(features, 64, path)
    session = _session(path)
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("layer2", [1, 128, 8, 8]),
        ("layer3", [1, 256, 4, 4]),
    ]
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = features(image)
    for value, expected in zip(session.run(None, {"input": image.numpy()}), wanted, strict=True):
        assert np.abs(value - expected.numpy()).max() < 1e-3
        assert 0.1 < value.std() < 10
    again = tmp_path / "again.onnx"
    export_features(build_features("resnet18", "random", 64, seed=1), 64, again)
    assert again.read_bytes() == path.read_bytes()


def test_photographs_are_real_and_varied(tmp_path: Path) -> None:
    """Rule: at least six photographs without download, colour and grey, in several sizes."""
    copies = copy_photographs(tmp_path / "photos")
    assert [p.name for p in copies] == [p.name for p in photographs()]
    modes, sizes = set[str](), set[tuple[int, int]]()
    for path in copies:
        with Image.open(path) as picture:
            modes.add(picture.mode)
            sizes.add(picture.size)
    assert len(copies) >= 6
    assert {"L", "RGB"} <= modes
    assert len(sizes) >= 3


def test_grey_photographs_become_three_channels(tmp_path: Path) -> None:
    """Rule: any picture is loaded as 3xHxW in 0..1 of the wanted size."""
    path = tmp_path / "grey.png"
    Image.new("L", (9, 5), 51).save(path)
    image = load_image(path, (4, 6))
    assert image.shape == (3, 4, 6)
    assert image.flatten().tolist() == pytest.approx([0.2] * 72)


def test_sizes_are_checked() -> None:
    """Rule: a size is HEIGHTxWIDTH, positive."""
    assert parse_size("544x960") == (544, 960)
    for text in ("320", "0x5", "ax5", "5x-1", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_size(text)
