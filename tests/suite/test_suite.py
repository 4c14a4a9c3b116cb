"""The suite as its users run it, through pytester: flags, exit codes, saved files, last lines."""

import json

import pytest

from tests.suite.copied import ENVIRONMENT, copy_suite, saved_run

SMALL = ("--model", "small-cnn", "--device", "cpu", "--batch-sizes", "32,64", "--epochs", "2")


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run a copy of the suite with ``suite(*flags)``, in a process of its own."""
    copy_suite(pytester.path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return lambda *flags: pytester.runpytest_subprocess("benchmarks/", *flags, timeout=300)


def test_whole_run_without_a_gpu(suite, pytester):
    """The main command measures what it can, skips the rest with reasons, saves and answers; no torch."""
    no_torch = "import sys\ndef test_of_the_process():\n    assert 'torch' not in sys.modules\n"
    (pytester.path / "benchmarks" / "test_z.py").write_text(no_torch)
    result = suite(*SMALL, "--benchmark-save=run1", "-rs", "--report")
    outcomes = result.parseoutcomes()
    assert result.ret == 0
    assert not outcomes.keys() & {"failed", "errors", "error"}
    result.stdout.fnmatch_lines(
        [
            "stepcost: no GPU (--device cpu was given)*",
            "stepcost: torch *",
            "stepcost: model small-cnn, *",
            "stepcost: data set digits, 1,000 + 797 images*",
            "SKIPPED*only a GPU can tell: --device cpu was given",
            "*answers*",
            "SGD, batch 64: * of 85.0 GB (*context *), predicted for h100-80gb",
            "report: reports/out/report.html",
            "1a *",
            "2a *predicted*",
            "3b *measured*",
            "3d *measured*",
            "*passed*skipped*",
        ]
    )
    page = (pytester.path / "reports" / "out" / "report.html").read_text()
    assert "small-cnn" in page
    run = saved_run(pytester.path)
    rows = [bench["extra_info"] for bench in run["benchmarks"]]
    assert {row["question"] for row in rows} == {"1a", "2a", "3a", "3b"}
    assert all(row["schema_version"] == 1 and row["timed"] for row in rows)
    assert {row["source"] for row in rows if row["question"] in ("2a", "3a")} == {"predicted"}
    assert {row["source"] for row in rows if row["question"] == "3b"} == {"measured"}
    assert all(len(row["epochs"]) == 2 for row in rows if row["question"] == "3b")
    assert run["machine_info"]["gpu"] is None
    assert run["stepcost"]["settings"]["model"] == "small-cnn"
    assert {skip["reason"] for skip in run["stepcost"]["skipped"]} and not run["stepcost"]["failed"]
    assert run["stepcost"]["costs"]


def test_fault_costs_its_own_row_only(suite, pytester):
    """A model that cannot take the images fails its rows in one line each; the others are saved."""
    (pytester.path / "mine.py").write_text(
        "from torch import nn\n"
        "class Picky(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(3, 10)\n"
        "    def forward(self, x):\n"
        "        if x.shape[0] == 64: raise RuntimeError('no batch of 64')\n"
        "        return self.head(x.mean(dim=(2, 3)))\n"
        "def picky(num_classes): return Picky()\n"
    )
    flags = (
        "--model",
        "mine:picky",
        *SMALL[2:],
        "--benchmark-save=half",
        "-k",
        "step_at_each_batch or footprint",
    )
    result = suite(*flags)
    result.assert_outcomes(passed=2, failed=1, deselected=result.parseoutcomes()["deselected"])
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*no batch of 64*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    run = saved_run(pytester.path)
    assert {bench["extra_info"]["question"] for bench in run["benchmarks"]} == {"1a", "3a"}
    (failed,) = run["stepcost"]["failed"]
    assert "no batch of 64" in failed["message"]


def test_disabled_timing_still_asserts(suite):
    """With --benchmark-disable the relations are asserted and nothing is timed."""
    result = suite(*SMALL, "--benchmark-disable", "-k", "optimizer_memory")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 8


def test_collect_only_measures_nothing(suite):
    """--collect-only lists the questions and starts no child."""
    result = suite(*SMALL, "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_step_at_each_batch_size[[]batch32]"])
    result.stdout.no_fnmatch_line("stepcost: *")
    assert result.duration < 10


def test_model_that_cannot_be_trained_ends_the_run(suite, pytester):
    """A model of the user's own that does not classify what is asked ends the run before the first row."""
    (pytester.path / "mine.py").write_text(
        "from torch import nn\n"
        "def wide(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3072, 1000))\n"
    )
    result = suite("--model", "mine:wide", *SMALL[2:], "--benchmark-save=wide")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: model 'mine:wide' gives float32 of shape (2, 1000) for 2 images *"])
    result.stderr.no_fnmatch_line("*Traceback*")
    assert not list(pytester.path.glob(".benchmarks/*/*.json"))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--model", "resnet512"), "ERROR: unknown model 'resnet512': did you mean resnet152*"),
        (("--optimizers", "adem"), "ERROR: --optimizers: unknown optimizer 'adem'; did you mean adam*"),
        (("--device", "cuda:99"), "ERROR: --device cuda:99: *"),
        (
            ("--engine", "graph", "--device", "cpu"),
            "ERROR: --engine graph needs a GPU: --device cpu was given",
        ),
        (("--model", "sys:exit"), "ERROR: *"),
        (("--report",), "ERROR: --report shows a saved run: add --benchmark-save=NAME"),
        (("--resume",), "ERROR: --resume goes on with a run that is saved: add --benchmark-save=NAME"),
        (("--dataset", "none.npz"), "ERROR: --dataset none.npz: no such file"),
    ],
)
def test_what_does_not_exist_is_one_line(suite, flags, line):
    """A model, device or data set that does not exist ends the run with one line and exit code 4."""
    result = suite(*flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_comparing_names_only_real_differences(suite, pytester):
    """--benchmark-compare names the GPU and the torch that differ, and nothing that is alike."""
    small = (*SMALL, "-k", "footprint")
    suite(*small, "--benchmark-save=base")
    (saved,) = pytester.path.glob(".benchmarks/*/0001_base.json")
    run = json.loads(saved.read_text())
    run["machine_info"] |= {"gpu": "NVIDIA H100", "torch": "2.0"}
    saved.write_text(json.dumps(run))
    other = suite(*small, "--benchmark-compare=0001")
    assert other.ret == 0
    other.stdout.no_fnmatch_line("*machine_info is different*")
    torch, gpu = [line for line in other.outlines if "the run compared with had" in line]
    assert torch.startswith("stepcost: note: the run compared with had torch 2.0, here it is ")
    assert gpu == "stepcost: note: the run compared with had gpu NVIDIA H100, here it is none"


def test_throttled_rows_are_named_at_the_end(suite, pytester):
    """The end of a session names rows whose times were taken while the card was throttled."""
    (pytester.path / "benchmarks" / "test_hot.py").write_text(
        "def test_hot(benchmark, row, session):\n"
        "    clocks = {'throttle_reasons': ['power cap']}\n"
        "    row(question='3a', source='measured', timed='training step', model='m', batch_size=64,\n"
        "        clocks=clocks)\n"
        "    benchmark.pedantic(int)\n"
    )
    result = suite(*SMALL, "-k", "footprint or hot", "--benchmark-json=run.json")
    result.stdout.fnmatch_lines(["stepcost: taken while throttled: 3a, m, batch 64 (power cap)"])
    rows = [
        bench["extra_info"] for bench in json.loads((pytester.path / "run.json").read_text())["benchmarks"]
    ]
    assert {row["question"]: row.get("throttled", "no clocks") for row in rows} == {
        "1a": "no clocks",
        "3a": True,
    }


def test_interrupted_run_keeps_what_it_has(suite, pytester):
    """Ctrl-C in the middle of a benchmark saves the rows measured before it."""
    (pytester.path / "benchmarks" / "test_z_interrupt.py").write_text(
        "def test_interrupt(benchmark):\n"
        "    def interrupt():\n"
        "        raise KeyboardInterrupt\n"
        "    benchmark.pedantic(interrupt)\n"
    )
    result = suite(*SMALL, "--benchmark-save=cut", "-k", "footprint or interrupt")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert [b["extra_info"]["question"] for b in saved_run(pytester.path)["benchmarks"]] == ["1a"]
    result.stdout.fnmatch_lines(["interrupted: 1 row kept; *--resume goes on from here", "1a *measured*"])
    cut_off = {"why": "interrupted", "not_run": 1, "selected": 2}
    assert saved_run(pytester.path)["stepcost"]["cut_off"] == cut_off


def test_a_run_that_stops_at_a_failure_says_so(suite, pytester):
    """With -x the saved run says why it ended and how many tests had no turn; without, it is whole."""
    (pytester.path / "benchmarks" / "test_b_fails.py").write_text(
        "def test_fails(session):\n    assert False\n"
    )
    (pytester.path / "benchmarks" / "test_a_passes.py").write_text(
        "def test_passes(benchmark):\n    benchmark(int)\n"
    )
    chosen = ("-k", "footprint or fails or passes")
    kept = []
    for flags in (("-x",), ()):
        suite(*SMALL, *chosen, *flags, "-p", "no:randomly", "--benchmark-json=run.json")
        kept.append(json.loads((pytester.path / "run.json").read_text())["stepcost"]["cut_off"])
    assert kept == [{"why": "stopping after 1 failures", "not_run": 1, "selected": 3}, None]
