"""ROI policies of whole builds: chosen from the recorded counts, overridable, right for every image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.place.schema import read_plan
from adcompile.runtime.bundle import load
from tests.place.nets import two_stage_detector


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def build(folder: Path, images: Path, **options: object) -> BuildResult:
    base = BuildOptions(precision="a8w8", calib=images, golden_count=1, host_code=False)
    return compile(two_stage_detector(), "npu:stx", folder, replace(base, **options))  # type: ignore[arg-type]


def test_the_cost_report_decides_and_is_kept(images: Path, tmp_path: Path) -> None:
    """Every head has a concrete policy and the costs of the others; the plan can be edited."""
    result = build(tmp_path / "a", images, verify="none")
    plan = read_plan(tmp_path / "a" / "plan.yaml")
    heads = [p for p in plan.parts if p.rows]
    assert heads
    for part in heads:
        known = [c.policy for c in part.policies]
        assert set(known) >= {"loop", "host"}
        assert part.options["roi_policy"] == known[0]
        assert [c.us for c in part.policies] == sorted(c.us for c in part.policies)
    assert any("roi_policy" in note for note in result.notes)
    edited = yaml.safe_load((tmp_path / "a" / "plan.yaml").read_text())
    for part in edited["parts"]:
        if "mosaic" in [policy["policy"] for policy in part["policies"]]:
            part["options"] = {"roi_policy": "bucket", "roi_buckets": "2,9"}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(edited))
    again = build(tmp_path / "b", images, plan=path, precision=None, verify="none")
    changed = [p for p in again.manifest.parts if p.options.get("roi_policy") == "bucket"]
    assert [p.name for p in changed] == ["mask_head"]
    assert changed[0].options["roi_buckets"] == "2,9"


@pytest.mark.parametrize("policy", ["mosaic", "bucket", "loop", "host"])
def test_every_policy_gives_the_same_detections(policy: str, images: Path, tmp_path: Path) -> None:
    """In float: the outputs are those of the unsplit model, and no detections are no problem."""
    result = build(
        tmp_path / "b", images, precision="fp32", backend_options={"roi_policy": policy}
    )
    assert result.ok
    heads = [p for p in result.manifest.parts if p.rows]
    assert {p.placement for p in heads} <= ({"host"} if policy == "host" else {"device"})
    for device in ("auto", "simulate"):
        with load(tmp_path / "b", device) as bundle:
            # an infinite image passes no score through the NMS threshold
            nothing = np.full((1, 3, 64, 64), -np.inf, np.float32)
            found = bundle.run({"image": nothing}).outputs
            assert len(found["boxes"]) == len(found["labels"]) == len(found["masks"]) == 0
            assert len(bundle.run({"image": np.ones((1, 3, 64, 64), np.float32)}).outputs["boxes"])
