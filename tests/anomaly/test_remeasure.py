"""EfficientAD's quantiles and every detector's threshold, measured again on what was lowered.

The networks here are stand-ins: the "quantized" ones give maps that are the float ones times a
factor, so that the right answer is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.anomaly import ops
from adcompile.anomaly.chain import Chain, RawNames
from adcompile.anomaly.config import EfficientadConfig, PatchcoreConfig
from adcompile.anomaly.images import tensor_of
from adcompile.anomaly.presets import preset
from adcompile.anomaly.recognise.map_sum import MapSum, find_map_sum, with_scales
from adcompile.anomaly.remeasure.images import read_images
from adcompile.anomaly.remeasure.kind import Recipe, Work, part_called
from adcompile.anomaly.remeasure.kinds import Head, find_head
from adcompile.anomaly.remeasure.quantiles import MapQuantiles
from adcompile.anomaly.remeasure.score import check_reachable, with_new_score
from adcompile.anomaly.samples import Sample, from_arrays
from adcompile.check.memory import Memory
from adcompile.contract import Preprocess, Score
from adcompile.errors import InputError, UsageError
from adcompile.interfaces import Array, Part
from adcompile.ir.graph import tensor_spec

SIDE = 8
RAW = RawNames("raw", "map")
SPEC = Preprocess(size=(SIDE, SIDE))
SHAPE = f"float[1, 2, {SIDE}, {SIDE}]"
MAPS = """
  st = adcompile.SquaredErrorMap (teacher, student)
  ae = adcompile.SquaredErrorMap (code, student)
"""
SUBTRACTED = """
  a = Sub (st, low)
  b = Mul (a, five)
  c = Mul (ae, three)
  d = Sub (c, low)
  map = Add (b, d)
"""
DIVIDED = """
  a = Sub (ae, low)
  b = Div (a, five)
  c = Mul (b, half)
  d = Sub (st, low)
  e = Div (d, three)
  f = Mul (half, e)
  map = Add (f, c)
"""
SCORED = """
  flat = Flatten <axis = 1> (map)
  top = ReduceMax <axes = [1], keepdims = 0> (flat)
  raw = Reshape (top, one)
  score = adcompile.NormalizeScore <threshold = 1.0, minimum = 0.0, maximum = 4.0> (raw)
  high = Greater (raw, five)
"""
NUMBERS = {"low": 0.01, "half": 0.5, "three": 3.0, "five": 5.0}


def part(name: str, placement: str, text: str, constants: Sequence[str] = ()) -> Part:
    """A part from the text of its graph."""
    header = '<ir_version: 8, opset_import: ["" : 17, "adcompile" : 1]>\n'
    tensors = [ir.tensor(np.array(NUMBERS[n], np.float32), name=n) for n in constants]
    tensors.append(ir.tensor(np.array([-1], np.int64), name="one"))
    model = ir.from_onnx_text(header + text, initializers=tensors)
    if "one" in model.graph.initializers and not model.graph.initializers["one"].uses():
        del model.graph.initializers["one"]
    ops.add_functions(model)
    graph = model.graph
    specs = ([tensor_spec(v) for v in graph.inputs], [tensor_spec(v) for v in graph.outputs])
    return Part(name, placement, name, model, tuple(specs[0]), tuple(specs[1]))


def network(student: float = 1.0, code: float = 1.0) -> Part:
    """Three outputs of an image; *student* and *code* stretch the two errors."""
    text = f"""net (float[1, 3, {SIDE}, {SIDE}] image)
      => ({SHAPE} teacher, {SHAPE} student, {SHAPE} code) {{
      student = Conv (image, w0)
      t = Conv (image, w1)
      c = Conv (image, w2)
      teacher = Add (student, t)
      code = Add (student, c)
    }}"""
    random = np.random.default_rng(0)
    base = [random.standard_normal((2, 3, 1, 1)).astype(np.float32) for _ in range(3)]
    weights = [base[0], base[1] * np.sqrt(student), base[2] * np.sqrt(code)]
    tensors = [ir.tensor(w.astype(np.float32), name=f"w{i}") for i, w in enumerate(weights)]
    header = '<ir_version: 8, opset_import: ["" : 17]>\n'
    model = ir.from_onnx_text(header + text, initializers=tensors)
    ins, outs = (
        tuple(tensor_spec(v) for v in values)
        for values in (model.graph.inputs, model.graph.outputs)
    )
    return Part("net", "device", "backbone", model, ins, outs)


def head(body: str = SUBTRACTED, more: str = "", outputs: str = "") -> Part:
    """The host part with the sum *body* of both maps."""
    used = [n for n in NUMBERS if n in body + more + SCORED]
    text = f"""head ({SHAPE} teacher, {SHAPE} student, {SHAPE} code)
      => (float[1, 1, {SIDE}, {SIDE}] map, float[1] raw, float[1] score, bool[1] high{outputs}) {{
      {MAPS} {body} {more} {SCORED}
    }}"""
    return part("head", "host", text, used)


def pictures(count: int = 6) -> tuple[Sample, ...]:
    """Random images, 8 x 8."""
    random = np.random.default_rng(1)
    return from_arrays([random.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for _ in range(count)])


def ignore(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def chain(parts: Sequence[Part]) -> Chain:
    """The parts as one detector."""
    reads = ("st", "ae")
    return Chain(parts, parts[0].inputs, parts[-1].outputs, RAW, reads)


def measured(parts: Sequence[Part], samples: tuple[Sample, ...]) -> Part:
    """The head with the quantiles that *parts* have on *samples*."""
    kind = MapQuantiles()
    site = kind.find(parts, RAW)
    assert not isinstance(site, str), site
    assert set(site.reads) == {"st", "ae"}
    recipe = Recipe(EfficientadConfig(), preset("efficientad"))
    with chain(parts) as running:
        owner = part_called(parts, site.part)
        work = Work(running, owner, samples, samples, SPEC, recipe, ignore)
        found = kind.measure(site, work)
    assert len(found.numbers) == 2
    return found.change(part_called(parts, "head"))


def scores(
    parts: Sequence[Part], samples: tuple[Sample, ...]
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Raw scores of the samples."""
    images = np.stack([np.asarray(s.pixels, np.float32).transpose(2, 0, 1) / 255 for s in samples])
    with chain(parts) as running:
        return running(images)[0]  # type: ignore[return-value]


@pytest.mark.parametrize("body", [SUBTRACTED, DIVIDED])
def test_measured_quantiles_undo_what_the_network_does_to_each_map(body: str) -> None:
    """Errors grow 2 and 5 times: the float constants flip decisions, the measured ones none."""
    samples = pictures()
    true = measured([network(), head(body)], samples)
    wanted = scores([network(), true], samples)
    threshold = float(np.median(wanted))
    stale = scores([network(2.0, 5.0), true], samples)
    own = scores([network(2.0, 5.0), measured([network(2.0, 5.0), true], samples)], samples)
    assert ((stale > threshold) != (wanted > threshold)).sum() >= 2, "nothing to repair"
    assert np.allclose(own, wanted, rtol=1e-4, atol=1e-5)
    assert ((own > threshold) == (wanted > threshold)).all()


def test_sabotage_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantiles of the wrong map do not give the same scores: the test above can fail."""
    samples = pictures()
    true = measured([network(), head()], samples)
    wanted = scores([network(), true], samples)

    def swapped(owner: Part, name: str, scales: Sequence[tuple[float, float]]) -> Part:
        return with_scales(owner, name, list(reversed(scales)))

    monkeypatch.setattr("adcompile.anomaly.remeasure.quantiles.with_scales", swapped)
    wrong = scores([network(2.0, 5.0), measured([network(2.0, 5.0), true], samples)], samples)
    assert not np.allclose(wrong, wanted, rtol=1e-2)


def test_other_sums_are_refused_with_a_reason() -> None:
    """A third summand, a negative factor, and a result that does not pass through the sum."""
    found = find_map_sum(head().model, "map")
    assert isinstance(found, MapSum)
    assert [round(m.gain, 6) for m in found.maps] == [5.0, 3.0]
    assert found.maps[0].sources == "student against teacher"

    third = SUBTRACTED.replace(
        "map = Add (b, d)", "e = Add (b, d)\n f = Relu (st)\n map = Add (e, f)"
    )
    assert "no scaled error map" in str(find_map_sum(head(third).model, "map"))
    negative = SUBTRACTED.replace("map = Add (b, d)", "map = Sub (b, d)")
    assert "negative factor" in str(find_map_sum(head(negative).model, "map"))
    around = head(more="aside = Relu (st)", outputs=f", float[1, 1, {SIDE}, {SIDE}] aside")
    assert "aside" in str(find_map_sum(around.model, "map"))
    kept = find_head([network(), around], RAW)
    assert (kept.kind.what, kept.remade) == ("threshold", "threshold")
    assert "aside" in kept.reason
    assert find_map_sum(network().model, "map") == ""


def test_a_new_score_reaches_the_whole_graph() -> None:
    """Normalisation and a comparison of the raw score; a normalisation elsewhere is refused."""
    fields = {"method": "efficientad", "normalisation": "min_max", "minimum": 0.0, "maximum": 4.0}
    old = Score.model_validate({**fields, "threshold": 5.0})
    new = old.model_copy(update={"threshold": 2.0, "minimum": -1.0, "maximum": 7.0})
    before = head()
    changed = with_new_score(before, RAW, old, new)
    samples = pictures()
    node = next(n for n in changed.model.graph if n.op_type == "NormalizeScore")
    assert {n: a.as_float() for n, a in node.attributes.items()} == {
        "threshold": 2.0, "minimum": -1.0, "maximum": 7.0}  # fmt: skip
    greater = next(n for n in changed.model.graph if n.op_type == "Greater")
    limit = greater.inputs[1]
    assert limit is not None
    assert limit.const_value is not None
    assert float(limit.const_value.numpy()) == 2.0
    # "five" also scales a map: that use of the shared constant stays
    assert np.array_equal(
        scores([network(), changed], samples), scores([network(), before], samples)
    )
    with pytest.raises(UsageError, match="not on the host"):
        check_reachable([replace(before, placement="device")], old)


def test_images_are_divided_as_the_fit_divides_them(twill_folder: Path, tmp_path: Path) -> None:
    """The threshold's images are the fit's own validation images; others are judged."""
    from adcompile.anomaly.layouts import read_folder
    from adcompile.anomaly.samples import SplitOptions

    config = PatchcoreConfig(seed=3)
    fitted = read_folder(twill_folder, SplitOptions(seed=3))
    for data, val in ((twill_folder, None), (twill_folder / "train" / "good", twill_folder)):
        found = read_images(data, val, config, 0)
        assert found.train == fitted.train
        assert found.validation == fitted.validation
        assert found.judged == fitted.test
        assert found.others == len(fitted.validation)
        assert found.fresh
        assert all(not s.label for s in found.held)
    alone = read_images(twill_folder / "train" / "good", None, config, 0)
    assert not alone.fresh
    assert alone.others == 0
    assert not set(alone.train) & set(alone.validation)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        read_images(tmp_path / "empty", None, config, 0)


class Counting(Memory):
    """Counts what had to be computed."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.computed = 0

    def keep(self, key: str, outputs: Mapping[str, Array]) -> None:
        """One more."""
        self.computed += 1
        super().keep(key, outputs)


@pytest.mark.parametrize(("limit", "runs"), [(1 << 20, 3), (0, 12)])
def test_a_device_part_runs_once_on_an_image(limit: int, runs: int) -> None:
    """Two chains with other constants behind the same network share what it gave, if there is room."""
    images, memory = pictures(3), Counting(limit)
    given: list[list[float]] = []
    for part_ in (head(), head(DIVIDED)):
        parts = [network(), part_]
        opened = Chain(parts, parts[0].inputs, parts[-1].outputs, RAW, ("st", "ae"), memory)
        with opened as running:
            running.values(images, SPEC, "read", ignore)
        plain = scores(parts, images)
        with Chain(parts, parts[0].inputs, parts[-1].outputs, RAW, ("st", "ae"), memory) as again:
            given.append([float(again(tensor_of(s, SPEC))[0][0]) for s in images])
        assert np.allclose(given[-1], plain)
    assert given[0] != given[1]
    assert memory.computed == runs


def test_a_head_names_what_is_measured() -> None:
    """Words of the note that a build without --data prints."""
    found = find_head([network(), head()], RAW)
    assert isinstance(found, Head)
    assert found.remade == "quantiles and threshold"
    with pytest.raises(UsageError, match="no raw score"):
        find_head([network()], RawNames("nothing", "map"))
