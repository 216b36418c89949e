"""Who may import whom, checked on the source text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "adcompile"
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module named by an import statement anywhere in the file, TYPE_CHECKING blocks aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(x) for x in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


IMPORTS = {module_name(f): imports(f) for f in FILES}


def offenders(who: str, banned: tuple[str, ...]) -> list[str]:
    """`module imports banned` lines for every module whose name starts with *who*."""
    return [
        f"{module} imports {name}"
        for module, names in sorted(IMPORTS.items())
        if module == who or module.startswith(who + ".")
        for name in sorted(names)
        if any(name == b or name.startswith(b + ".") for b in banned)
    ]


RULES = [
    ("adcompile.ir", ("adcompile.rewrite", "adcompile.passes", "adcompile.place")),
    ("adcompile.ir", ("adcompile.backends", "adcompile.compiler", "adcompile.cli")),
    ("adcompile.rewrite", ("adcompile.backends", "adcompile.compiler", "adcompile.cli")),
    ("adcompile.rewrite", ("adcompile.passes", "adcompile.place", "adcompile.lower")),
    ("adcompile.passes", ("adcompile.backends", "adcompile.compiler", "adcompile.cli")),
    ("adcompile.place", ("adcompile.backends", "adcompile.compiler", "adcompile.cli")),
    ("adcompile.place", ("adcompile.passes", "adcompile.lower", "adcompile.check")),
    ("adcompile.lower", ("adcompile.backends", "adcompile.compiler", "adcompile.cli")),
    ("adcompile.check", ("adcompile.compiler", "adcompile.cli")),
    ("adcompile.backends", ("adcompile.compiler", "adcompile.cli")),
    (
        "adcompile.runtime",
        ("adcompile.compiler", "adcompile.cli", "adcompile.ir", "onnx_ir", "onnx"),
    ),
    (
        "adcompile.interfaces",
        tuple(f"adcompile.{n}" for n in ["rewrite", "passes", "place", "lower", "check", "steps"]),
    ),
    ("adcompile.manifest", ("adcompile.ir", "onnx_ir", "onnx")),
    ("adcompile.contract", ("adcompile.ir", "onnx_ir", "onnx")),
]


@pytest.mark.parametrize(("who", "banned"), RULES)
def test_layers_import_downwards_only(who: str, banned: tuple[str, ...]) -> None:
    """A lower layer never imports an upper one."""
    assert offenders(who, banned) == []


@pytest.mark.parametrize("family", ["cpu", "host", "trt", "npu", "drpai"])
def test_a_backend_never_imports_another(family: str) -> None:
    """Families stay separate: what they share lives above them."""
    others = tuple(
        f"adcompile.backends.{o}" for o in ("cpu", "host", "trt", "npu", "drpai") if o != family
    )
    assert offenders(f"adcompile.backends.{family}", others) == []


@pytest.mark.parametrize("family", ["cpu", "trt", "npu", "drpai"])
def test_executors_do_not_need_the_compiler(family: str) -> None:
    """A board that only runs bundles imports no IR."""
    banned = ("adcompile.ir", "adcompile.compiler", "adcompile.lower", "onnx_ir", "onnx")
    assert offenders(f"adcompile.backends.{family}.executor", banned) == []


def test_only_the_command_line_prints() -> None:
    """Library code returns values; it never writes to the terminal."""
    printing = [
        f"{module_name(path)}:{node.lineno}"
        for path in FILES
        if "cli" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit"}
    ]
    assert printing == []


def test_files_stay_readable() -> None:
    """No source file of the package is longer than 400 lines."""
    long = {
        str(p.relative_to(ROOT)): n
        for p in FILES
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_the_flow_in_the_readme_is_that_of_the_compiler() -> None:
    """Every step of the picture is called by ``compile`` under a name that holds it, in this order."""
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    picture = text.partition("## The flow")[2].split("```")[1]
    steps = re.findall(r"[│┐┘▼]  ([a-z]+) (?! *│)", picture)
    assert steps[0] == "load"
    assert steps.pop() == "run"  # what comes after the build
    tree = ast.parse((ROOT / "compiler.py").read_text(encoding="utf-8"))
    body = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    calls = [node for node in ast.walk(body) if isinstance(node, ast.Call)]
    called = [ast.unparse(c.func) for c in sorted(calls, key=lambda c: (c.lineno, c.col_offset))]
    place = 0
    for step in steps:
        found = [i for i, name in enumerate(called) if step in name.split("_") and i >= place]
        assert found, f"compile() calls no step {step!r} at this point"
        place = found[0]
