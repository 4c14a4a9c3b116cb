"""The rules of the house: who may import whom, and what the pytest process never does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "src" / "stepcost"
MAY_IMPORT = {  # room, or a module at the top that stands above the rooms; the others are the ground
    "catalog": {"catalog"},
    "ground": {"ground", "catalog"},
    "allocator": {"allocator", "ground", "catalog"},
    "measuring": {"measuring", "allocator", "ground", "catalog"},
    "predicting": {"predicting", "allocator", "ground", "catalog"},
    "report": {"report", "ground", "catalog"},
    "session": {"session", "measuring", "ground", "catalog"},
    "package": {"ask", "ground"},  # stepcost itself: a door
    "baseline": {"report", "ground", "catalog"},
    "pytest_plugin": {"ask", "baseline", "ground"},
    "ask": {"measuring", "predicting", "ground", "catalog"},
    "about": {"session", "ground", "catalog"},
    "cli": {"cli", "measuring", "predicting", "report", "ground", "catalog"},
}


def imported_by(path, tree=None):
    """Full names of what a file imports, anywhere in it: of ``from package import module`` the module too."""
    for node in ast.walk(tree or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = [*path.relative_to(ROOT).parts[: -node.level]] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])]).removeprefix("src.")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(*folders):
    """Python files of some folders, as test parameters."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in found]


def room_of(name):
    """The room of a module of the library, such as ``measuring`` for ``stepcost.measuring.nvml``."""
    first = name.split(".")[1] if "." in name else ""
    return {"__main__": "cli", "__init__": "package"}.get(first, first if first in MAY_IMPORT else "ground")


def tops(path):
    """Top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported_by(path)}


def test_names_taken_from_a_package_are_seen(tmp_path, monkeypatch):
    """``from package import module`` and relative imports count as imports of the module."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "src" / "stepcost" / "report").mkdir(parents=True)
    path = tmp_path / "src" / "stepcost" / "report" / "some.py"
    path.write_text("from stepcost import predicting\nfrom ..measuring import nvml\n")
    assert {"stepcost.predicting", "stepcost.measuring.nvml"} <= set(imported_by(path))


@pytest.mark.parametrize("path", files("src/stepcost"))
def test_arrows_run_one_way(path):
    """A room of the library imports only rooms below it; measuring and predicting do not meet."""
    own = room_of(".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts))
    ours = {room_of(name) for name in imported_by(path) if name.startswith("stepcost.")}
    assert ours <= MAY_IMPORT[own], f"a file of {own!r} imports {sorted(ours - MAY_IMPORT[own])}"


@pytest.mark.parametrize("path", files("src/stepcost"))
def test_library_knows_no_pytest(path):
    """The library imports neither pytest (but for its plugin) nor what stands above it."""
    outside = {"_pytest", "fixtures", "benchmarks", "tests", "experiments"}
    assert not tops(path) & (outside if path.name == "pytest_plugin.py" else outside | {"pytest"})


@pytest.mark.parametrize("path", files("src/stepcost/report"))
def test_reports_need_no_torch(path):
    """Reports show numbers: they import no torch, so that a saved run can be read without it."""
    assert not tops(path) & {"torch", "torchvision"}


@pytest.mark.parametrize("path", files("benchmarks"))
def test_benchmarks_ask_fixtures(path):
    """Benchmarks ask and assert: of the library they know the catalog alone, and no child's job."""
    ours = [n for n in imported_by(path) if n.split(".")[0] in ("torch", "fixtures", "stepcost")]
    assert not [name for name in ours if not name.startswith("stepcost.catalog")]


@pytest.mark.parametrize("path", files("fixtures"))
def test_fixtures_are_a_shell(path):
    """Fixtures import no torch, and reach children through the session alone."""
    names = set(imported_by(path))
    assert not {name.split(".")[0] for name in names} & {"torch", "torchvision"}
    assert not [name for name in names if name.startswith(("stepcost.measuring", "stepcost.predicting"))]


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
    code = "import stepcost.measuring.preload, torch, sys; sys.exit(torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
