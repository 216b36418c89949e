"""``adcompile diff``: what changed between two bundles, what it cost, and when it says no."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import adcompile
from adcompile.anomaly.bank import prepare_bank, write_bank
from adcompile.changes.learned import compare_grids
from adcompile.changes.read import Grid
from adcompile.changes.record import WORSE, Section
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.contract import Contract, Decoder, Score
from adcompile.errors import FormatError
from adcompile.manifest import FileRecord, file_sha256, read_manifest
from tests.compile.models import cnn, detector

QUICK = BuildOptions(golden_count=1, host_code=False, cache=False, precision="a8w8")
BUILDS = {
    "a8w8": QUICK,
    "same": QUICK,
    "xint8": replace(QUICK, precision="xint8"),
    "pinned": replace(QUICK, pins={"block_a": "host"}),
    "floats": replace(QUICK, backend_options={"float_nodes": "block_a\nblock_b"}),
    "seeded": replace(QUICK, seed=3),
    "unverified": replace(QUICK, verify="none"),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One detector, built in several ways; a folder of bundles."""
    folder = tmp_path_factory.mktemp("diff")
    for name, options in BUILDS.items():
        compile(detector(), "npu", folder / name, options)
    compile(cnn(1), "npu", folder / "cnn", QUICK)
    return folder


def section(bundles: Path, new: str, topic: str, old: str = "a8w8") -> Section:
    found = adcompile.diff(bundles / old, bundles / new).section(topic)
    assert found is not None
    return found


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a bundle with other values in its manifest."""
    shutil.copytree(source, target)
    manifest = read_manifest(target)
    (target / "manifest.json").write_text(manifest.model_copy(update=changes).dump())
    return target


def test_equal_builds_do_not_differ(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two builds of the same thing: one line, exit code 0 whatever would fail."""
    words = ["diff", str(bundles / "a8w8"), str(bundles / "same"), "--fail-on", "any"]
    assert main(words) == 0
    assert capsys.readouterr().out == "nothing changed: all files are equal\n"


def test_moved_nodes_have_reasons(bundles: Path) -> None:
    """A node pinned to the host takes its part along, and each says why."""
    there = section(bundles, "pinned", "placement")
    assert "to the host" in there.summary
    convs = next(change for change in there.changes if "block_a" in change.names)
    assert convs.subject.startswith("Conv: ")
    assert (convs.old, convs.new) == ("device (backbone)", "host (host_0)")
    assert "by the user" in convs.note
    back = section(bundles, "a8w8", "placement", old="pinned")
    assert "no longer: " in next(c for c in back.changes if "block_a" in c.names).note
    parts = section(bundles, "pinned", "parts")
    (box_map,) = [c for c in parts.changes if c.subject == "boundary box_map"]
    assert (box_map.old, box_map.new) == ("float32 [1, 4, 8, 8], 1,024 bytes", None)


def test_precision_and_nodes_in_float(bundles: Path) -> None:
    """Another number format; nodes that were asked to stay in float."""
    (row,) = section(bundles, "xint8", "precision").changes
    assert (row.subject, row.old, row.new) == ("part backbone", "a8w8", "xint8")
    (row,) = section(bundles, "floats", "precision").changes
    assert (row.old, row.new, row.names) == (0, 2, ("block_a", "block_b"))
    only = adcompile.diff(bundles / "a8w8", bundles / "floats").section("quantization")
    assert only is not None
    assert any("only in OLD" in note for note in only.notes)


def test_scales_are_compared_tensor_by_tensor(bundles: Path) -> None:
    """The ratio is new over old; scales of XINT8 are powers of two; the largest change comes first."""
    found = section(bundles, "xint8", "quantization")
    by_name = {change.subject: change for change in found.changes}
    image = by_name["image"]
    assert isinstance(image.old, float)
    assert isinstance(image.new, float)
    assert image.ratio == pytest.approx(image.new / image.old)
    assert image.new == 2.0 ** round(np.log2(image.new))
    assert "of the integers" in by_name["w0"].note
    assert {"box_map", "score_map"} <= set(by_name)  # not the names inside the part
    sizes = [abs(np.log(c.ratio or 1.0)) for c in found.changes if "->" not in c.note]
    assert sizes == sorted(sizes, reverse=True)


def test_ranges_decide_the_order_of_scales() -> None:
    """A bias of 32 bits has room for anything: however its scale moves, it comes last."""

    def grid(dtype: str, scale: float) -> Grid:
        return Grid(dtype, np.array([scale]), np.array([0]), None)

    old = {n: grid("int8", 1.0) for n in ("same", "half", "finer")} | {"bias": grid("int32", 1.0)}
    new = {
        "same": grid("int8", 1.0),
        "half": grid("int8", 0.5),
        "finer": grid("int16", 3.0 / 256),
        "bias": grid("int8", 99.0),
    }
    rows = compare_grids(old, new)
    assert [row.subject for row in rows] == ["finer", "half", "bias"]
    assert [row.note for row in rows] == ["int8 -> int16, range x 3.012", "", "int32 -> int8"]
    assert [row.ratio for row in rows] == [3.0 / 256, 0.5, 99.0]


def test_other_models_say_so(bundles: Path) -> None:
    """A different network is the first thing to know; what only it has is named."""
    found = adcompile.diff(bundles / "a8w8", bundles / "cnn")
    assert found.headline.startswith("changed: model (another model)")
    rows = {c.subject: c for c in section(bundles, "cnn", "model").changes}
    assert rows["output features"].old is None
    assert rows["role of boxes"].new is None


def test_another_decoder_is_another_contract(bundles: Path, tmp_path: Path) -> None:
    """The bound of its suppression decides what is found, and stands beside the pre-processing."""
    for name, iou in (("one", 0.7), ("two", 0.3)):
        contract = Contract(decoder=Decoder(preset="yolov8", iou=iou))
        rewritten(bundles / "a8w8", tmp_path / name, contract=contract)
    rows = section(tmp_path, "two", "model", old="one").changes
    assert [(c.subject, c.old, c.new) for c in rows] == [("decoder: iou", "0.7", "0.3")]


def test_worse_numbers_fail_and_better_ones_do_not(bundles: Path, tmp_path: Path) -> None:
    """--fail-on accuracy looks at losses only; noise is no change; a failed check is a loss."""
    old = bundles / "a8w8"
    before = read_manifest(old).results
    key = "part backbone isolated snr_db"
    assert isinstance(before[key], float)
    for name, value, code in (("down", -3.0, 1), ("up", 3.0, 0), ("noise", 0.01, 0)):
        results = {**before, key: float(before[key]) + value}
        new = rewritten(old, tmp_path / name, results=results)
        assert main(["diff", str(old), str(new), "--fail-on", "accuracy"]) == code
    assert adcompile.diff(old, tmp_path / "noise").sections == ()
    failed = rewritten(old, tmp_path / "failed", results={**before, "ok": "no"})
    found = adcompile.diff(old, failed)
    assert "verification fails now" in found.headline
    assert [c.verdict for c in section(tmp_path, "failed", "accuracy", str(old)).changes] == [
        WORSE
    ]
    assert main(["diff", str(failed), str(old), "--fail-on", "any"]) == 1


MEASURES = [  # name, old, new, verdict
    ("against float auroc_loss", 0.01, 0.02, "worse"),
    ("against float auroc", 0.90, 0.95, "better"),
    ("against float float_auroc", 0.90, 0.95, ""),
    ("output boxes matched", 1.0, 0.5, "worse"),
    ("output boxes max_abs", 2.0, 1.0, "better"),
    ("quantized, own bank decision_flips", 0.0, 2.0, "worse"),
    ("quantized, own bank threshold", 1.0, 2.0, ""),
    ("budget segm_map", 0.40, 0.46, "better"),
    ("budget segm_loss", 0.02, 0.01, "better"),
    ("budget held", "yes", "no", "worse"),
    ("output boxes snr_db", 30.0, 30.05, None),
    ("against float f1", 0.9, 0.9005, None),
]


def test_which_way_is_worse(bundles: Path, tmp_path: Path) -> None:
    """Losses, errors and flips go up to get worse, shares and decibels down; rounding is nothing."""
    sides = [
        rewritten(
            bundles / "a8w8", tmp_path / str(at), results={row[0]: row[at] for row in MEASURES}
        )
        for at in (1, 2)
    ]
    found = adcompile.diff(*sides).section("accuracy")
    assert found is not None
    verdicts = {change.subject: change.verdict for change in found.changes}
    assert verdicts == {name: word for name, _, _, word in MEASURES if word is not None}


def test_what_was_measured_on_other_data_or_not_at_all(bundles: Path) -> None:
    """Numbers of other golden data are not comparable; no verification is a loss."""
    assert any("different golden data" in n for n in section(bundles, "seeded", "accuracy").notes)
    found = adcompile.diff(bundles / "a8w8", bundles / "unverified")
    assert "not verified now" in found.headline
    assert found.failing(["accuracy"]) == ("accuracy",)


def test_only_expected_differences_are_fine(bundles: Path, tmp_path: Path) -> None:
    """Tool versions and sizes are said, and fail nothing."""
    new = rewritten(bundles / "a8w8", tmp_path / "b", tools={"onnxruntime": "9.9"})
    found = adcompile.diff(bundles / "a8w8", new)
    assert not found.matters
    assert found.headline == "nothing that matters changed (only tools)"
    assert main(["diff", str(bundles / "a8w8"), str(new), "--fail-on", "any"]) == 0
    assert main(["diff", str(bundles / "a8w8"), str(new), "--fail-on", "tools"]) == 1


def test_fail_on_names_sections(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what was asked for fails; a word that is no section is refused."""
    words = ["diff", str(bundles / "a8w8"), str(bundles / "xint8"), "--fail-on"]
    assert main([*words, "placement"]) == 0
    assert main([*words, "placement,precision"]) == 1
    assert "precision changed" in capsys.readouterr().out
    assert main([*words, "colour"]) == 2
    assert "'colour' is no section" in capsys.readouterr().err


def test_both_run_on_the_same_images(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each output's agreement; a bound below which the answer is no; outputs of other shapes."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    photo = ["--images", str(tmp_path / "x.png")]
    one, other = compile_cnns(tmp_path)
    assert main(["diff", str(one), str(one), *photo, "--min-agreement", "1"]) == 0
    assert "outputs agree to 1 on 1 image" in capsys.readouterr().out
    assert main(["diff", str(one), str(other), *photo, "--min-agreement", "0.9999999"]) == 1
    capsys.readouterr()
    assert main(["diff", str(one), str(other), *photo, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["agreement"]
    measured = {row["measure"]: row["mean"] for row in rows["outputs"]}
    assert 0.9 < measured["cosine"] < 1.0
    assert main(["diff", str(one), str(bundles / "a8w8"), *photo]) == 0
    assert "cannot be compared" in capsys.readouterr().out
    assert main(["diff", str(one), str(other), "--min-agreement", "0.5"]) == 2


def compile_cnns(folder: Path) -> Iterator[Path]:
    for name in ("a8w8", "xint8"):
        yield compile(cnn(), "npu", folder / name, replace(QUICK, precision=name)).path


class Tags(HTMLParser):
    """Collects tags and the addresses they name."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in {"href", "src"}]


def test_the_page_is_one_file(bundles: Path, tmp_path: Path) -> None:
    """No script, nothing to fetch, text of a model is never markup; every section is linked."""
    evil = read_manifest(bundles / "xint8").model
    spec = evil.outputs[0].model_copy(update={"name": "<script>x</script>"})
    new = rewritten(
        bundles / "xint8", tmp_path / "b", model=evil.model_copy(update={"outputs": (spec,)})
    )
    page = tmp_path / "sub" / "d.html"
    assert main(["diff", str(bundles / "a8w8"), str(new), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.tags
    assert all(a.startswith(("#", "data:")) for a in tags.addresses)
    assert "&lt;script&gt;" in text
    assert {"#precision", "#quantization"} <= set(tags.addresses)
    assert not list(page.parent.glob(".*"))


def test_damaged_bundles_are_refused(bundles: Path, tmp_path: Path) -> None:
    """An edited manifest or file is never compared."""
    shutil.copytree(bundles / "a8w8", tmp_path / "b")
    (tmp_path / "b" / "plan.yaml").write_text("x")
    with pytest.raises(FormatError, match="wrong size"):
        adcompile.diff(bundles / "a8w8", tmp_path / "b")
    assert main(["diff", str(bundles / "a8w8"), str(tmp_path / "none")]) == 2


def test_banks_and_thresholds(bundles: Path, tmp_path: Path) -> None:
    """Rows and columns of a bank, and the numbers that training found; the formula is contract."""
    sides: list[Path] = []
    for name, rows, k in (("one", 12, 3), ("two", 9, 5)):
        manifest = read_manifest(bundles / "cnn")
        score = Score(method="patchcore", k=k, threshold=1.0 * rows, normalisation="none")
        bank = tmp_path / f"{name}.adbank"
        write_bank(bank, prepare_bank(np.eye(rows, 4, dtype=np.float32)))
        record = FileRecord(size=bank.stat().st_size, sha256=file_sha256(bank))
        side = rewritten(
            bundles / "cnn",
            tmp_path / name,
            contract=manifest.contract.model_copy(update={"score": score}),
            files={**manifest.files, "bank/m.adbank": record},
        )
        (side / "bank").mkdir()
        shutil.copy(bank, side / "bank" / "m.adbank")
        sides.append(side)
    found = adcompile.diff(*sides)
    learned, contract = found.section("bank"), found.section("model")
    assert learned is not None
    assert contract is not None
    assert next((c.subject, c.old, c.new) for c in learned.changes) == ("threshold", 12.0, 9.0)
    old, new = str(learned.changes[1].old), str(learned.changes[1].new)
    assert (old[:19], new[:18]) == ("12 rows x 4 columns", "9 rows x 4 columns")
    assert [(c.subject, c.old, c.new) for c in contract.changes] == [("score: k", "3", "5")]
    assert "bank (threshold, bank)" in found.headline


def test_detectors_of_anomalies_are_compared_by_decision(tmp_path: Path) -> None:
    """Each decides by its own threshold; a single score has no other agreement worth a word."""
    model = cnn()
    graph = model.graph
    graph.node.append(
        helper.make_node("ReduceMax", ["features"], ["top"], axes=[1, 2, 3], keepdims=0)
    )
    graph.output.append(helper.make_tensor_value_info("top", TensorProto.FLOAT, [1]))
    image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", image)
    old = compile(model, "npu", tmp_path / "old", replace(QUICK, precision="fp32")).path
    with adcompile.load(old) as bundle:
        top = float(bundle.run({"image": image}).outputs["top"][0])
    for name, limit, same in (("above", top / 2, 0.0), ("below", top * 2, 1.0)):
        sides = [
            rewritten(
                old,
                tmp_path / f"{name}{number}",
                contract=Contract(
                    roles={"top": "score"}, score=Score(method="vae", threshold=threshold)
                ),
            )
            for number, threshold in enumerate((top * 4, limit))
        ]
        found = adcompile.diff(*sides, images=tmp_path / "x.npy").agreement
        assert found is not None
        (row,) = [row for row in found.rows if row.measure == "same decision"]
        assert row.mean == same
        assert found.lowest == same
