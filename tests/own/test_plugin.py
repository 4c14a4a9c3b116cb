"""The plugin in a repository of one's own: the example of the documents, green and red."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo  # torch cannot be imported twice: all of it before what forgets imports
import torchvision

import stepcost.ask

__all__ = ["stepcost", "torchvision"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example"


@pytest.fixture
def repository(pytester, monkeypatch):
    """A copy of the example; ``repository(*flags)`` runs its tests without a GPU."""
    shutil.copytree(EXAMPLE, pytester.path, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(*flags):
        found = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", *flags)
        return SimpleNamespace(returncode=found.ret, stdout=found.stdout.str())

    run.folder = pytester.path
    return run


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_example_is_green_and_a_wider_layer_red(repository):
    """As committed it passes; 5 in place of 4 times the width grows up and down, and no other module."""
    found = repository()
    assert found.returncode == 0, found.stdout
    change(repository.folder / "train.py", "4 * width", "5 * width")
    found = repository()
    assert found.returncode == 1
    assert "parameter_bytes: 3,135,488 -> 3,661,824 (+526,336; allowed: exact" in found.stdout
    assert "blocks.*.up x 4, parameters: +264,192" in found.stdout  # 4 x (128 x 128 + 128) x 4 bytes
    assert "blocks.*.down x 4, parameters: +262,144" in found.stdout
    assert "head, parameters" not in found.stdout
    assert "Traceback" not in found.stdout


def test_a_tensor_that_is_kept_is_red_until_the_baseline_is_written(repository):
    """A loss kept each step is a block of 512 bytes; --stepcost-update takes it in."""
    train = repository.folder / "train.py"
    change(
        train, "    words, following = batch\n", "    words, following = batch\n    KEPT.append(words + 0)\n"
    )
    train.write_text(train.read_text() + "\n\nKEPT = []\n")
    found = repository()
    assert found.returncode == 1
    assert "leaked_bytes: 0 -> 32,768 (+32,768; allowed: exact" in found.stdout  # 64 x 64 int64
    assert repository("--stepcost-update").returncode == 0
    assert repository().returncode == 0
    assert len((repository.folder / "stepcost-baseline.jsonl").read_text().splitlines()) == 1


def test_what_has_no_line_is_said(repository):
    """No line: red, with the flag that writes it. A line of another card: skipped, with the reason."""
    test = repository.folder / "tests" / "test_cost.py"
    change(test, "h100-80gb", "h200-141gb")
    found = repository()
    assert found.returncode == 0
    assert (
        "baseline is predicted for NVIDIA H100 80GB HBM3, this is predicted for NVIDIA H200" in found.stdout
    )
    (repository.folder / "stepcost-baseline.jsonl").unlink()
    found = repository()
    assert found.returncode == 1
    assert "has no line for tests/test_cost.py::test_a_step_fits_and_does_not_grow" in found.stdout
    assert "--stepcost-update" in found.stdout


def test_wrong_use_is_one_line(repository):
    """No card to predict for; a step that cannot be traced; a broken baseline."""
    test = repository.folder / "tests" / "test_cost.py"
    whole = test.read_text()
    change(test, 'gpu="h100-80gb", ', "")
    found = repository()
    assert "stepcost: without a GPU it takes the card to predict for, such as gpu='h100-80gb'" in found.stdout
    test.write_text(whole.replace("Model()", "Model(width='wide')"))
    assert repository().returncode == 1
    test.write_text(whole.replace("make_batch, loss", "make_batch, make_batch"))
    found = repository()
    assert found.returncode == 1
    assert "stepcost: Model with batch size 64 cannot be traced" in found.stdout
    test.write_text(whole)
    (repository.folder / "stepcost-baseline.jsonl").write_text("{\n")
    found = repository()
    assert found.returncode == 1
    assert "stepcost-baseline.jsonl, line 1:" in found.stdout
    assert "Traceback" not in found.stdout


def test_a_session_without_it_starts_without_it(tmp_path):
    """A test that does not take the fixture: neither torch nor the library's calls are imported."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    assert 'torch' not in sys.modules\n"
        "    ours = {n for n in sys.modules if n.startswith('stepcost')}\n"
        "    assert ours == {'stepcost', 'stepcost.pytest_plugin'}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", str(tmp_path)]
    found = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_wheel_runs_the_example(tmp_path, monkeypatch):
    """Installed from a wheel into an environment of its own, not from this source."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    wheels, environment = tmp_path / "wheels", tmp_path / "environment"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(wheels),
        str(ROOT),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    [wheel] = wheels.glob("*.whl")
    install = [str(python), "-m", "pip", "--quiet", "install", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # What it depends on is taken from here: 5 GB need not be installed twice.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    [site] = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in packages))
    where = [str(python), "-c", "import stepcost; print(stepcost.__file__)"]
    there = subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert there.startswith(str(environment))
    shutil.copytree(EXAMPLE, tmp_path / "example")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(run, check=False, capture_output=True, text=True, cwd=tmp_path / "example")
    assert found.returncode == 0, found.stdout
    assert "1 passed" in found.stdout
