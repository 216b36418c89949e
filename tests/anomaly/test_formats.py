"""Every trained-model format is read and written; damage and contradictions are refused by field."""

from __future__ import annotations

import json
import struct
import sys
import types
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcompile.anomaly.formats import faiss_flat, r0, r1, r3
from adcompile.anomaly.formats.convert import detect, read_trained, with_values, write_trained
from adcompile.anomaly.formats.npz import read_npz, write_npz
from adcompile.anomaly.formats.pickle_walk import Made, walk_pickle
from adcompile.anomaly.formats.record import Trained, findings
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.cli import main
from adcompile.errors import AdcompileError, FormatError, UsageError

BANK = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
FULL = Trained(
    method="patchcore",
    source="test",
    bank=BANK,
    threshold=3.25,
    minimum=0.1,
    maximum=9.7,
    pixel_threshold=2.5,
    ratio=0.01,
    neighbours=9,
    backbone="resnet18",
    layers=("layer2", "layer3"),
    input_size=(224, 224),
    train_rows=1200,
)
HALF = np.random.default_rng(1).standard_normal((4, 3, 3)).astype(np.float32)
PADIM = Trained(
    method="padim",
    source="test",
    mean=np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32),
    inverse=HALF @ HALF.transpose(0, 2, 1),
    index=np.array([5, 0, 3], dtype=np.int64),
    threshold=1.5,
    minimum=0.0,
    maximum=4.0,
    backbone="resnet18",
    layers=("layer1",),
    input_size=(256, 256),
)


def same(a: Trained, b: Trained, names: tuple[str, ...]) -> None:
    for name in names:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert (left == right).all(), name
        elif isinstance(left, float):
            assert np.float32(left) == np.float32(right), name
        else:
            assert left == right, name


NUMBERS = ("threshold", "minimum", "maximum")


@pytest.mark.parametrize(
    ("kind", "file", "names"),
    [
        ("r0-bin", "a.bin", ("bank", *NUMBERS, "ratio", "neighbours")),
        (
            "r0-pth",
            "a.pth",
            (
                "bank",
                *NUMBERS,
                "ratio",
                "neighbours",
                "backbone",
                "layers",
                "input_size",
                "train_rows",
            ),
        ),
        ("r1", "folder", ("bank", *NUMBERS, "ratio", "backbone", "layers", "input_size")),
        ("r1-npz", "memory_bank.npz", ("bank",)),
        ("faiss", "index.faiss", ("bank",)),
        ("hmc", "trained_data.hmc", ("bank", *NUMBERS, "pixel_threshold")),
        ("bank", "ours.bank", ("bank",)),
    ],
)
def test_round_trip(tmp_path: Path, kind: str, file: str, names: tuple[str, ...]) -> None:
    """Written, recognised by content, read back equal; written twice, the bytes are equal."""
    path = tmp_path / "new" / file
    write_trained(path, FULL, kind)
    assert detect(path) == kind
    same(FULL, read_trained(path), names)
    again = tmp_path / "again" / file
    write_trained(again, FULL, kind)
    for written in sorted(p for p in (tmp_path / "new").rglob("*") if p.is_file()):
        other = tmp_path / "again" / written.relative_to(tmp_path / "new")
        assert written.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("kind", "file"), [("r1", "p"), ("r1-stats", "s.npz"), ("hmc", "p.hmc")])
def test_padim_round_trip(tmp_path: Path, kind: str, file: str) -> None:
    """Mean, inverse covariance and the channel index survive every format that holds them."""
    write_trained(tmp_path / file, PADIM, kind)
    same(PADIM, read_trained(tmp_path / file), ("mean", "inverse", "index"))


NETWORK = {"student.conv1.weight": BANK, "teacher.conv1.weight": BANK + 1}
VAE = {f"{name}.weight": BANK for name in ("encoder.0", "mu", "logvar", "fc_dec", "decoder.0")}


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ("efficientad", {"model_size": "medium", "learning_rate": 1e-4, "weights": NETWORK}),
        ("vae", {"latent": 64, "learning_rate": 1e-3, "weights": VAE}),
    ],
)
def test_networks_in_r1_folders(tmp_path: Path, method: str, extra: dict[str, object]) -> None:
    """EfficientAD and VAE folders hold meta.json and model.pth; without weights none is written."""
    made = Trained(method, "test", threshold=2.5, minimum=0.5, maximum=4.0, input_size=(64, 64))
    with pytest.raises(FormatError) as caught:
        write_trained(tmp_path / "none", replace(made, **(extra | {"weights": {}})), "r1")  # type: ignore[arg-type]
    assert caught.value.where == "weights"
    trained = replace(made, **extra)  # type: ignore[arg-type]
    write_trained(tmp_path / "m", trained, "r1")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["meta.json", "model.pth"]
    again = read_trained(tmp_path / "m")
    same(trained, again, (*NUMBERS, "model_size", "learning_rate", "latent", "input_size"))
    assert again.weights.keys() == trained.weights.keys()
    assert all(np.array_equal(v, again.weights[k]) for k, v in trained.weights.items())
    assert detect(tmp_path / "m" / "model.pth") == "r1-pth"


def test_meta_and_files_must_agree(tmp_path: Path) -> None:
    """A meta.json of one model beside the network or statistics of another is refused."""
    write_trained(tmp_path / "m", PADIM, "r1")
    meta = json.loads((tmp_path / "m" / "meta.json").read_text())
    (tmp_path / "m" / "meta.json").write_text(json.dumps(meta | {"n_features": 5}))
    with pytest.raises(FormatError) as caught:
        read_trained(tmp_path / "m")
    assert "n_features" in caught.value.where
    (tmp_path / "m" / "meta.json").write_text(json.dumps(meta))
    write_torch_file(tmp_path / "m" / "model.pth", {f"model.{k}": v for k, v in NETWORK.items()})
    with pytest.raises(FormatError, match="different models"):
        read_trained(tmp_path / "m")


def test_unknown_keys_are_refused_by_name(tmp_path: Path) -> None:
    """R0's and R3's dicts hold what they hold and nothing else; wrong types are named too."""
    content: dict[str, object] = {"memory_bank": BANK, "num_neighbors": 3, "surprise": 1}
    write_torch_file(tmp_path / "a.pth", content)
    del content["surprise"]
    write_torch_file(tmp_path / "b.pth", content | {"layers": [1]})
    write_torch_file(tmp_path / "c.pth", content | {"threshold": 1.0, "thresould": 1.0})
    write_trained(tmp_path / "d.hmc", FULL)
    hmc = read_torch_file(tmp_path / "d.hmc")
    assert isinstance(hmc, dict)
    write_torch_file(tmp_path / "d.hmc", hmc | {"other": 1.0})  # pyright: ignore[reportUnknownArgumentType]
    for name, field in {"a": "surprise", "b": "layers", "c": "thresould", "d": "other"}.items():
        file = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(FormatError) as caught:
            read_trained(file)
        assert field in caught.value.where, name


@pytest.mark.parametrize("kind", ["r0-pth", "r1", "faiss", "hmc", "bank", "r3-meta"])
def test_no_format_is_written_from_a_contradiction(tmp_path: Path, kind: str) -> None:
    """NaN in the bank, or a maximum below the minimum, is refused whatever the target."""
    for field, value in {"bank": BANK * np.float32(np.nan), "maximum": -1.0}.items():
        bad = replace(FULL, **{field: value})  # type: ignore[arg-type]
        with pytest.raises(FormatError) as caught:
            write_trained(tmp_path / "x", bad, kind)
        assert caught.value.where == field
    assert not (tmp_path / "x").exists()


def test_board_file_is_byte_exact(tmp_path: Path) -> None:
    """30 bytes of header as documented, then the rows; size 30 + 4 · rows · columns."""
    r0.write_bin(tmp_path / "a.bin", FULL)
    data = (tmp_path / "a.bin").read_bytes()
    assert len(data) == 30 + 4 * 12 * 5
    assert data[:2] == b"PC"
    assert struct.unpack_from("<4f", data, 2) == pytest.approx((3.25, 0.1, 9.7, 0.01))
    assert struct.unpack_from("<3i", data, 18) == (9, 12, 5)
    assert data[30:] == BANK.tobytes()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: b"XX" + d[2:], "invalid file format"),
        (lambda d: d[:-1], "shape disagree"),
        (lambda d: d + b"\0", "shape disagree"),
        (lambda d: d[:20], "not a memory bank"),
        (lambda d: d[:22] + struct.pack("<i", -12) + d[26:], "shape disagree"),
        (lambda d: d[:18] + struct.pack("<i", 13) + d[22:], "contradicts itself"),
        (lambda d: d[:10] + struct.pack("<f", 0.0) + d[14:], "contradicts itself"),
        (lambda d: d[:2] + struct.pack("<f", float("nan")) + d[6:], "contradicts itself"),
        (lambda d: d[:30] + struct.pack("<f", float("inf")) + d[34:], "contradicts itself"),
    ],
)
def test_damaged_board_files_are_refused(tmp_path: Path, edit: object, message: str) -> None:
    """Magic, sizes, k above rows, max below min, NaN: each is an error, never a silent bank."""
    path = tmp_path / "a.bin"
    r0.write_bin(path, FULL)
    assert callable(edit)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(FormatError, match=message):
        r0.read_bin(path)


def test_missing_values_are_named_and_can_be_given(tmp_path: Path) -> None:
    """A checkpoint without validation has no threshold: the converter says which to give."""
    r0.write_pth(tmp_path / "a.pth", replace(FULL, threshold=None, minimum=None))
    trained = r0.read_pth(tmp_path / "a.pth")
    with pytest.raises(FormatError) as caught:
        write_trained(tmp_path / "a.bin", trained)
    assert caught.value.where == "threshold, minimum"
    write_trained(tmp_path / "a.bin", with_values(trained, {"threshold": "3", "minimum": "0"}))
    assert r0.read_bin(tmp_path / "a.bin").threshold == 3.0
    with pytest.raises(UsageError, match="no value is called"):
        with_values(trained, {"thresould": "3"})


def test_a_fit_without_layers_as_r1(tmp_path: Path) -> None:
    """Filters have no layers, R1 wants some: the converter says so, and takes them with --set."""
    trained = replace(FULL, layers=(), backbone="")
    with pytest.raises(FormatError) as caught:
        write_trained(tmp_path / "meta.json", trained)
    assert caught.value.where == "backbone, layers"
    given = with_values(trained, {"backbone": "resnet18", "layers": "layer2, layer3"})
    write_trained(tmp_path / "meta.json", given)
    assert r1.read_folder(tmp_path / "meta.json").layers == ("layer2", "layer3")
    with pytest.raises(FormatError, match="cannot hold") as caught:
        write_trained(tmp_path / "small" / "meta.json", replace(given, input_size=(4, 4)))
    assert caught.value.where == "image_size"
    assert not (tmp_path / "small").exists()


def test_real_omegaconf_objects_are_read(tmp_path: Path) -> None:
    """A checkpoint whose input_size and layers come straight from an OmegaConf configuration."""
    torch = pytest.importorskip("torch")
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create(
        {"input_size": [224, 192], "layers": ["layer2", "layer3"], "k": 9}
    )
    content = {"memory_bank": torch.tensor(BANK), "num_neighbors": config.k}
    content |= {"input_size": config.input_size, "layers": config.layers}
    torch.save(content, tmp_path / "a.pth")
    trained = r0.read_pth(tmp_path / "a.pth")
    assert (trained.input_size, trained.layers) == ((224, 192), ("layer2", "layer3"))


def fake_omegaconf() -> dict[str, types.ModuleType]:
    """Modules whose classes pickle under omegaconf's names, with its attribute names."""
    names = {"omegaconf.listconfig": "ListConfig", "omegaconf.nodes": "AnyNode"}
    modules = {name: types.ModuleType(name) for name in ("omegaconf", *names)}
    for name, cls in names.items():
        setattr(modules[name], cls, type(cls, (), {"__module__": name}))
    return modules


def test_omegaconf_objects_are_read_without_running_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """input_size saved as a ListConfig is understood, with no such module installed."""
    torch = pytest.importorskip("torch")
    modules = fake_omegaconf()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    size = modules["omegaconf.listconfig"].ListConfig()
    nodes = [modules["omegaconf.nodes"].AnyNode() for _ in range(2)]
    for node in nodes:
        node.__dict__.update(_val=224, _parent=size, _metadata=None)
    size.__dict__.update(_content=nodes, _parent=None, _metadata=None)
    content = {"memory_bank": torch.tensor(BANK), "num_neighbors": 9, "input_size": size}
    content |= {"thresould": torch.tensor(1.5), "coreset_sampling_ratio": 0.1}
    torch.save(content, tmp_path / "a.pth")
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    trained = r0.read_pth(tmp_path / "a.pth")
    assert trained.input_size == (224, 224)
    assert trained.threshold == 1.5
    assert (trained.bank == BANK).all()


class Marker:
    """Pickles as a call that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_hostile_pickle_does_nothing(tmp_path: Path) -> None:
    """A pickle that would call a function when loaded is only described."""
    import pickle

    data = pickle.dumps({"a": Marker(tmp_path / "made"), "b": OrderedDict(x=1)}, protocol=4)
    walked = walk_pickle(data, "test")
    assert isinstance(walked, dict)
    assert isinstance(walked["a"], Made)
    assert not (tmp_path / "made").exists()
    pickle.loads(data)
    assert (tmp_path / "made").exists()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """No input crashes the pickle walker."""
    try:
        walk_pickle(b"\x80\x02" + data, "test")
    except FormatError:
        return


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_flipped_bytes_never_crash_the_readers(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    """A checkpoint with one changed byte is read or refused with our error."""
    folder = tmp_path_factory.mktemp("flip")
    r0.write_pth(folder / "a.pth", FULL)
    data = bytearray((folder / "a.pth").read_bytes())
    data[at % len(data)] = value
    (folder / "b.pth").write_bytes(data)
    try:
        read_trained(folder / "b.pth")
    except AdcompileError:
        return


def test_torch_reads_what_we_write_and_we_read_torch(tmp_path: Path) -> None:
    """weights_only loading works on our files; strides, half, bfloat16, empty, 0-d are read."""
    torch = pytest.importorskip("torch")
    write_torch_file(tmp_path / "a.pth", {"x": BANK, "s": np.array(2.0, np.float32), "n": None})
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert (loaded["x"].numpy() == BANK).all()
    assert loaded["s"].shape == ()
    tensors = {
        "t": torch.arange(30.0).reshape(5, 6).t()[1:, :3],
        "h": torch.randn(4).half(),
        "b": torch.randn(4).bfloat16(),
        "e": torch.zeros(0, 3),
        "p": torch.nn.Parameter(torch.randn(2)),
    }
    torch.save(tensors, tmp_path / "b.pth")
    read = read_torch_file(tmp_path / "b.pth")
    assert isinstance(read, dict)
    for name, tensor in tensors.items():
        assert np.array_equal(read[name], tensor.detach().float().numpy()), name


def test_faiss_reads_what_we_write_and_we_read_faiss(tmp_path: Path) -> None:
    """Same bytes as FAISS writes; an inner-product index is refused."""
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(5)
    index.add(BANK)
    faiss.write_index(index, str(tmp_path / "a.index"))
    faiss_flat.write_faiss(tmp_path / "b.index", FULL)
    assert (tmp_path / "a.index").read_bytes() == (tmp_path / "b.index").read_bytes()
    same(FULL, read_trained(tmp_path / "a.index"), ("bank",))
    faiss.write_index(faiss.IndexFlatIP(5), str(tmp_path / "c.index"))
    with pytest.raises(FormatError, match="flat L2"):
        read_trained(tmp_path / "c.index")


@pytest.mark.parametrize("names", [("image_min", "image_max"), ("raw_image_min", "raw_image_max")])
@pytest.mark.parametrize("inverse", ["cov_inv", "inv_cov"])
def test_both_spellings_of_r1(tmp_path: Path, names: tuple[str, str], inverse: str) -> None:
    """meta.json and stats.npz are read under either spelling."""
    meta = {"backbone": "resnet18", "layers": ["layer1"], "n_features": 3, "image_size": 256}
    meta |= {"image_threshold": 0.5, "image_threshold_auto": 8.26, names[0]: 1.0, names[1]: 20.0}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert PADIM.mean is not None
    assert PADIM.inverse is not None
    write_npz(tmp_path / "stats.npz", {"mu": PADIM.mean, inverse: PADIM.inverse})
    trained = r1.read_folder(tmp_path)
    assert (trained.minimum, trained.maximum, trained.threshold) == (1.0, 20.0, 8.26)
    same(PADIM, trained, ("mean", "inverse"))
    assert [f.field for f in findings(trained)] == ["index"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"coreset_ratio": 0}, "coreset_ratio"),
        ({"image_size": "big"}, "image_size"),
        ({"raw_image_min": 3.0, "raw_image_max": 3.0}, "raw_image_max"),
        ({"raw_image_min": 3.0}, "raw_image_min"),
        ({"memory_bank": "../../etc/passwd"}, "memory_bank"),
        ({"typo": 1}, "typo"),
    ],
)
def test_bad_meta_names_the_field(tmp_path: Path, change: dict[str, object], field: str) -> None:
    """Ranges, types, unknown keys and paths that leave the folder are refused by field."""
    meta = {"backbone": "r", "layers": ["l"], "coreset_ratio": 0.1, "image_size": 64}
    (tmp_path / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(FormatError) as caught:
        r1.read_meta(tmp_path / "meta.json")
    assert field in caught.value.where


def test_npz_with_pickles_is_refused(tmp_path: Path) -> None:
    """An object array is never unpickled."""
    np.savez(tmp_path / "a.npz", embeddings=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FormatError, match="pickled"):
        read_trained(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", features=BANK, more=BANK)  # one matrix would be a bank
    with pytest.raises(FormatError, match="no memory bank found in npz"):
        read_trained(tmp_path / "b.npz")


def lightning(state: dict[str, object], **hyper: object) -> dict[str, object]:
    return {"state_dict": state, "hyper_parameters": hyper, "epoch": 0}


def test_anomalib_checkpoints(tmp_path: Path) -> None:
    """PatchCore, PaDiM and EfficientAD checkpoints give bank, statistics, networks and numbers."""
    network = {"model.feature_extractor.conv1.weight": BANK}
    numbers = {
        "post_processor._image_threshold": np.array(4.5, np.float32),
        "post_processor.image_min": np.array(0.5, np.float32),
        "post_processor.image_max": np.array(9.5, np.float32),
        "post_processor.pixel_min": np.array(np.nan, np.float32),
    }
    hyper = {"backbone": "wide_resnet50_2", "layers": ["layer2"], "num_neighbors": 9}
    write_torch_file(
        tmp_path / "p.ckpt", lightning({"model.memory_bank": BANK} | network | numbers, **hyper)
    )
    trained = read_trained(tmp_path / "p.ckpt")
    assert (trained.threshold, trained.minimum, trained.maximum) == (4.5, 0.5, 9.5)
    assert trained.pixel_minimum is None
    assert (trained.backbone, trained.layers, trained.neighbours) == (
        "wide_resnet50_2",
        ("layer2",),
        9,
    )
    assert list(trained.weights) == ["feature_extractor.conv1.weight"]
    assert PADIM.index is not None
    gauss = {"model.gaussian.mean": PADIM.mean, "model.gaussian.inv_covariance": PADIM.inverse}
    write_torch_file(tmp_path / "d.ckpt", lightning(gauss | {"model.idx": PADIM.index}))
    same(PADIM, read_trained(tmp_path / "d.ckpt"), ("mean", "inverse", "index"))
    write_torch_file(tmp_path / "e.ckpt", lightning({"model.student.conv1.weight": BANK}))
    assert read_trained(tmp_path / "e.ckpt").method == "efficientad"
    write_torch_file(tmp_path / "u.ckpt", lightning({"model.other": BANK}))
    with pytest.raises(FormatError, match="no known anomaly model"):
        read_trained(tmp_path / "u.ckpt")
    write_torch_file(tmp_path / "i.ckpt", lightning(gauss))
    with pytest.raises(FormatError, match="incomplete"):
        read_trained(tmp_path / "i.ckpt")


def test_meta_data_json(tmp_path: Path) -> None:
    """R3's meta_data.json: infinite values are left out, the rest comes back."""
    r3.write_meta_data(tmp_path / "meta_data.json", replace(FULL, maximum=float("inf")))
    data = r3.read_meta_data(tmp_path / "meta_data.json")
    assert (data.image_threshold, data.min, data.max) == (3.25, 0.1, None)
    assert detect(tmp_path / "meta_data.json") == "r3-meta"
    again = read_trained(tmp_path / "meta_data.json")
    assert (again.threshold, again.pixel_threshold, again.maximum) == (3.25, 2.5, None)
    (tmp_path / "meta_data.json").write_text('{"image_threshold": 1, "img_max": 2}')
    with pytest.raises(FormatError) as caught:
        read_trained(tmp_path / "meta_data.json")
    assert "img_max" in caught.value.where


def test_command_line_converts_like_r0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two positional arguments: prints the values and "done."; info and check answer; 1 is "no"."""
    r0.write_pth(tmp_path / "a.pth", FULL)
    out = tmp_path / "deep" / "folder" / "b.bin"
    assert main(["bank", "convert", str(tmp_path / "a.pth"), str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "threshold: 3.25"
    assert printed.splitlines()[-1] == "done."
    assert main(["bank", "info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["neighbours"] == 9
    assert main(["bank", "check", str(out), "--columns", "5"]) == 0
    assert main(["bank", "check", str(out), "--columns", "384"]) == 1
    assert "384" in capsys.readouterr().out
    assert main(["bank", "info", str(tmp_path / "none.bin")]) == 2
    assert main(["bank", "convert", str(out), str(tmp_path / "c.xyz")]) == 2


def test_archives_keep_shapes(tmp_path: Path) -> None:
    """A single number stays one, and memory order is no matter."""
    arrays = {"n": np.asarray(2.5), "t": np.arange(6.0).reshape(2, 3).T, "e": np.zeros((0, 4))}
    write_npz(tmp_path / "a.npz", arrays)
    for name, array in read_npz(tmp_path / "a.npz").items():
        assert array.shape == arrays[name].shape
        assert (array == arrays[name]).all()
