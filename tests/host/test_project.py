"""The emitted project: configured and built by CMake, self-test, programs, tampering, C interface."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from PIL import Image

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.anomaly.threshold import normalise
from adcompile.backends.host.build import NATIVE, find_compiler
from adcompile.errors import InputError
from adcompile.ir.evaluate import evaluate
from adcompile.manifest import FileRecord
from adcompile.runtime.categories import Category
from tests.host.bundles import CHANNELS, TestBundle, make_bundle
from tests.host.toolchains import Core

Picture = npt.NDArray[np.uint8]


def pictures() -> dict[str, Picture]:
    """Two pictures of odd sizes, colour and grey."""
    rng = np.random.default_rng(11)
    return {
        "a": rng.integers(0, 256, (23, 37, 3), dtype=np.uint8),
        "b": rng.integers(0, 256, (16, 16, 1), dtype=np.uint8),
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TestBundle:
    made = make_bundle(tmp_path_factory.mktemp("bundle"), pictures())
    made.pictures.mkdir()
    Image.fromarray(pictures()["a"]).save(made.pictures / "a.png")
    return made


@pytest.fixture(scope="module")
def built(bundle: TestBundle) -> Path:
    """The build folder, with assertions of both sanitizers compiled in."""
    out = bundle.folder / "host" / "build"
    configure = ["cmake", "-S", str(bundle.folder / "host"), "-B", str(out)]
    configure += ["-DCMAKE_BUILD_TYPE=Debug", "-DADC_SANITIZE=address,undefined"]
    subprocess.run(configure, check=True, capture_output=True)
    command = ["cmake", "--build", str(out), "-j2", "--target", "selftest", "patchcore"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def call(
    program: Path, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, cwd=cwd, timeout=60
    )


def test_selftest_passes_and_says_what_it_compared(bundle: TestBundle, built: Path) -> None:
    """Score, raw score and map of two samples equal the golden data."""
    done = call(built / "selftest", str(bundle.folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 tensors compared, 0 different, 0 parts skipped" in done.stdout


def copy(bundle: TestBundle, to: Path) -> Path:
    for name in ("golden", "bank"):
        shutil.copytree(bundle.folder / name, to / name)
    (to / "host").mkdir()
    for file in (bundle.folder / "host").glob("weights.bin"):
        shutil.copy(file, to / "host")
    shutil.copy(bundle.folder / "manifest.json", to)
    return to


def test_changed_golden_data_fail(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """One different number: exit code 1."""
    other = copy(bundle, tmp_path)
    file = other / "golden" / "a" / "score.npy"
    np.save(file, np.load(file) + np.float32(0.01))
    done = call(built / "selftest", str(other))
    assert done.returncode == 1
    assert "DIFFERENT" in done.stdout


def test_an_infinity_is_no_bound(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """A recorded infinity fits an infinity only, however large its share of tolerance is."""
    other = copy(bundle, tmp_path)
    file = other / "golden" / "a" / "anomaly_map.npy"
    changed = np.load(file)
    changed[..., 0] = np.inf
    np.save(file, changed)
    done = call(built / "selftest", str(other))
    assert done.returncode == 1
    assert "DIFFERENT: differs by inf" in done.stdout


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_bank_stops(damage: str, bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """A bank that is not the built one is refused before anything runs; never "Normal"."""
    other = copy(bundle, tmp_path)
    file = next((other / "bank").iterdir())
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    file.write_bytes(data[:-64] if damage == "cut" else data)
    if damage == "remove":
        file.unlink()
    done = call(built / "selftest", str(other))
    assert done.returncode == 2
    assert "error:" in done.stderr


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.zeros((2, CHANNELS), np.float32), "the score needs 3 neighbours"),
        (np.zeros((9, CHANNELS + 1), np.float32), "the features have 8"),
        (None, "NaN"),
    ],
)
def test_unusable_banks_stop(
    rows: npt.NDArray[np.float32] | None,
    sentence: str,
    bundle: TestBundle,
    built: Path,
    tmp_path: Path,
) -> None:
    """Fewer rows than k, another width, a NaN: exit code 2 with the reason."""
    bank = tmp_path / "own.adbank"
    if rows is None:
        bank.write_bytes(bank_with_nan())
    else:
        bank.write_bytes(pack_bank(prepare_bank(rows)))
    done = run_program(bundle, built, tmp_path, "-m", str(bank))
    assert done.returncode == 2
    assert sentence in done.stderr


def bank_with_nan() -> bytes:
    """A bank that is right in everything but one number and the checksums made for it."""
    prepared = prepare_bank(np.random.default_rng(0).normal(size=(9, CHANNELS)).astype(np.float32))
    sections = {name: array.copy() for name, array in prepared.sections.items()}
    floats = next(a for a in sections.values() if a.dtype == np.float32 and a.size > 8)
    floats.reshape(-1)[3] = np.nan
    return pack_bank(replace(prepared, sections=sections))


def test_an_empty_range_is_refused(tmp_path: Path) -> None:
    """max <= min: no project is written."""
    with pytest.raises(InputError, match="maximum must be above"):
        make_bundle(tmp_path, pictures(), maximum=0.0)


def test_an_empty_folder_stops(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """No picture: exit code 2."""
    done = run_program(bundle, built, tmp_path, "-d", str(tmp_path))
    assert done.returncode == 2
    assert "no picture in the folder" in done.stderr


def test_empty_golden_is_a_failure(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """Missing golden files are an error, not an empty success."""
    other = copy(bundle, tmp_path)
    shutil.rmtree(other / "golden")
    assert call(built / "selftest", str(other)).returncode != 0


def run_program(
    bundle: TestBundle, built: Path, cwd: Path, *extra: str
) -> subprocess.CompletedProcess[str]:
    return call(
        built / "patchcore",
        *("-d", str(bundle.pictures), "-b", str(bundle.folder), "--runtime", "recorded"),
        *extra,
        cwd=cwd,
    )


def test_the_bundle_is_found_from_anywhere(
    bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """A program lies in its bundle and needs no --bundle; one that was taken out says what it lacks."""
    words = ("-d", str(bundle.pictures), "--runtime", "recorded")
    done = call(built / "patchcore", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone = Path(shutil.copy(built / "patchcore", tmp_path / "patchcore"))
    done = call(alone, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "give the bundle's folder with --bundle" in done.stderr


def test_program_scores_like_python(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """CSV with raw score and decision; the score is that of the Python reference."""
    done = run_program(bundle, built, tmp_path, "-o", "drawn")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "result_patchcore.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    wanted = bundle.reference(pictures()["a"])
    assert [r["filename"] for r in rows] == ["a.png"]
    assert float(rows[0]["raw_score"]) == pytest.approx(float(wanted["raw_score"][0]), rel=1e-5)
    anomalous = float(wanted["score"][0]) >= 0.5
    assert rows[0]["decision"] == ("Anomaly" if anomalous else "Normal")
    with Image.open(tmp_path / "drawn" / "a_result.png") as drawn:
        assert drawn.size[0] > 37
        assert drawn.size[1] == 23
    with Image.open(tmp_path / "drawn" / "a_heatmap.png") as heat:
        assert heat.size == (4, 4)


@pytest.mark.parametrize(("shift", "decision"), [(-0.01, "Anomaly"), (0.01, "Normal")])
def test_threshold_option_is_raw_and_strict(
    shift: float, decision: str, bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """-t compares the raw score; above is an anomaly."""
    raw = float(bundle.reference(pictures()["a"])["raw_score"][0])
    done = run_program(bundle, built, tmp_path, "-t", str(raw + shift))
    assert done.returncode == 0
    assert f"a.png: {decision}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-d", "nowhere"), "nowhere"),
        (("-m", "nowhere.adbank"), "nowhere.adbank"),
        (("-i", "99"), "16 x 16"),
        (("-i", "0"), "from 1 to"),
        (("-j", "0"), "--threads needs a whole number from 1 to 256, not '0'"),
        (("-j", "2x"), "needs a number"),
        (("-t", "many"), "needs a number"),
        (("--wrong", "1"), "unknown option"),
        (("-x", "1"), "unknown option -x"),
        (("more", "1"), "unexpected 'more'"),
        (("--min-score", "0.5"), "--min-score is not for this model: it detects no objects"),
    ],
)
def test_bad_usage_is_a_sentence_and_code_2(
    arguments: tuple[str, str], sentence: str, bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """Wrong options, missing banks and empty folders never end in exit code 0."""
    done = run_program(bundle, built, tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_bank_that_nothing_reads_is_refused(
    bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """Two banks for one search: neither is ignored."""
    (bank,) = (bundle.folder / "bank").iterdir()
    done = run_program(bundle, built, tmp_path, "-m", str(bank), "-m", str(bank))
    assert done.returncode == 2
    assert "this model reads 1 memory banks, 2 were given" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--help",), 0, "usage: selftest [BUNDLE]"),
        (("--threads", "x"), 2, "--threads needs a number, not 'x'"),
        (("--threads", "0"), 2, "from 1 to 256"),
        (("--device-option", "x"), 2, "needs NAME=VALUE"),
        (("--wrong", "x"), 2, "usage: selftest [BUNDLE]"),
    ],
)
def test_words_of_the_selftest(
    arguments: tuple[str, ...], code: int, sentence: str, bundle: TestBundle, built: Path
) -> None:
    """Help is an answer; a word that is not understood is never taken for another."""
    done = call(built / "selftest", str(bundle.folder), *arguments)
    assert done.returncode == code
    assert sentence in done.stdout + done.stderr


def test_no_option_prints_usage_and_fails(built: Path) -> None:
    """The reference programs printed help and exited with 0."""
    done = call(built / "patchcore")
    assert done.returncode == 2
    assert "  -m, --memory_bank FILE   bank instead of the bundle's\n" in done.stderr
    assert "--min-score" not in done.stderr


def test_damaged_picture_is_skipped_and_counted(
    bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """One unreadable file among good ones: the rest is done, the exit code says so."""
    folder = tmp_path / "mixed"
    shutil.copytree(bundle.pictures, folder)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = call(
        built / "patchcore",
        *("-d", str(folder), "-b", str(bundle.folder), "--runtime", "recorded"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "skipped" in done.stderr
    assert "a.png" in done.stdout


def test_frames_from_a_stream(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """Concatenated PPM pictures, as a camera program writes them."""
    header = b"P6\n37 23\n255\n"
    (tmp_path / "frames").write_bytes((header + pictures()["a"].tobytes()) * 2)
    done = call(
        built / "patchcore",
        *("--frames", str(tmp_path / "frames"), "-b", str(bundle.folder)),
        *("--runtime", "recorded"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "frame_1" in done.stdout


def test_a_stream_without_frames_stops(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """A camera that sends nothing is like an empty folder: a sentence, exit code 2."""
    frames = tmp_path / "frames"
    frames.touch()
    words = ("--frames", str(frames), "-b", str(bundle.folder), "--runtime", "recorded")
    done = call(built / "patchcore", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "frames: no picture in the stream" in done.stderr


def add_category(bundle: TestBundle, to: Path, rows: npt.NDArray[np.float32]) -> Category:
    """A category with other rows and another range, in a copy of the bundle at *to*."""
    assert bundle.contract.score is not None
    numbers = {"threshold": 0.4, "minimum": 0.1, "maximum": 1.5, "decision": 0.3}
    data = pack_bank(prepare_bank(rows))
    folder = to / "categories" / "other"
    (folder / "bank").mkdir(parents=True)
    (folder / "bank" / "b.adbank").write_bytes(data)
    record = FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    category = Category(
        name="other",
        engine={},
        score=bundle.contract.score.model_copy(update=numbers),
        made_from="test",
        parts={},
        banks=("bank/b.adbank",),
        files={"bank/b.adbank": record},
    )
    (folder / "category.json").write_text(category.dump())
    return category


def test_category_of_the_bundle(bundle: TestBundle, built: Path, tmp_path: Path) -> None:
    """--category takes that bank, range and decision level: the scores are Python's."""
    other = copy(bundle, tmp_path)
    rows = np.random.default_rng(3).normal(0, 1, (20, 8)).astype(np.float32)
    category = add_category(bundle, other, rows)
    head = bundle.head.clone()
    value = next(v for v in head.graph.initializers.values() if v.shape == (12, 8))
    value.const_value = ir.tensor(rows, name=value.name)
    value.shape = ir.Shape(rows.shape)
    features = np.load(other / "golden" / "a" / "features.npy")
    raw = evaluate(head, {"features": features})["raw_score"]
    expected = normalise(raw, category.score)
    words = ("-d", str(bundle.pictures), "-b", str(other), "--runtime", "recorded")
    done = call(built / "patchcore", *words, "--category", "other", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"score {expected[0]:.4f}, limit 0.3000" in done.stdout
    line = next(csv.DictReader((tmp_path / "result_patchcore.csv").read_text().splitlines()))
    assert float(line["raw_score"]) == pytest.approx(float(raw[0]), rel=1e-5)
    assert call(built / "patchcore", *words, "--category", "none").returncode == 2
    assert call(built / "patchcore", *words, "--category", "../x").returncode == 2
    file = other / "categories" / "other" / "category.json"
    good = json.loads(file.read_text())
    for changed, complaint in (
        ({"engine": {"parts/a.onnx": "0" * 64}}, "another build"),
        ({"score": good["score"] | {"normalisation": "odd"}}, "unknown normalisation"),
        ({"score": good["score"] | {"compare": "<"}}, "neither > nor >="),
        ({"banks": ["../../bank/patches.adbank"]}, "not one of its files"),
    ):
        file.write_text(json.dumps(good | changed))
        done = call(built / "patchcore", *words, "--category", "other")
        assert done.returncode == 2, changed
        assert complaint in done.stderr


def test_other_picture_does_not_get_the_recorded_answer(
    bundle: TestBundle, built: Path, tmp_path: Path
) -> None:
    """The recorded runtime refuses an input that it has not seen."""
    Image.fromarray(255 - pictures()["a"]).save(tmp_path / "x.png")
    done = call(
        built / "patchcore",
        *("-d", str(tmp_path), "-b", str(bundle.folder), "--runtime", "recorded"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "not the recorded one" in done.stderr


def test_emission_is_deterministic(tmp_path: Path) -> None:
    """Same input, same bytes, no path of this machine inside."""
    trees = []
    for name in ("one", "two"):
        made = make_bundle(tmp_path / name, pictures())
        files = {p.relative_to(made.folder): p.read_bytes() for p in made.folder.rglob("*.*")}
        trees.append({k: v for k, v in files.items() if k.parts[0] in {"host", "bank"}})
    assert trees[0] == trees[1]
    assert not any(str(tmp_path).encode() in data for data in trees[0].values())


def test_arm64_selftest(bundle: TestBundle, arm64: Core, tmp_path: Path) -> None:
    """The same golden data on aarch64, under qemu."""
    assert "0 different" in arm64.selftest(bundle.folder, tmp_path)


@pytest.mark.parametrize(
    ("preset", "flag"),
    [
        ("x86-64", "-march=x86-64-v3"),
        ("native", "-march=native"),
        ("aarch64-cortex-a55", "-mcpu=cortex-a55"),
        ("aarch64-cortex-a78ae", "-mcpu=cortex-a78ae"),
    ],
)
def test_presets_configure(preset: str, flag: str, bundle: TestBundle, tmp_path: Path) -> None:
    """Every preset is understood by CMake and chooses its processor."""
    if preset.startswith("aarch64") and shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs aarch64-linux-gnu-g++")
    command = ["cmake", "--preset", preset, "-B", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=bundle.folder / "host", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert flag in (tmp_path / "CMakeFiles/adc_core.dir/flags.make").read_text()


def test_two_threads_without_a_race(tmp_path: Path) -> None:
    """The thread pool under ThreadSanitizer: results, exceptions, nesting."""
    program = tmp_path / "threads"
    source = Path(__file__).parent / "threads_main.cpp"
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=thread", "-Wall", "-Wextra", "-Werror"]
    command = [find_compiler(), *flags, f"-I{NATIVE}", str(source), str(NATIVE / "threads.cpp")]
    subprocess.run([*command, "-o", str(program), "-pthread"], check=True)
    done = call(program)
    assert done.returncode == 0, done.stdout + done.stderr
