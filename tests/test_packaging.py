"""What a user installs is what we develop."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked(*places: str) -> list[str]:
    """The files of the checkout that git knows and that are there."""
    listed = subprocess.run(
        ["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [name for name in listed if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel, built from a copy: setuptools leaves a folder ``build`` behind, and takes
    what it finds there into the next wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("adcompile", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(out),
            str(source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_source_and_data_file(wheel: list[str]) -> None:
    """A file that development sees and the wheel lacks would fail only at the user's."""
    assert [name for name in tracked("adcompile") if name not in wheel] == []


def test_the_wheel_holds_nothing_else(wheel: list[str]) -> None:
    """Neither tests nor the links at the top are shipped."""
    strangers = [n for n in wheel if not n.startswith(("adcompile/", "adcompile-"))]
    assert strangers == []


def test_top_level_links_point_into_the_package() -> None:
    """The owner's folder names are visible at the top and are the package's own code."""
    for name in ("backends", "passes", "templates"):
        link = ROOT / name
        assert link.is_symlink()
        assert link.resolve() == (ROOT / "adcompile" / name).resolve()


@pytest.mark.parametrize("name", ["backends", "passes", "templates"])
def test_the_links_refuse_to_be_a_second_copy(name: str) -> None:
    """`import backends` from the checkout would load every class twice."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"import adcompile.{name}" in done.stderr


def test_importing_adcompile_is_cheap() -> None:
    """`import adcompile` loads neither the IR nor ONNX Runtime nor numpy."""
    code = (
        "import adcompile, sys;"
        "print([m for m in ('onnx_ir', 'onnxruntime', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_does_not_load_the_compiler() -> None:
    """`adcompile --help` answers without importing the IR."""
    code = (
        "import sys; from adcompile.cli import main; main(['--help']);"
        "sys.exit(any(m in sys.modules for m in ('onnx_ir', 'onnxruntime', 'torch')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )


def test_public_names_resolve() -> None:
    """Everything in __all__ exists."""
    import adcompile

    assert [n for n in adcompile.__all__ if getattr(adcompile, n, None) is None] == []


def test_console_script_is_declared() -> None:
    """The installed command is called adcompile."""
    found = [e.value for e in entry_points(group="console_scripts") if e.name == "adcompile"]
    assert found == ["adcompile.cli:entry"]
