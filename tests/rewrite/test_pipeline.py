"""Options, pipelines, instruments: text round trips, repetition, checks, errors that name names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.errors import PassError, UsageError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.passes.dead_code import DeadCode
from adcompile.passes.fold_constants import FoldConstants
from adcompile.passes.specialize import Specialize
from adcompile.passes.subsampling import MaxPool1x1As3x3
from adcompile.rewrite.canonical import CANONICAL, canonical
from adcompile.rewrite.instruments import Dump, Hits, Timing, Verify
from adcompile.rewrite.options import Reader, make_pass, print_pass, read_options
from adcompile.rewrite.pipeline import ROUNDS, Group, Pipeline, find_pass, known_passes
from tests.rewrite.build import feeds, model, ops

RELU = "g (float[2] x) => (float[2] y) { y = Relu(x) }"


@dataclass(frozen=True)
class Every(Pass):
    """A pass with an option of every kind."""

    name: ClassVar[str] = "every"
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    text: str = ""
    texts: tuple[str, ...] = ()
    numbers: tuple[int, ...] = (1, 2)

    def run(self, model: ir.Model, report: Report) -> bool:
        return False


@given(
    st.builds(
        Every,
        flag=st.booleans(),
        count=st.integers(),
        ratio=st.floats(allow_nan=False),
        text=st.text(),
        texts=st.lists(st.text(), max_size=3).map(tuple),
        numbers=st.lists(st.integers(), max_size=3).map(tuple),
    )
)
def test_options_survive_text(each: Every) -> None:
    """parse(print(pass)) is the pass, whatever the values."""
    text = print_pass(each)
    reader = Reader(text)
    assert reader.word("name") == "every"
    assert make_pass(Every, read_options(reader)) == each
    assert reader.position == len(text)


def test_defaults_are_not_printed() -> None:
    """Only what differs from the default is shown."""
    assert print_pass(Every()) == "every"
    assert print_pass(Every(count=3, texts=("a b",))) == 'every{count=3,texts=["a b"]}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dead-code{", "expected an option name"),
        ("dead-code,,dead-code", "expected a pass name"),
        ("(dead-code)", "expected '*'"),
        ("()*", "at least one pass"),
        ("((dead-code)*)*", "no other group"),
        ("fold-constants{limit=1,limit=2}", "given twice"),
        ("fold-constants{limit=1 limit=2}", "expected ','"),
        ("dead-code dead-code", "expected ','"),
        ('"dead-code', "expected a pass name"),
        ("specialize{shapes=[a b]}", "expected ','"),
    ],
)
def test_bad_text(text: str, why: str) -> None:
    """A pipeline that cannot be read says where and what was expected."""
    with pytest.raises(UsageError) as error:
        Pipeline.parse(text)
    assert why in error.value.why
    assert "position" in error.value.where


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("fold-constant", "unknown pass 'fold-constant'", "fold-constants"),
        ("fold-constants{limits=1}", "has no option 'limits'", "limit"),
        ("fold-constants{limit=much}", "'much' is not int", ""),
        ("fold-constants{limit=[1]}", "expected one value", ""),
        ("specialize{shapes=x}", "expected a list", ""),
        ("specialize{static=yes}", "'yes' is not bool", ""),
        ("adcompile.errors:UsageError", "is not a pass", ""),
        ("no.such.module:X", "no such module", ""),
    ],
)
def test_bad_names_and_values(text: str, what: str, fix: str) -> None:
    """Unknown passes, options and values are UsageErrors, with a suggestion where there is one."""
    with pytest.raises(UsageError) as error:
        Pipeline.parse(text)
    assert what in error.value.what
    assert fix in error.value.fix


def test_pipelines_survive_text() -> None:
    """Groups, options and names round-trip; the canonical text is what canonical() prints."""
    text = 'dead-code,(fold-constants{limit=5},dead-code)*,specialize{shapes=["a b:1x2"]}'
    assert str(Pipeline.parse(text)) == text
    assert str(canonical()) == CANONICAL
    parsed = Pipeline.parse(" dead-code , ( dead-code ) * ")
    assert parsed.passes == (DeadCode(), Group((DeadCode(),)))
    assert list(parsed.names()) == ["dead-code", "dead-code"]
    assert str(parsed + Pipeline((FoldConstants(),))) == "dead-code,(dead-code)*,fold-constants"


def test_every_registered_pass_has_its_own_name_and_a_summary() -> None:
    """The table's names are the classes' names, and each says what it does."""
    for name, kind in known_passes().items():
        assert kind.name == name
        assert kind.summary
        assert find_pass(name) is kind


@dataclass(frozen=True)
class CountDown(Pass):
    """Removes one Relu per run."""

    name: ClassVar[str] = "count-down"

    def run(self, model: ir.Model, report: Report) -> bool:
        relus = [n for n in model.graph if n.op_type == "Relu"]
        if len(relus) < 2:
            return False
        relus[0].outputs[0].replace_all_uses_with(relus[0].inputs[0])
        model.graph.remove(relus[0], safe=True)
        return True


def chain(length: int) -> ir.Model:
    steps = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(length))
    return model(f"g (float[2] v0) => (float[2] y) {{ {steps} y = Relu(v{length}) }}")


def test_groups_repeat_until_nothing_changes() -> None:
    """A group runs as often as needed, and says so when it had to be stopped."""
    m, report, timing = chain(4), Report(), Timing()
    assert Pipeline((Group((CountDown(), DeadCode())),)).run(m, report, [timing])
    assert ops(m) == ["Relu"]
    assert timing.runs["count-down"] == 5
    long, report = chain(ROUNDS + 5), Report()
    Pipeline((Group((CountDown(),)),)).run(long, report)
    assert "still changed the model" in report.notes[0]


def test_approximate_passes_need_permission() -> None:
    """An approximate pass named in a pipeline is an error without --allow."""
    text = (
        "g (float[1,2,4,4] x) => (float[?,?,?,?] y) "
        "{ y = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x) }"
    )
    pipeline = Pipeline((MaxPool1x1As3x3(),))
    with pytest.raises(UsageError) as error:
        pipeline.run(model(text), Report())
    assert error.value.fix == "allow it with --allow maxpool-1x1-as-3x3"
    m = model(text)
    report = Report(allowed=frozenset({"maxpool-1x1-as-3x3"}))
    pipeline.run(m, report)
    assert report.rewrites[0].exactness == "approximate"


def test_a_failing_pass_is_named() -> None:
    """A bug in a pass becomes a PassError that says which pass."""

    @dataclass(frozen=True)
    class Broken(Pass):
        name: ClassVar[str] = "broken"

        def run(self, model: ir.Model, report: Report) -> bool:
            raise KeyError("oops")

    with pytest.raises(PassError, match="pass broken failed") as error:
        Pipeline((Broken(),)).run(model(RELU), Report())
    assert "KeyError" in error.value.why


def test_a_pass_without_run() -> None:
    """Pass itself says that run() is missing."""
    with pytest.raises(TypeError, match="does not define run"):
        Pass().run(model(RELU), Report())


def test_dump_before_and_after() -> None:
    """The text of the graph is handed out around the named pass only."""
    seen: list[tuple[str, str]] = []
    dump = Dump(lambda title, text: seen.append((title, text)), ["count-down"], ["dead-code"])
    Pipeline((CountDown(), DeadCode())).run(chain(1), Report(), [dump])
    assert [title for title, _ in seen] == ["before count-down", "after dead-code"]
    assert seen[0][1].count("Relu") == 2
    assert seen[1][1].count("Relu") == 1


def test_hits_counts_rules() -> None:
    """Most frequent first."""
    report = Report()
    for rule in ("b", "a", "b"):
        report.applied(rule, "n")
    assert list(Hits(report).counts().items()) == [("b", 2), ("a", 1)]


def _silent(m: ir.Model) -> bool:
    m.graph[0].attributes["oops"] = ir.AttrInt64("oops", 1)
    return False


def _duplicate(m: ir.Model) -> bool:
    m.graph[0].outputs[0].name = "x"
    return True


def _dangling(m: ir.Model) -> bool:
    m.graph[0].replace_input_with(0, ir.Value(name="nowhere"))
    return True


def _unknown_operator(m: ir.Model) -> bool:
    m.graph[0].op_type = "Rellu"
    return True


def _wrong_result(m: ir.Model) -> bool:
    m.graph[0].op_type = "Abs"
    return True


def _renamed_output(m: ir.Model) -> bool:
    m.graph.outputs[0].name = "z"
    return True


def _reader_left_behind(m: ir.Model) -> bool:
    ir.Node("", "Neg", [m.graph[0].outputs[0]])
    return True


SABOTAGE = [
    (_reader_left_behind, "left a reader of 'y' behind"),
    (_silent, "says it did not"),
    (_duplicate, "two values called 'x'|invalid model"),
    (_dangling, "invalid model"),
    (_unknown_operator, "invalid model"),
    (_wrong_result, "changed the result 'y'"),
    (_renamed_output, "changed the result 'y'"),
]


@pytest.mark.parametrize(("act", "message"), SABOTAGE)
def test_verify_finds_sabotage(act, message: str) -> None:
    """Checks after each pass catch what a bad pass can do, and name the pass."""

    @dataclass(frozen=True)
    class Bad(Pass):
        name: ClassVar[str] = "bad"

        def run(self, model: ir.Model, report: Report) -> bool:
            return act(model)

    m = model(RELU)
    with pytest.raises(PassError, match=message) as error:
        Pipeline((Bad(),)).run(m, Report(), [Verify([{"x": np.asarray([-1, 2], np.float32)}])])
    assert "bad" in error.value.what


def test_verify_lets_good_passes_through() -> None:
    """An honest pipeline passes; approximate passes end the comparison of results."""
    m = chain(3)
    Pipeline((CountDown(), DeadCode())).run(m, Report(), [Verify([feeds(m)])])

    @dataclass(frozen=True)
    class Other(Pass):
        name: ClassVar[str] = "other"
        exactness: ClassVar[Exactness] = Exactness.APPROXIMATE

        def run(self, model: ir.Model, report: Report) -> bool:
            model.graph[0].op_type = "Abs"
            return True

    report = Report(allowed=frozenset({"other"}))
    Pipeline((Other(), DeadCode())).run(m, report, [Verify([feeds(m)])])


def test_a_pass_from_a_file(tmp_path: Path) -> None:
    """FILE.py:Name is a pass like any other, options included."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from adcompile import Pass\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Pass):\n"
        "    name: ClassVar[str] = 'mine'\n"
        "    times: int = 1\n"
        "    def run(self, model, report):\n"
        "        report.note(f'ran {self.times}')\n"
        "        return False\n"
    )
    report = Report()
    Pipeline.parse(f'"{file}:Mine"{{times=2}}').run(model(RELU), report)
    assert report.notes == ["ran 2"]
    with pytest.raises(UsageError, match="no 'Other'"):
        Pipeline.parse(f'"{file}:Other"')
    with pytest.raises(UsageError, match="no such file"):
        Pipeline.parse(f'"{tmp_path}/none.py:Other"')


def test_specialize_prints_its_shapes() -> None:
    """The shapes a user gave are in the recorded pipeline text."""
    each = Specialize(shapes=("image:1x3x8x8",))
    assert print_pass(each) == "specialize{shapes=[image:1x3x8x8]}"
    assert Pipeline.parse(print_pass(each)).passes == (each,)
