"""The manifest is the contract: a program that was generated for other parts than it describes stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.host.bundles import TestBundle, make_bundle
from tests.host.toolchains import SELFTEST, Core

LAYOUT = '{"grids":[[2,2]],"inputs":{"t":[7,7,8,8,0]},"outputs":{"u":[1,1,8,8,1]}}'
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TestBundle:
    """A bundle whose device part has a layout of regions."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("manifest") / "bundle"
    return make_bundle(folder, {"a": picture}, options={"mosaic": LAYOUT, "chip": "stx"})


@pytest.fixture(scope="module")
def program(bundle: TestBundle, checked: Core) -> Path:
    """Its self-test."""
    return checked.link(bundle.folder, bundle.folder.parent, SELFTEST)


def set_gutter(manifest: Manifest) -> None:
    options = manifest["parts"][0]["options"]
    options["mosaic"] = options["mosaic"].replace("7,7,8,8", "7,7,8,9")


def set_shape(manifest: Manifest) -> None:
    manifest["parts"][0]["outputs"][0]["shape"][1] += 1


def set_free(manifest: Manifest) -> None:
    manifest["parts"][0]["outputs"][0]["shape"][1] = "n"


CHANGES: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "layout": (set_gutter, "part net: manifest.json has another 'options.mosaic'"),
    "no layout": (lambda m: m["parts"][0]["options"].pop("mosaic"), "'options.mosaic'"),
    "more options": (lambda m: m["parts"][0]["options"].update(rows="4"), "'options.rows'"),
    "shape": (set_shape, "'outputs.features'"),
    "free dimension": (set_free, "'outputs.features'"),
    "type": (lambda m: m["parts"][1]["inputs"][0].update(dtype="float16"), "'inputs.features'"),
    "name": (lambda m: m["parts"][1]["outputs"][0].update(name="x"), "part head: manifest.json"),
    "precision": (lambda m: m["parts"][0].update(precision="int8"), "'precision'"),
    "executor": (lambda m: m["parts"][0].update(executor="npu"), "'executor'"),
    "placement": (lambda m: m["parts"][1].update(placement="device"), "'placement'"),
    "order": (lambda m: m["parts"].reverse(), "'name'"),
    "parts": (lambda m: m["parts"].pop(), "it has 1 parts, this program was generated for 2"),
    "no parts": (lambda m: m.pop("parts"), "'parts' is missing"),
    "newer schema": (lambda m: m.update(schema_version=99), "newer adcompile"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_parts_are_refused(
    name: str, bundle: TestBundle, program: Path, checked: Core, tmp_path: Path
) -> None:
    """Layout of regions, options, tensors, precision: exit code 2, naming part and field."""
    change, words = CHANGES[name]
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    change(manifest)
    for entry in bundle.folder.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = checked.run(program, str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


def test_its_own_manifest_passes(bundle: TestBundle, program: Path, checked: Core) -> None:
    """What the tests above change is right before."""
    done = checked.run(program, str(bundle.folder), cwd=bundle.folder.parent)
    assert done.returncode == 0, done.stderr
