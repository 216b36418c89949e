"""Reports: pictures, tables, charts, and the page as a real browser sees it."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from adcompile.anomaly.metrics import Confusion
from adcompile.anomaly.report import charts, pictures, tables
from adcompile.anomaly.report.drawing import Box, Drawing, Line, Text
from adcompile.anomaly.report.gather import KINDS, ReportOptions
from adcompile.anomaly.report.rows import Row, row_of
from adcompile.anomaly.samples import Sample
from adcompile.cli import main
from adcompile.contract import Score
from adcompile.errors import InputError, UsageError
from adcompile.runtime.heatmap import colours, threshold_scale
from tests.anomaly.conftest import SIDE

SCORE = Score(
    method="patchcore",
    normalisation="min_max",
    threshold=4.0,
    pixel_threshold=3.0,
    minimum=0.0,
    maximum=10.0,
)


def row(name: str, label: int, raw: float) -> Row:
    sample = Sample(Path(name), label, "hole" if label else "good")
    return row_of(sample, raw, np.zeros((4, 4), np.float32), SCORE, None)


# ---- pictures


def test_jet_colours() -> None:
    """The colours of the usual JET scale at its corners."""
    found = colours(np.array([0.0, 0.125, 0.375, 0.5, 0.625, 0.875, 1.0]))
    expected = [
        (0, 0, 128), (0, 0, 255), (0, 255, 255), (128, 255, 128), (255, 255, 0), (255, 0, 0),
        (128, 0, 0),
    ]  # fmt: skip
    assert [tuple(c) for c in found.tolist()] == expected


def brute_opening(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Union of all disks that fit into the mask (outside the picture everything fits)."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    offsets = [
        (y, x)
        for y in range(-radius, radius + 1)
        for x in range(-radius, radius + 1)
        if y * y + x * x <= radius * radius
    ]
    inside = lambda y, x: 0 <= y < height and 0 <= x < width  # noqa: E731
    for y in range(height):
        for x in range(width):
            cells = [(y + dy, x + dx) for dy, dx in offsets if inside(y + dy, x + dx)]
            if all(mask[cell] for cell in cells):
                for cell in cells:
                    out[cell] = True
    return out


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_opening_is_the_union_of_disks(radius: int) -> None:
    """Against the definition, on random blobs; a speck disappears, a large region stays."""
    random = np.random.default_rng(radius)
    noise = random.random((24, 31)) > 0.25
    blob = np.zeros((24, 31), dtype=np.bool_)
    blob[6:20, 8:24] = True
    for mask in (noise, blob, blob & noise, np.ones((9, 9), dtype=np.bool_)):
        assert np.array_equal(pictures.opened(mask, radius), brute_opening(mask, radius))
    speck = np.zeros((24, 31), dtype=np.bool_)
    speck[12, 12] = True
    assert not pictures.opened(speck, radius).any()


def test_mask_and_overlay() -> None:
    """The mask is threshold and opening; the overlay mixes 60 % photograph and 40 % colour."""
    heat = np.zeros((40, 40), np.float32)
    heat[5:30, 5:30] = 5.0
    heat[38, 38] = 9.0
    mask = pictures.predicted_mask(heat, 5.0)
    assert mask[15, 15]
    assert not mask[38, 38]
    photo = np.full((40, 40, 3), 200, np.uint8)
    mixed = pictures.overlay_picture(photo, np.zeros((40, 40), np.float32))
    assert mixed[0, 0].tolist() == [120, 120, 171]
    drawn = pictures.segmentation_picture(photo, mask, mask)
    assert tuple(drawn[15, 5].tolist()) == pictures.PREDICTED
    assert tuple(drawn[15, 15].tolist()) == (200, 200, 200)
    everything = pictures.outline(np.ones((5, 6), dtype=np.bool_))
    assert everything.sum() == 5 * 6 - 3 * 4


def test_colours_are_centred_on_the_threshold() -> None:
    """The pixel threshold is the middle; one extreme value does not flatten the rest."""
    heat = np.array([[0.0, 3.0, 9.0, 1000.0]], np.float32)
    unit = threshold_scale(heat, 0.0, 3.0, 1000.0)
    assert unit.tolist() == [[0.0, 0.5, 1.0, 1.0]]
    assert threshold_scale(heat, 0.0, 3.0, 4.0).tolist() == [[0.0, 0.5, 1.0, 1.0]]


def test_one_drawing_two_renderings() -> None:
    """SVG is valid XML with classes for the theme; the picture has the shapes where they belong."""
    drawing = Drawing(60, 40, "a < b")
    drawing.add(
        Box(10, 10, 20, 10, "bad", tip="5 & more"),
        Line([(0, 35), (59, 35)], "good", 2),
        Line([(0, 5), (59, 5)], "fg", 1, dashed=True),
        Text(30, 30, "<x>"),
        Text(5, 20, "up", turned=True),
    )
    from xml.etree import ElementTree

    root = ElementTree.fromstring(drawing.svg())
    assert root.attrib["aria-label"] == "a < b"
    assert [child.attrib.get("class") for child in root] == [
        "f-bad", "s-good", "s-fg", "f-fg", "f-fg"
    ]  # fmt: skip
    pixels = np.asarray(drawing.picture())
    assert pixels.shape == (80, 120, 3)
    assert pixels[30, 40].tolist() == [0xB3, 0x26, 0x1E]
    assert pixels[70, 60].tolist() == [0x1B, 0x7A, 0x43]


def test_charts_hold_their_numbers() -> None:
    """Areas, counts and threshold are readable in the SVG; flat data draw too."""
    curve = charts.Curve("m", np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), 0.987654)
    assert "m: 0.9877" in charts.roc_chart("t", [curve]).svg()
    counts = charts.confusion_chart("t", Confusion(7, 2, 11, 3)).svg()
    assert all(f">{n}<" in counts for n in (7, 2, 11, 3))
    groups = [("normal", "accent", [0.1, 0.1, 0.2]), ("anomalous", "bad", [0.9])]
    assert "threshold 0.5" in charts.histogram_chart("t", groups, 0.5).svg()
    charts.histogram_chart("t", [("flat", "accent", [1.0, 1.0])], 1.0).picture()
    charts.histogram_chart("t", [("none", "accent", [])], 1.0).picture()


# ---- tables


def test_r3_table(tmp_path: Path) -> None:
    """Exact columns, a byte order mark, numbers that come back, and the four outcomes."""
    rows = [
        row("a/x.png", 1, 8.0),
        row("b.png", 0, 9.0),
        row("c.png", 0, 1.0),
        row("傷.png", 1, 2),
    ]
    tables.write_r3(tmp_path / "t.csv", rows, SCORE, "部品")
    data = (tmp_path / "t.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfindex,category,data_type,filepath,filename,ext,gt,pred,")
    read = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
    assert tuple(read[0]) == tables.R3_COLUMNS
    assert [line["confusion_metrix"] for line in read] == ["TP", "FP", "TN", "FN"]
    assert [float(line["score_norm"]) for line in read] == pytest.approx([0.9, 1.0, 0.2, 0.3])
    first = read[0]
    assert (first["filepath"], first["filename"], first["ext"]) == ("a/x.png", "x.png", ".png")
    assert (first["category"], read[3]["filename"]) == ("部品", "傷.png")
    limits = ("image_threshold", "image_threshold_norm", "pixel_threshold", "pixel_threshold_norm")
    assert [float(first[name]) for name in limits] == [4.0, 0.5, 3.0, 0.5]


def test_r1_table(tmp_path: Path) -> None:
    """R1's five columns, with its words."""
    tables.write_r1(tmp_path / "p.csv", [row("a/x.png", 1, 8.0), row("b.png", 0, 9.0)])
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "file,raw_score,norm_score,pred,label",
        "x.png,8,0.899999976,anomaly,anomaly",
        "b.png,9,1,anomaly,normal",
    ]


def test_pixel_table(tmp_path: Path) -> None:
    """Per-image pixel metrics are those of scikit-learn; an undefined AUROC is a dash."""
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    heat = random.random((16, 16), np.float32) * 6
    truth = random.random((16, 16)) < 0.2
    clear = np.zeros((16, 16), dtype=np.bool_)
    sample = Sample(Path("x.png"), 1, "hole")
    rows = [row_of(sample, 5.0, heat, SCORE, mask) for mask in (truth, clear)]
    tables.write_r3_pixels(tmp_path / "p.csv", [*rows, row("no.png", 0, 1.0)])
    read = list(csv.DictReader((tmp_path / "p.csv").read_text("utf-8-sig").splitlines()))
    assert len(read) == 2
    called = heat.ravel() >= 3.0
    expected = {
        "F1": metrics.f1_score(truth.ravel(), called),
        "AUROC": metrics.roc_auc_score(truth.ravel(), heat.ravel()),
        "recall": metrics.recall_score(truth.ravel(), called),
        "accuracy": metrics.accuracy_score(truth.ravel(), called),
        "precision": metrics.precision_score(truth.ravel(), called),
    }
    assert {k: float(read[0][k]) for k in expected} == pytest.approx(expected, abs=1e-8)
    assert read[1]["AUROC"] == "-"


def test_r0_table(tmp_path: Path) -> None:
    """R0's layout in Shift-JIS, its spelling included; a name outside Shift-JIS is an error."""
    rows = [row("傷.png", 1, 8.0), row("b.png", 0, 9.0)]
    tables.write_r0(tmp_path / "r.csv", rows, SCORE, Confusion(1, 1, 0, 0), model="m")
    lines = list(csv.reader((tmp_path / "r.csv").read_text("shift_jis").splitlines()))
    assert lines[0] == ["patch core"]
    assert ["threshould", "0.5"] in lines
    assert lines[13][6:8] == ["", "macro-mean"]
    assert lines[18][5:9] == ["Label", "Normal", "0", "1"]
    assert lines[19][6:9] == ["Abnormal", "0", "1"]
    at = lines.index(["No", "image", "Label", "Predict", "Result"])
    assert lines[at + 1 :] == [["1", "傷.png", "1", "1", "o"], ["2", "b.png", "0", "1", "x"]]
    with pytest.raises(InputError, match="shift_jis"):
        tables.write_r0(
            tmp_path / "x", [row("🔧.png", 0, 1)], SCORE, Confusion(0, 0, 1, 0), model=""
        )


def test_map_table(tmp_path: Path) -> None:
    """Five decimals, one map row per line."""
    tables.write_map(tmp_path / "d" / "m.csv", np.array([[0.1234567, 2], [3, 4]], np.float32))
    assert (tmp_path / "d" / "m.csv").read_text() == "0.12346,2.00000\n3.00000,4.00000\n"


def test_options() -> None:
    """Kinds of pictures by name; a typo is answered with the known ones."""
    assert ReportOptions.parse("all").kinds == KINDS
    assert ReportOptions.parse("none").kinds == ()
    assert ReportOptions.parse("mask, overlay").kinds == ("mask", "overlay")
    with pytest.raises(UsageError, match="heatmaps"):
        ReportOptions.parse("heatmaps")


# ---- the whole


@pytest.fixture(scope="module")
def report(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a fitted model and the same model with a threshold that flips decisions."""
    work = tmp_path_factory.mktemp("report")
    fit = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(work / "low")]
    assert main([*fit, "--image-size", str(SIDE), "--coreset-ratio", "0.05"]) == 0
    change = ["retrain", str(work / "low"), "-o", str(work / "high <b>"), "--only-threshold"]
    assert main([*change, "--threshold", "manual", "--threshold-value", "1e6"]) == 0
    words = ["eval", str(work / "low"), str(work / "high <b>"), "--data", str(twill_folder)]
    words += ["--report", str(work / "r"), "--pictures", "all", "--map-csv", "--r0-csv"]
    assert main(words) == 0
    return work / "r"


def test_files_of_a_report(report: Path, twill_folder: Path) -> None:
    """Every picture of every image, the charts under R3's names, and the tables."""
    images = sorted(p for p in (twill_folder / "test").rglob("*.png"))
    folders = sorted(p.name for p in report.iterdir() if p.is_dir())
    assert folders == ["high_b_", "low"]
    for folder in folders:
        place = report / folder
        for kind in KINDS:
            assert len(list((place / "images").rglob(f"*_{kind}.png"))) == len(images)
        assert len(list((place / "csv").rglob("*.csv"))) == len(images)
        charts_made = {p.stem for p in place.glob("*.png")}
        assert charts_made == {
            "confusion_matrix", "image-level-roc", "pixel-level-roc",
            "image-level-scores-histogram",
        }  # fmt: skip
        tables_made = {p.name for p in place.glob("*.csv")}
        assert tables_made == {
            "test_outputs.csv", "pixel_level_test_outputs.csv", "predictions.csv", "r0.csv"
        }  # fmt: skip
    overlay = next((report / "low" / "images").rglob("*_overlay.png"))
    with Image.open(overlay) as image:
        assert image.size == (96, 96)


class Page(HTMLParser):
    """What the browser built: cards in order, images, charts, links out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.cards: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "li" and "card" in found.get("class", ""):
            self.cards.append(found["class"])
        if tag == "img":
            self.sources.append(found["src"])
        if tag == "a":
            self.links.append(found["href"])

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_in_a_browser(report: Path, tmp_path: Path) -> None:
    """Chromium loads the page without complaint; worst images come first; nothing is requested."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser is not None, "chromium is a system package of the tests (.ci/run)"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--log-level=0"]
    done = subprocess.run(
        [*command, (report / "report.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr, done.stderr
    page = Page()
    page.feed(done.stdout)
    assert len(page.cards) == 18
    bad = ["wrong" in words or "flipped" in words for words in page.cards]
    assert bad == sorted(bad, reverse=True)
    assert any("flipped" in words for words in page.cards)
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2 + 2 * 2
    assert "high <b>" in page.text
    local = [link for link in page.links if not link.startswith("#")]
    assert local
    for link in local:
        assert (report / link).is_file(), link


def test_page_asks_for_nothing(report: Path) -> None:
    """No address of another host, and a policy that would forbid one."""
    text = (report / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    assert "@import" not in text
    assert "url(" not in text


def test_several_categories(twill_folder: Path, report: Path, tmp_path: Path) -> None:
    """A folder of categories gives a page each and an overview; --category picks one of them."""
    model, data = report.parent / "low", tmp_path / "data"
    for name in ("one", "二"):
        shutil.copytree(twill_folder, data / name)
    words = ["eval", str(model), "--data", str(data), "--pictures", "none"]
    assert main([*words, "--report", str(tmp_path / "r")]) == 0
    page = Page()
    page.feed((tmp_path / "r" / "report.html").read_text(encoding="utf-8"))
    assert len(page.links) == 2
    for link in page.links:
        assert (tmp_path / "r" / unquote(link)).is_file(), link
    assert page.text.count("0.9565") == 2
    assert main([*words, "--category", "二", "--report", str(tmp_path / "s")]) == 0
    assert (tmp_path / "s" / "low" / "test_outputs.csv").is_file()
    assert not (tmp_path / "s" / "low" / "images").exists()
    assert main([*words, "--category", "three"]) == 2
    good = str(data / "one" / "train" / "good")
    assert main(["eval", str(model), "--data", good]) == 2
    assert main([*words, "--report", str(model / "config.yaml")]) == 2
