"""The rules of the house: who may import whom, and what the pytest process never does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported_by(path):
    """Top-level packages and full names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files(*folders):
    """Python files of some folders, as test parameters."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in found]


@pytest.mark.parametrize("path", files("fixtures/measure", "fixtures/predict", "fixtures/catalog"))
def test_engine_knows_no_pytest(path):
    """The engine, the prediction and the catalog import neither pytest nor the pytest shell."""
    shell = {f"fixtures.{name}" for name in ("options", "probe", "answers", "gate", "gpu", "resume")}
    assert not [name for name in imported_by(path) if name.split(".")[0] == "pytest" or name in shell]


@pytest.mark.parametrize("path", files("reports"))
def test_reports_know_neither_pytest_nor_torch(path):
    """Reports show numbers: they import neither pytest nor torch nor the fixtures."""
    assert not [
        n for n in imported_by(path) if n.split(".")[0] in ("pytest", "torch", "torchvision", "fixtures")
    ]


@pytest.mark.parametrize("path", files("benchmarks"))
def test_benchmarks_reach_the_engine_through_fixtures(path):
    """Benchmarks import no torch: they ask fixtures, and know the names of jobs at most."""
    allowed = {"fixtures.catalog.optimizers", "fixtures.measure", "fixtures.measure.process"}
    ours = [n for n in imported_by(path) if n.split(".")[0] in ("torch", "fixtures", "reports")]
    assert set(ours) <= allowed


def test_conftest_names_modules_and_nothing_else():
    """The root conftest holds a docstring and a list."""
    body = ast.parse((ROOT / "conftest.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr, ast.Assign]


def test_shell_imports_no_torch():
    """The pytest process imports no torch, so it starts fast and cannot initialise CUDA."""
    code = (
        "import sys, conftest\n"
        "for name in conftest.pytest_plugins: __import__(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_server_never_touches_cuda():
    """What the fork server preloads leaves CUDA uninitialised, or no child could use it."""
    code = "import fixtures.measure.preload, torch, sys; sys.exit(torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
