"""Options after -O: every name is known or refused, every value is read or refused, before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adcompile.backends.drpai.options import read_options as drpai_options
from adcompile.backends.trt.options import read_options as trt_options
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import UsageError
from adcompile.interfaces import LowerContext, Report
from adcompile.place.targets import resolve_target
from tests.compile.models import cnn

QUICK = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)


def context(target: str, options: dict[str, str]) -> LowerContext:
    return LowerContext(resolve_target(target), "fp16", None, [], Path(), options, Report())


@pytest.mark.parametrize("target", ["cpu", "trt", "npu", "drpai"])
def test_a_name_that_no_table_has_is_refused(target: str, tmp_path: Path) -> None:
    """A slip would change nothing and be seen on the board at best; the nearest name is said."""
    wrong = replace(QUICK, backend_options={"min_mac": "5"})
    with pytest.raises(UsageError, match="min_macs"):
        compile(cnn(), target, tmp_path / "b", wrong)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("trt:orin-nx", {"workspace_mib": "2G"}, "whole number"),
        ("trt:orin-nx", {"workspace_mib": "0"}, "whole number"),
        ("trt:orin-nx", {"opt_level": "6"}, "0 to 5"),
        ("trt:orin-nx@8.5", {"opt_level": "3"}, "no optimization levels"),
        ("trt:rtx-ada", {"opt_level": "3"}, "no optimization levels"),
        ("trt:rtx-ada", {"dla_core": "0"}, "has no DLA"),
        ("trt:orin-nano", {"dla_core": "0"}, "has no DLA"),
        ("trt:orin-nx", {"dla_core": "7"}, "1 DLA cores"),
        ("trt:orin-nx", {"rows": "5,1,9"}, "smallest first"),
        ("trt:orin-nx", {"camera": "480x640"}, "no option"),
        ("drpai:v2h", {"camera": "480"}, "height and width"),
        ("drpai:v2h", {"camera": "480x6400"}, "3 to 4096"),
        ("drpai:v2h", {"drpai_cpu_data_type": "int8"}, "float16 or float32"),
        ("drpai:v2h", {"opt_level": "3"}, "no option"),
    ],
)
def test_values_are_read_or_refused(target: str, options: dict[str, str], words: str) -> None:
    """What chip or version do not have is said as well as what cannot be read."""
    read = trt_options if target.startswith("trt") else drpai_options
    with pytest.raises(UsageError) as error:
        read(context(target, options))
    assert words in str(error.value)


def test_what_is_read() -> None:
    """Numbers, and the defaults of the vendors' samples."""
    wishes = trt_options(context("trt:orin-nx", {"workspace_mib": "512", "opt_level": "5"}))
    assert (wishes.workspace_mib, wishes.opt_level, wishes.rows) == (512, 5, (1, 100, 1000))
    assert drpai_options(context("drpai:v2h", {})).camera == (480, 640)
    assert drpai_options(context("drpai:v2h", {"camera": "1080x1920"})).camera == (1080, 1920)


def test_the_tables_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a user looks for a name: all families, or one."""
    assert main(["list", "options", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["target"] for row in rows} == {"cpu", "trt", "npu", "drpai"}
    assert main(["list", "options", "-t", "trt:orin-nx"]) == 0
    shown = capsys.readouterr().out
    assert "opt_level" in shown
    assert "camera" not in shown
