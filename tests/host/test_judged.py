"""Where devices compute, the self-test judges the model's outputs as ``adcompile verify`` does."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import adcompile
from adcompile.check.detections import match, rows_of
from adcompile.contract import Contract, Preprocess, Score
from adcompile.job import BuildOptions
from adcompile.manifest import read_manifest
from adcompile.runtime.executor import Array
from tests.detectors import photographs
from tests.host.device_models import ON_CPU, OnnxRuntime, judged_as_by_verify, link, whole_runs
from tests.host.kernel_builds import Compiler
from tests.host.toolchains import Core

SIDE, CLASSES = 16, 4
IOU = 0.2
THRESHOLD = 97.0
ROLES = {"boxes": "boxes", "labels": "labels", "scores": "scores"}
DETECTOR = """
<ir_version: 8, opset_import: ["": 17]>
one_stage (float[1,3,64,64] image) => (float[n,4] boxes, int64[n] labels, float[n] scores) {
  first = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (image, w1)
  active = Relu (first)
  second = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (active, w2)
  features = Relu (second)
  dense = Conv <kernel_shape=[1,1]> (features, w3)
  flat = Reshape (dense, flat_shape)
  cells = Transpose <perm=[0,2,1]> (flat)
  offsets, sizes, logits = Split <axis=2> (cells, columns)
  inside = Sigmoid (offsets)
  centres = Add (inside, grid)
  half = Exp (sizes)
  low = Sub (centres, half)
  high = Add (centres, half)
  all = Concat <axis=2> (low, high)
  chances = Sigmoid (logits)
  by_class = Transpose <perm=[0,2,1]> (chances)
  kept = NonMaxSuppression (all, by_class, most, overlap, least)
  cell = Slice (kept, two, three, one)
  label = Slice (kept, one, two, one)
  cell_row = Squeeze (cell, one)
  labels = Squeeze (label, one)
  all_boxes = Squeeze (all, zero)
  boxes = Gather <axis=0> (all_boxes, cell_row)
  table = Squeeze (chances, zero)
  place = Concat <axis=1> (cell, label)
  scores = GatherND (table, place)
}"""


def write_detector(path: Path) -> Path:
    """One dense layer over a grid of cells with random weights, and suppression: many boxes, whose
    scores are alike."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    constants = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.2, (16, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (4 + CLASSES, 16, 1, 1)).astype(np.float32),
        "flat_shape": np.array([1, 4 + CLASSES, SIDE * SIDE]),
        "columns": np.array([2, 2, CLASSES]),
        "grid": np.stack([x.ravel(), y.ravel()], 1)[None].astype(np.float32),
        "most": np.array([50]),
        "overlap": np.array([0.5], np.float32),
        "least": np.array([0.5], np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "three": np.array([3]),
    }
    model = parser.parse_model(DETECTOR)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its quantized bundle."""
    folder = tmp_path_factory.mktemp("detector")
    pictures = photographs()[:3]
    calibration = folder / "calibration"
    calibration.mkdir()
    for path in pictures:
        shutil.copy(path, calibration)
    options = BuildOptions(
        precision="a8w8",
        calib=calibration,
        golden=tuple(pictures[:2]),
        contract=Contract(inputs={"image": Preprocess(size=(64, 64))}, roles=ROLES),
        verify="none",
        cache=False,
    )
    model = write_detector(folder / "detector.onnx")
    return adcompile.compile(model, "npu", folder / "bundle", options).path


@pytest.fixture(scope="module")
def selftest(
    detector: Path, checked: Core, ort: OnnxRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[int, str]]:
    """Runs the program with the words; exit code and report."""
    out = tmp_path_factory.mktemp("selftest")
    program = link(checked, detector, out, ort)

    def call(bundle: Path, *words: str) -> tuple[int, str]:
        done = checked.run(program, str(bundle), *words, cwd=out)
        assert not done.stderr
        return done.returncode, done.stdout

    return call


def test_detections_are_matched_as_verify_does(
    detector: Path, selftest: Callable[..., tuple[int, str]]
) -> None:
    """A few boxes are others, and both say so with the same share."""
    code, report = selftest(detector, *ON_CPU)
    assert judged_as_by_verify(detector, report)
    assert code == 0, report
    shares = [int(share) for share in re.findall(r"(\d+) % of \d+ detections matched", report)]
    assert len(shares) == 2 * len(ROLES)
    assert min(shares) < 100


Change = Callable[[dict[str, Array]], Mapping[str, Array]]


def damaged(bundle: Path, to: Path, change: Change) -> Path:
    """A copy whose recorded outputs are others, in every sample."""
    shutil.copytree(bundle, to, ignore=shutil.ignore_patterns("host"))
    (to / "host").mkdir()
    for file in (bundle / "host").glob("weights.bin"):
        shutil.copy(file, to / "host")
    for sample in read_manifest(bundle).golden:
        outputs = {name: np.load(to / path) for name, path in sample.outputs.items()}
        for name, array in change(outputs).items():
            np.save(to / sample.outputs[name], array)
    return to


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda o: {"boxes": o["boxes"] + 8}, "detections matched"),
        (lambda o: {"labels": (o["labels"] + 1) % CLASSES}, "detections matched"),
        (lambda o: {n: a[: len(a) // 9] for n, a in o.items()}, "detections matched"),
        (
            lambda o: {"scores": np.full_like(o["scores"], np.nan)},
            "(differs by|detections matched)",
        ),
        (lambda o: {"scores": o["scores"][1:]}, "boxes, but scores"),
    ],
    ids=["places", "labels", "number", "scores", "rows"],
)
def test_other_detections_fail(
    change: Change,
    sentence: str,
    detector: Path,
    selftest: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    """Boxes elsewhere, other labels, far fewer of them, scores that are no numbers, lists that do not
    belong together."""
    code, report = selftest(damaged(detector, tmp_path / "other", change), *ON_CPU)
    assert code == 1
    for run in whole_runs(report):
        assert re.search(rf"DIFFERENT: .*{sentence}", run), run


def test_one_box_counts_only_in_recorded_mode(
    detector: Path, selftest: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """A box less is nothing where a device computes, and a difference where all numbers are recorded."""
    other = damaged(detector, tmp_path / "other", lambda o: {n: a[:-1] for n, a in o.items()})
    code, report = selftest(other, *ON_CPU)
    assert code == 0, report
    assert report.count("% of ") == 2 * 2 * len(ROLES)  # host part and whole run of both samples
    for words in ((), ("--runtime", "recorded")):
        code, report = selftest(other, *words)
        assert code == 1
        assert report.count("DIFFERENT: shape") == 2 * len(ROLES)


def random_detections(rng: np.random.Generator, roles: list[str]) -> dict[str, Array]:
    """On a coarse raster: equal scores, equal boxes and boxes without area are common."""
    count = int(rng.integers(0, 40))
    low = rng.integers(0, 3, (count, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 4, (count, 2))], 1).astype(np.float32)
    scores = (rng.integers(0, 5, count) / 4).astype(np.float32)
    scores[rng.random(count) < 0.1] = np.nan
    made: dict[str, Array] = {
        "boxes": boxes,
        "labels": rng.integers(0, 2, count),
        "scores": scores,
    }
    return {role: made[role] for role in roles}


def test_pairs_are_those_of_python(kernel_compiler: Compiler, tmp_path: Path) -> None:
    """The same rows for the same rows, whatever their number, order and ties."""
    driver = Path(__file__).parent / "match_main.cpp"
    sources = ("detections.cpp", "numbers.cpp", "npy.cpp", "part.cpp")
    program = kernel_compiler.program("gcc-address-undefined", driver, sources)
    rng = np.random.default_rng(4)
    counts: list[int] = []
    for number, roles in enumerate([list(ROLES), ["boxes", "scores"], ["boxes", "labels"]] * 4):
        group = {role: role for role in roles}
        place = tmp_path / str(number)
        place.mkdir()
        sides = {side: random_detections(rng, roles) for side in ("wanted", "got")}
        for side, arrays in sides.items():
            for role, array in arrays.items():
                np.save(place / f"{side}_{role}.npy", array)
        wanted, got = (rows_of(group, sides[side]) for side in ("wanted", "got"))
        apart = [math.inf, 0.25][number % 2]
        pairs = match(wanted, got, IOU, apart)
        counts.append(len(pairs.left))
        done = program.run(place, IOU, apart)
        found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        assert found == list(zip(pairs.left, pairs.right, strict=True)), number
    assert sum(counts) > 40


SCORER = """
<ir_version: 8, opset_import: ["": 17]>
scorer (float[1,3,64,64] image) => (float[1] score) {
  dense = Conv <kernel_shape=[3,3], strides=[2,2]> (image, w1)
  active = Relu (dense)
  strengths = Conv <kernel_shape=[3,3], strides=[2,2]> (active, w2)
  most = ReduceMax <keepdims=0> (strengths)
  score = Reshape (most, one)
}"""


def test_a_score_must_decide_as_recorded(checked: Core, ort: OnnxRuntime, tmp_path: Path) -> None:
    """Near enough as a number, and on the other side of the threshold: that is another answer. It comes
    from a bundle without host parts."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": np.abs(rng.normal(0, 0.3, (8, 3, 3, 3))).astype(np.float32),
        "w2": np.abs(rng.normal(0, 0.3, (4, 8, 3, 3))).astype(np.float32),
        "one": np.array([1]),
    }
    model = parser.parse_model(SCORER)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    onnx.save(model, tmp_path / "scorer.onnx")
    picture = photographs()[0]
    (tmp_path / "calibration").mkdir()
    shutil.copy(picture, tmp_path / "calibration")
    options = BuildOptions(
        precision="a8w8",
        calib=tmp_path / "calibration",
        golden=(picture,),
        contract=Contract(
            inputs={"image": Preprocess(size=(64, 64))},
            roles={"score": "score"},
            score=Score(method="patchcore", threshold=THRESHOLD),
        ),
        verify="none",
        cache=False,
    )
    bundle = adcompile.compile(tmp_path / "scorer.onnx", "npu", tmp_path / "bundle", options).path
    program = link(checked, bundle, tmp_path, ort)

    right = float(np.load(bundle / read_manifest(bundle).golden[0].outputs["score"])[0])
    for factor, different in ((1.0, 0), (0.95, 0), (0.8, 2)):  # alone and in the whole run
        assert (right * factor > THRESHOLD) is not bool(different)
        change = {"score": np.array([right * factor], np.float32)}
        other = damaged(bundle, tmp_path / str(factor), lambda _, to=change: to)
        done = checked.run(program, str(other), *ON_CPU, cwd=tmp_path)
        assert done.returncode == (1 if different else 0), done.stderr
        assert done.stdout.count("DIFFERENT: 1 decisions flip") == different
        assert done.stdout.count("DIFFERENT") == different
