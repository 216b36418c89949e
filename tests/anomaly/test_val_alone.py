"""``build --val DIR`` without ``--data``: a labelled folder, and no images that a fit would train on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adcompile.anomaly.remeasure.images import read_images
from adcompile.cli import main
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.errors import InputError, UsageError
from adcompile.ir.model_io import load_model
from adcompile.job import Job
from adcompile.steps.identity import build_fields
from adcompile.steps.load import load
from adcompile.steps.search_record import SearchRecord
from tests.anomaly.conftest import SIDE


@pytest.fixture(scope="module")
def model(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted PatchCore on the built-in filters."""
    folder = tmp_path_factory.mktemp("val") / "pc"
    command = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(folder)]
    assert main([*command, "--image-size", str(SIDE), "--coreset-rows", "20"]) == 0
    return folder


@pytest.fixture(scope="module")
def labelled(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad images and nothing else, as an inspector collects them."""
    folder = tmp_path_factory.mktemp("labelled")
    for kind in (twill_folder / "test").iterdir():
        name = "good" if kind.name == "good" else "bad"
        for image in sorted(kind.iterdir()):
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(image, folder / name / f"{kind.name}-{image.name}")
    return folder


def build(model: Path, out: Path, **options: object) -> BuildResult:
    """INT8 for DRP-AI, without the C++ project."""
    given = {"host_code": False, "cache": False, "force": True, **options}
    return compile(model, "drpai:v2h", out, BuildOptions(**given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(model: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """Built with the labelled folder and nothing else."""
    return build(model, tmp_path_factory.mktemp("built") / "out", val=labelled)


def test_the_threshold_is_measured_again_and_the_bank_stays(
    model: Path, result: BuildResult
) -> None:
    """What needs training images is left as it was, and that is said; the rest is the network's own."""
    assert result.ok, result.notes
    assert result.rebuilt is not None
    assert result.rebuilt.kind == "threshold"
    assert any("the float network's stays" in note for note in result.notes)
    fitted, deployed = (
        {
            v.const_value.tobytes()
            for v in load_model(path).graph.initializers.values()
            if v.const_value
        }
        for path in (model / "model.onnx", result.path / "parts" / "host_0" / "model.onnx")
    )
    largest = max(deployed, key=len)
    assert len(largest) > 20 * 4 * 8
    assert largest in fitted, "the bank"
    assert result.manifest.accuracy is not None
    assert {image.label for image in result.manifest.accuracy.images} == {0, 1}
    assert main(["verify", str(result.path)]) == 0


def test_no_judged_image_is_calibrated_on(labelled: Path, result: BuildResult) -> None:
    """One half of the normal images calibrates and sets the threshold, the other is judged."""
    images = read_images(None, labelled, None, 0)
    assert images.train == ()
    assert not set(images.held) & set(images.judged)
    assert {s.label for s in images.validation} == {s.label for s in images.judged} == {0, 1}
    told = f"calibrated on the {len(images.held)} normal images of --val"
    assert any(note.startswith(told) for note in result.notes)


def test_a_budget_needs_no_training_images(
    model: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held: a bundle; not to be met: exit code 1 with the best that was found, and no bundle."""
    result = build(model, tmp_path / "out", val=labelled, budget="map_agreement>=0.5")
    assert result.ok
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.reference["auroc_loss"] == 0.0
    capsys.readouterr()
    command = ["build", str(model), "-t", "drpai:v2h", "--val", str(labelled), "--no-host-code"]
    command += [
        "--budget",
        "auroc>=1.5",
        "--budget-tries",
        "2",
        "-o",
        str(tmp_path / "no"),
        "--json",
    ]
    assert main([*command, "--no-cache"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert "best found in" in said["why"]
    assert len(said["search"]["steps"]) >= 2
    assert not (tmp_path / "no").exists()


def test_the_same_folder_as_data_is_another_build(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    """Neither a cached step nor the finished bundle of one is taken for the other's."""

    def identity(options: BuildOptions) -> dict[str, str]:
        job = Job.create("drpai:v2h", None, options, None, tmp_path)
        load(job, model)
        return build_fields(job)

    one, other = identity(BuildOptions(val=labelled)), identity(BuildOptions(data=labelled))
    assert one != other
    assert one == identity(BuildOptions(val=labelled))


def test_folders_that_cannot_judge_are_refused(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    """No such folder, no labels for a bound that needs them, and no folder at all."""
    with pytest.raises(InputError):
        build(model, tmp_path / "out", val=labelled / "bad" / "nothing")
    with pytest.raises(UsageError, match="good and bad images"):
        build(model, tmp_path / "out", val=labelled / "good", budget="auroc_loss<=0.1")
    with pytest.raises(UsageError, match="no images"):
        read_images(None, None, None, 0)
    assert not (tmp_path / "out").exists()
