"""Categories of a bundle: enrolled through its engine, switched at run time, refused when foreign."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.bank import read_bank
from adcompile.anomaly.categories.enrol import add_category, from_file
from adcompile.anomaly.categories.site import cut_at, query_of
from adcompile.anomaly.formats.convert import read_trained, write_trained
from adcompile.anomaly.formats.record import Trained
from adcompile.anomaly.images import tensor_of
from adcompile.anomaly.maps import embed, patch_rows
from adcompile.anomaly.scoring import patchcore_scores
from adcompile.anomaly.statistics import read_statistics
from adcompile.anomaly.synth.dataset import SynthOptions, write_dataset
from adcompile.anomaly.threshold import normalise
from adcompile.cli import main
from adcompile.errors import FormatError, InputError, UsageError
from adcompile.ir.evaluate import evaluate
from adcompile.ir.model_io import load_model, save_model
from adcompile.runtime.bundle import load
from tests.anomaly.conftest import SIDE, tiny_backbone


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated categories, a backbone file, a fitted model and its bundle."""
    folder = tmp_path_factory.mktemp("categories")
    options = SynthOptions(
        ("twill", "leather"), level="easy", size=96, train=8, test_good=4, test_bad=1
    )
    write_dataset(folder / "data", options)
    save_model(tiny_backbone(), folder / "tiny.onnx")
    assert fit(folder, "patchcore", "twill", "m") == 0
    assert main(["build", str(folder / "m"), "--target", "trt", "-o", str(folder / "b")]) == 0
    return folder


def fit(folder: Path, method: str, category: str, name: str, *extra: str) -> int:
    words = ["fit", method, "--data", str(folder / "data" / category), "-o", str(folder / name)]
    words += ["--backbone", str(folder / "tiny.onnx"), "--layers", "shallow,deep"]
    return main([*words, "--image-size", str(SIDE), *extra])


@pytest.fixture
def bundle(work: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(work / "b", tmp_path / "b"))


def image_of(work: Path) -> Path:
    return sorted((work / "data" / "leather" / "test").rglob("*.png"))[-1]


def test_enrolled_from_images(work: Path, bundle: Path) -> None:
    """Score and normalisation are those of the formula with the category's own bank and numbers."""
    data = str(work / "data")
    assert main(["category", "add", str(bundle), "leather", "--data", data]) == 0
    image = image_of(work)
    with load(bundle) as opened:
        before = opened(image)
        found = opened(image, category="leather")
        again = opened(image)
        record = opened.category("leather")
        spec = opened.contract("leather").inputs["image"]
    assert np.array_equal(before["raw_score"], again["raw_score"])
    assert before["raw_score"] != found["raw_score"]
    bank = read_bank(bundle / "categories" / "leather" / record.banks[0]).original_rows()
    assert bank.shape == (record.rows, record.columns)
    maps = evaluate(tiny_backbone(), {"image": tensor_of(image, spec)})
    rows = patch_rows(embed([maps["shallow"], maps["deep"]], "nearest"))
    expected = patchcore_scores(rows, bank, (16, 16), record.score)
    assert found["raw_score"] == pytest.approx(expected.scores, rel=1e-3)
    assert found["score"] == pytest.approx(normalise(found["raw_score"], record.score), abs=1e-6)


def test_switching_in_a_running_program(work: Path, bundle: Path) -> None:
    """A category added while a bundle is open can be used; removed, it is unknown again."""
    with load(bundle) as opened:
        with pytest.raises(UsageError, match="no category"):
            opened(image_of(work), category="leather")
        data = str(work / "data" / "leather")
        assert main(["category", "add", str(bundle), "leather", "--data", data]) == 0
        assert opened.categories == ["leather"]
        opened(image_of(work), category="leather")
        assert main(["category", "remove", str(bundle), "leather"]) == 0
        opened.refresh()
        with pytest.raises(UsageError, match="no category"):
            opened(image_of(work), category="leather")
    assert main(["category", "remove", str(bundle), "leather"]) == 2
    assert main(["verify", str(bundle)]) == 0


def test_from_a_fitted_model_and_from_a_file(work: Path, bundle: Path) -> None:
    """A model fitted with the same backbone gives its own scores in the bundle; so does its file."""
    if not (work / "m2").exists():
        assert fit(work, "patchcore", "leather", "m2") == 0
    assert main(["category", "add", str(bundle), "a", "--model", str(work / "m2")]) == 0
    write_trained(bundle.parent / "m2.bin", read_trained(work / "m2"))
    assert (
        main(["category", "add", str(bundle), "b", "--bank", str(bundle.parent / "m2.bin")]) == 0
    )
    from adcompile.anomaly.detector import open_detector

    detector = open_detector(work / "m2")
    raw, _ = detector(tensor_of(image_of(work), detector.preprocess))
    with load(bundle) as opened:
        for name in ("a", "b"):
            assert opened(image_of(work), category=name)["raw_score"] == pytest.approx(
                raw, rel=1e-3
            )
        assert opened.category("a").score.threshold == opened.category("b").score.threshold


def test_a_category_as_board_file(work: Path, bundle: Path, tmp_path: Path) -> None:
    """An enrolled bank and its numbers become R0's file: the ratio, which it lacks, is asked for."""
    good = work / "data" / "leather" / "train" / "good"
    assert main(["category", "add", str(bundle), "leather", "--data", str(good)]) == 0
    source, out = bundle / "categories" / "leather", tmp_path / "a.bin"
    assert main(["bank", "convert", str(source), str(out)]) == 2
    assert main(["bank", "convert", str(source), str(out), "--set", "ratio=0.1"]) == 0
    with load(bundle) as opened:
        category = opened.category("leather")
    found = read_trained(out)
    assert found.bank is not None
    assert found.bank.shape == (category.rows, category.columns)
    assert (found.threshold, found.neighbours) == (category.score.threshold, category.score.k)


def test_what_does_not_belong_is_refused(work: Path, bundle: Path) -> None:
    """Another backbone, formula, size, width or k: each is named, and nothing is written."""
    other = tiny_backbone()
    for value in other.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = type(value.const_value)(
            value.const_value.numpy() * 1.5, name=value.name
        )  # type: ignore[call-arg]
    save_model(other, work / "other.onnx")
    add = ["category", "add", str(bundle), "x", "--model"]
    words = ("--backbone", str(work / "other.onnx"))
    assert fit(work, "patchcore", "leather", "wrong", "--force", *words) == 0
    with load(bundle) as opened:
        from adcompile.anomaly.categories.enrol import from_fitted
        from adcompile.anomaly.model_folder import load_fitted

        with pytest.raises(InputError, match="backbone") as caught:
            from_fitted(opened, load_fitted(work / "wrong"), "wrong")
        assert "backbone" in caught.value.where
        assert fit(work, "patchcore", "leather", "wrong", "--force", "--preset", "r3") == 0
        with pytest.raises(InputError, match="formulas differ"):
            from_fitted(opened, load_fitted(work / "wrong"), "wrong")
        record = read_trained(work / "m")
        assert record.bank is not None
        wide = np.hstack([record.bank, record.bank])
        changes: dict[str, dict[str, object]] = {
            "bank": {"bank": wide},
            "neighbours": {"neighbours": 3},
            "input_size": {"input_size": (32, 32)},
            "minimum": {"minimum": None},
        }
        for field, change in changes.items():
            odd = Trained(**{**vars(record), **change})  # type: ignore[arg-type]
            with pytest.raises(FormatError) as refused:
                from_file(opened, odd, Path("file"))
            assert field in refused.value.where
        few = Trained(**{**vars(record), "bank": record.bank[:4], "neighbours": None})
        with pytest.raises(InputError, match="fewer rows than k"):
            add_category(opened, "x", from_file(opened, few, Path("file")))
    assert main([*add, str(work / "wrong")]) == 2
    assert not (bundle / "categories" / "x").exists()


def test_damaged_or_foreign_categories_are_refused(work: Path, bundle: Path) -> None:
    """A changed file, an edited number, or a category of another build never runs."""
    add = ["category", "add", str(bundle), "leather", "--bank", str(bundle.parent / "m.bin")]
    write_trained(bundle.parent / "m.bin", read_trained(work / "m"))
    assert main(add) == 0
    folder = bundle / "categories" / "leather"
    model = next(folder.glob("*.onnx"))
    original, text = model.read_bytes(), (folder / "category.json").read_text()
    model.write_bytes(original[:-1] + b"\0")
    refused(bundle, "changed")
    model.write_bytes(original)
    (folder / "category.json").write_text(text.replace('"decision": 0.5', '"decision": 0.6'))
    refused(bundle, "changed after it was made")
    (folder / "category.json").write_text(text)
    manifest = json.loads((bundle / "manifest.json").read_text())
    name = next(n for n in manifest["files"] if n.startswith("parts/") and n.endswith(".onnx"))
    from adcompile.manifest import SEAL, seal_of

    manifest["files"][name]["sha256"] = "0" * 64
    manifest[SEAL] = seal_of(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    refused(bundle, "another build")
    assert main(["category", "list", str(bundle)]) == 1


def refused(bundle: Path, text: str) -> None:
    with load(bundle, check=False) as opened, pytest.raises(FormatError, match=text):
        opened.category("leather")


@pytest.fixture(scope="module")
def split(work: Path) -> Path:
    """A bundle whose features are made by a device part (the one above runs on the host alone)."""
    words = ["fit", "patchcore", "--data", str(work / "data" / "twill"), "-o", str(work / "f")]
    assert main([*words, "--image-size", str(SIDE), "--coreset-ratio", "0.05"]) == 0
    assert main(["build", str(work / "f"), "--target", "trt", "-o", str(work / "fb")]) in {0, 1}
    return work / "fb"


def test_features_of_the_device_part(work: Path, split: Path, tmp_path: Path) -> None:
    """The bank is made of what the device part gives, and the score is the formula's on it."""
    bundle = Path(shutil.copytree(split, tmp_path / "b"))
    data = str(work / "data" / "leather")
    assert main(["category", "add", str(bundle), "leather", "--data", data]) == 0
    image = image_of(work)
    with load(bundle) as opened:
        assert [part.placement for part in opened.manifest.parts] == ["device", "host"]
        record = opened.category("leather")
        found = opened(image, category="leather")
        spec = next(iter(opened.contract("leather").inputs.values()))
    model = load_model(work / "f" / "model.onnx")
    query = query_of(model, "patchcore")
    assert query is not None
    whole = evaluate(cut_at(model, query), {"image": tensor_of(image, spec)})
    rows = np.asarray(next(iter(whole.values())), np.float32)
    bank = read_bank(bundle / "categories" / "leather" / record.banks[0]).original_rows()
    expected = patchcore_scores(rows, bank, (8, 8), record.score)
    assert found["raw_score"] == pytest.approx(expected.scores, rel=2e-2)  # fp16 features


def test_rebuilding_keeps_what_still_fits(
    work: Path, split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same networks: the category stays. Other networks: it goes, and the build says so."""
    bundle = Path(shutil.copytree(split, tmp_path / "b"))
    good = work / "data" / "leather" / "train" / "good"
    assert main(["category", "add", str(bundle), "leather", "--data", str(good)]) == 0
    build = ["build", str(work / "f"), "-o", str(bundle), "--force", "--target", "trt"]
    assert main([*build, "--no-cache"]) in {0, 1}
    with load(bundle) as opened:
        assert opened.categories == ["leather"]
        opened(image_of(work), category="leather")
    capsys.readouterr()
    assert main([*build, "--precision", "fp32"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "category 'leather' was made for the older build" in told
    with load(bundle) as opened:
        assert opened.categories == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a:b", ".hidden", "dot.", "x" * 65, "a\n"])
def test_names_stay_inside_the_bundle(work: Path, name: str) -> None:
    """A name is one folder on every system."""
    words = ["category", "add", str(work / "b"), name, "--data", str(work / "data")]
    assert main(words) == 2
    assert not (work / "b" / "categories" / name).exists() or not name


def test_wrong_options(work: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One source only; what belongs to the engine cannot be set; the error says what can."""
    add = ["category", "add", str(bundle), "l"]
    assert main(add) == 2
    assert main([*add, "--data", str(work / "data"), "--bank", "x"]) == 2
    assert main([*add, "--bank", "x", "--seed", "1"]) == 2
    capsys.readouterr()
    assert main([*add, "--data", str(work / "data" / "leather"), "--backbone", "resnet18"]) == 2
    assert "coreset_ratio" in capsys.readouterr().err


def test_japanese_name_and_good_only(work: Path, bundle: Path) -> None:
    """Normal images alone give mean + 3 sigma; a name may be in any script."""
    good = work / "data" / "leather" / "train" / "good"
    assert main(["category", "add", str(bundle), "革", "--data", str(good)]) == 0
    with load(bundle) as opened:
        assert opened.categories == ["革"]
        score = opened.contract("革").score
        assert score is not None
        assert score.threshold is not None
        found = opened(image_of(work), category="革")
    assert float(found["raw_score"][0]) > score.threshold
    out = bundle.parent / "out"
    words = ["run", str(bundle), "-i", str(image_of(work)), "-o", str(out), "--category", "革"]
    assert main(words) == 0
    line = next(csv.DictReader((out / "pred_outputs.csv").read_text("utf-8-sig").splitlines()))
    assert (line["category"], line["gt"], line["confusion_metrix"]) == ("革", "-", "-")
    assert float(line["score"]) == pytest.approx(float(found["raw_score"][0]), rel=1e-6)
    assert (line["pred"], line["filename"]) == ("1", image_of(work).name)


def test_padim(work: Path, tmp_path: Path) -> None:
    """PaDiM's statistics switch too; they lie in one bank file, for Python and for the C++ program."""
    if not (work / "p").exists():
        assert fit(work, "padim", "twill", "p", "--features", "6") == 0
    bundle = tmp_path / "pb"
    assert main(["build", str(work / "p"), "--target", "trt", "-o", str(bundle)]) == 0
    data = str(work / "data" / "leather")
    assert main(["category", "add", str(bundle), "leather", "--data", data]) == 0
    with load(bundle) as opened:
        category = opened.category("leather")
        assert category.statistics == "statistics.adbank", category.notes
        image = image_of(work)
        own, other = opened(image), opened(image, category="leather")
    assert own["raw_score"] != other["raw_score"]
    (mine,) = bundle.glob("parts/*/statistics.adbank")
    theirs = bundle / "categories" / "leather" / "statistics.adbank"
    assert mine.stat().st_size == theirs.stat().st_size
    assert not read_statistics(mine).equal(read_statistics(theirs))
    for file in (mine, theirs):
        found = read_statistics(file)
        assert found.kind == "whitened"
        factor = found.arrays["factor"].tobytes()
        holders = [p for p in bundle.rglob("*") if p.is_file() and factor in p.read_bytes()]
        assert holders == [file], "the factors lie in one file only"
    out = tmp_path / "copy.adbank"
    assert main(["bank", "convert", str(theirs.parent), str(out)]) == 0
    assert np.array_equal(read_statistics(out).inverse(), read_statistics(theirs).inverse())
