"""DRP-AI bundle: scripts that run against a stand-in for the SDK, and the reference comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.drpai.backend import DrpaiBackend
from adcompile.backends.drpai.preprocessing import express
from adcompile.contract import CONTRACT_KEY, IMAGENET_MEAN, IMAGENET_STD, Contract, Preprocess
from adcompile.errors import UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part, Report
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import opset, tensor_spec
from adcompile.ir.model_io import load_model
from adcompile.manifest import PartRecord
from adcompile.place.targets import resolve_target
from tests.lower.networks import residual, samples

STEPS = Preprocess(size=(16, 16), mean=IMAGENET_MEAN, std=IMAGENET_STD)

# a package "tvm" that records how it was called and computes with ONNX Runtime
FAKE_TVM = """
import json, os, numpy as np, onnxruntime
LOG = os.environ["FAKE_LOG"]
def log(**what):
    with open(LOG, "a") as stream:
        stream.write(json.dumps(what) + "\\n")
class Array:
    def __init__(self, a): self.a = a
    def asnumpy(self): return self.a
class Module:
    def __init__(self): self.s = onnxruntime.InferenceSession("model.onnx"); self.f = {}
    def set_input(self, *a, **k):
        if a: self.f[self.s.get_inputs()[a[0]].name] = a[1]
    def run(self): self.out = self.s.run(None, self.f); log(run=True)
    def get_num_outputs(self): return len(self.s.get_outputs())
    def get_output(self, i): return Array(self.out[i])
"""


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, PartRecord]:
    model = residual()
    model.metadata_props[CONTRACT_KEY] = Contract(inputs={"x": STEPS}).dump()
    part = Part(
        "backbone", "device", "backbone", model,
        tuple(tensor_spec(v) for v in model.graph.inputs),
        tuple(tensor_spec(v) for v in model.graph.outputs),
    )  # fmt: skip
    data = samples(model, 3)
    golden = [(feeds, evaluate(model, feeds)) for feeds in list(data)[:2]]
    ctx = LowerContext(resolve_target("drpai:v2h"), "int8", data, golden, tmp_path, {}, Report())
    backend, out = DrpaiBackend(), FileSet()
    record = backend.emit(part, backend.lower(part, ctx), ctx, out)
    folder = tmp_path / "bundle"
    folder.mkdir()
    out.write_into(folder)
    return folder / "parts" / "backbone", record


def test_the_folder_is_complete(bundle: tuple[Path, PartRecord]) -> None:
    """Static float model of a fitting opset, calibration and reference as raw float32."""
    folder, _ = bundle
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {"model.onnx", "model.int8.onnx", "config.json", "compile.py", "run.sh"} <= names
    assert {"compare.py", "preprocess.json", "README.md", "calib/0002_0.bin"} <= names
    assert opset(load_model(folder / "model.onnx")) <= 15
    assert (folder / "calib/0000_0.bin").stat().st_size == 4 * 3 * 16 * 16
    assert (folder / "reference/1/output_0.bin").is_file()


def environment(folder: Path, fake: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TVM_ROOT": str(fake), "SDK": str(fake / "sdk"), "TRANSLATOR": f"{fake}/",
        "QUANTIZER": f"{fake}/", "PRODUCT": "V2H", "PYTHONPATH": str(fake),
        "FAKE_LOG": str(folder / "log"),
    }  # fmt: skip


def fake_sdk(root: Path) -> Path:
    fake = root / "fake"
    drp = (
        "import json, os\nfrom tvm import Module, log\n"
        "def build(mod, params, where, settings, output_dir, disable_concat, cpu_data_type):\n"
        "    log(target=settings['target'], where=where)\n"
        "    os.makedirs(output_dir, exist_ok=True)\n"
        "    if where == 'arm': open(output_dir + '/deploy.so', 'w').write('lib')\n"
        "    return 'graph', {}, 'lib'\n"
    )
    files = {
        "tvm/__init__.py": FAKE_TVM,
        "tvm/relay/__init__.py": "from tvm.relay import frontend\n",
        "tvm/relay/frontend.py": "def from_onnx(model, shapes): return 'mod', {}\n",
        "tvm/relay/mera/__init__.py": "",
        "tvm/relay/mera/drp.py": drp,
        "tvm/runtime.py": "def load_module(p): return p\ndef cpu(): return 0\n",
        "tvm/contrib/__init__.py": "",
        "tvm/contrib/graph_executor.py": "from tvm import Module\n"
        "def create(g, l, c): return Module()\n",
        "drpai_preprocess/__init__.py": "",
        "drpai_preprocess/op.py": "class Resize:\n    BILINEAR = 1\n    def __init__(s, *a): pass\n"
        "class Normalize:\n    def __init__(s, add, mul): assert len(add) == len(mul) == 3\n",
        "drpai_preprocess/drpai_param.py": "class FORMAT: BGR = RGB = 0\n"
        "class ORDER: HWC = CHW = 0\nclass TYPE: UINT8 = FP32 = 0\n",
        "drpai_preprocess/preruntime.py": "class Config: pass\n"
        "def PreRuntime(config, folder, product): assert config.shape_in[3] == 3\n",
        "sdk/sysroots/x": "",
        "tutorials/x": "",
    }
    for name, text in files.items():
        path = fake / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return fake


def test_run_sh_compiles_with_a_stand_in_for_the_sdk(
    bundle: tuple[Path, PartRecord], tmp_path: Path
) -> None:
    """Recorder on every calibration sample, int8 interpreter, device build, comparison: exit 0. What was
    written is listed with its hashes."""
    folder, _ = bundle
    variables = environment(folder, fake_sdk(tmp_path))
    done = subprocess.run(
        ["sh", str(folder / "run.sh")], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    log = (folder / "log").read_text()
    order = [t for t in ("Fp32DataRecorder", "InterpreterQuant", "DrpAiQuant") if t in log]
    assert order == ["Fp32DataRecorder", "InterpreterQuant", "DrpAiQuant"]
    assert log.count('"run"') == 3 + 2
    assert "relative error" in done.stdout
    package = json.loads((folder / "compiled" / "compiled.json").read_text())
    assert (package["part"], package["product"], package["layout"]) == ("backbone", "V2H", "MERA1")
    assert {"deploy.so", "interpreter/0/output_0.bin"} <= set(package["files"])
    check = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder / "compiled", check=False).returncode == 0
    (folder / "compiled" / "deploy.so").write_text("lid")
    found = subprocess.run(check, cwd=folder / "compiled", capture_output=True, check=False)
    assert found.returncode == 1


@pytest.mark.parametrize("name", ["TVM_ROOT", "SDK", "TRANSLATOR", "QUANTIZER", "PRODUCT"])
def test_run_sh_says_what_is_missing(
    bundle: tuple[Path, PartRecord], tmp_path: Path, name: str
) -> None:
    """One readable line and exit code 3."""
    folder, _ = bundle
    variables = environment(folder, fake_sdk(tmp_path))
    del variables[name]
    done = subprocess.run(
        ["sh", str(folder / "run.sh")], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith(f"{name} is not set")) == (3, True)


def test_compare_notices_wrong_results(bundle: tuple[Path, PartRecord], tmp_path: Path) -> None:
    """float16 results pass; noise does not."""
    folder, _ = bundle
    good, bad = tmp_path / "good", tmp_path / "bad"
    for source in sorted((folder / "reference").rglob("output_*.bin")):
        values = np.fromfile(source, "<f4")
        for place, array in ((good, values.astype("<f2")), (bad, np.zeros_like(values))):
            target = place / source.parent.name / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            array.tofile(target)
    for place, code in ((good, 0), (bad, 1)):
        done = subprocess.run(
            [sys.executable, "compare.py", "config.json", "compiled", str(place)],
            cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_preprocessing_follows_the_contract() -> None:
    """(x + cof_add) * cof_mul equals (x * scale - mean) / std."""
    plan = express(STEPS, 480, 640)
    normalize = plan["ops"][-1]  # type: ignore[index]
    pixels = np.array([0.0, 17.0, 255.0])
    for add, mul, mean, std in zip(
        normalize["cof_add"], normalize["cof_mul"], IMAGENET_MEAN, IMAGENET_STD, strict=True
    ):
        np.testing.assert_allclose((pixels + add) * mul, (pixels / 255 - mean) / std, atol=1e-6)


def test_int8_needs_calibration(tmp_path: Path) -> None:
    """Without data the vendor's script would use random numbers: refused here."""
    model = residual()
    part = Part("p", "device", "backbone", model, (), ())
    ctx = LowerContext(resolve_target("drpai:v2h"), "int8", None, [], tmp_path, {}, Report())
    with pytest.raises(UsageError, match="calibration"):
        DrpaiBackend().lower(part, ctx)


@pytest.mark.parametrize(("target", "scripts"), [("drpai:v2h", False), ("drpai:v2l", True)])
def test_a_float_part_is_compiled_only_where_the_chip_has_a_float_format(
    tmp_path: Path, target: str, scripts: bool
) -> None:
    """V2H computes in int8 alone: no script that must fail on the SDK, and a sentence instead."""
    _, record, out, report = emitted(target, "fp32", tmp_path)
    assert ("run" in record.files) == scripts
    assert bool(out.actions) == scripts
    assert any("int8 only" in note for note in report.notes) != scripts
    assert any("computes in float16" in note for note in report.notes) == scripts
    assert ("sh run.sh" in out.text(record.files["readme"])) == scripts


def test_nodes_in_float_are_not_promised_for_the_board(tmp_path: Path) -> None:
    """The vendor's quantizer takes no list of nodes: build and readme say so."""
    model, record, out, report = emitted("drpai:v2h", "int8", tmp_path, float_nodes="n_c2")
    assert "n_c2" in {node.name for node in model.graph}
    assert any("--pin NODE=host" in note for note in report.notes)
    assert "`n_c2`" in out.text(record.files["readme"])


def emitted(
    target: str, precision: str, work: Path, **options: str
) -> tuple[ir.Model, PartRecord, FileSet, Report]:
    model = residual()
    part = Part(
        "backbone", "device", "backbone", model,
        tuple(tensor_spec(v) for v in model.graph.inputs),
        tuple(tensor_spec(v) for v in model.graph.outputs),
    )  # fmt: skip
    data, report, out = samples(model, 2), Report(), FileSet()
    ctx = LowerContext(resolve_target(target), precision, data, [], work, options, report)
    backend = DrpaiBackend()
    return model, backend.emit(part, backend.lower(part, ctx), ctx, out), out, report
