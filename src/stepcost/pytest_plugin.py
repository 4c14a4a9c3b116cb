"""For tests in one's own repository: the fixture ``stepcost`` and a gate. Off until a test takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stepcost.cost import Cost


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one flag."""
    parser.getgroup("stepcost", "stepcost: what does a training step cost?").addoption(
        "--stepcost-update",
        action="store_true",
        help="write what the fixture stepcost finds to stepcost-baseline.jsonl, in place of comparing",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what would lose lines."""
    if config.option.stepcost_update and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--stepcost-update writes one file: run it without -n")


class TestedCost:
    """The cost of a step, by the names of ``stepcost.Cost``, with the gate of the test that asked."""

    __test__ = False

    def __init__(self, cost: Cost, test: str, config: pytest.Config) -> None:
        """Take the cost, the name under which the baseline has it, and pytest's configuration."""
        self.cost = cost
        self._test = test
        self._folder = config.rootpath
        self._update: bool = config.option.stepcost_update

    def __getattr__(self, name: str) -> Any:
        """Return what the cost has under that name."""
        return getattr(self.cost, name)

    def __str__(self) -> str:
        """Say the cost in a line."""
        return str(self.cost)

    __repr__ = __str__

    def compare(self) -> None:
        """Fail with what grew since the baseline; with ``--stepcost-update``, write the baseline."""
        from stepcost import baseline  # noqa: PLC0415 (off until used)

        __tracebackhide__ = True
        if self.cost.reading.fits is False:
            pytest.fail(f"{self._test}: {self.cost}", pytrace=False)
        line, file = baseline.line_of(self._test, self.cost), self._folder / baseline.FILE
        try:
            known = baseline.load(file)
        except ValueError as error:
            pytest.fail(str(error), pytrace=False)
        if self._update:
            baseline.save(file, known | {line.key: line})
        elif line.key in known:
            grown = baseline.growth(known[line.key], line)
            if grown:
                pytest.fail(grown, pytrace=False)
        else:
            self._no_line(file.name, [one for one in known.values() if one.test == line.test])

    def _no_line(self, file: str, others: list[Any]) -> None:
        """Fail without a line to compare with; skip where there is one, of another card or source."""
        if not others:
            pytest.fail(f"{file} has no line for {self._test}: --stepcost-update writes it", pytrace=False)
        has = ", ".join(sorted(f"{one.source} for {one.gpu}" for one in others))
        asked = f"{self.cost.reading.source} for {self.cost.gpu}"
        pytest.skip(f"the baseline is {has}, this is {asked}: --stepcost-update adds a line")


@pytest.fixture
def stepcost(request: pytest.FixtureRequest) -> Any:
    """``stepcost(model, make_batch, loss, optimizer=, batch_size=, gpu=)``: what a training step costs.

    Measured on this machine's GPU or, without one, predicted for the card ``gpu`` and ``torch_version``; the
    arguments are those of ``stepcost.predict``. Returns a cost with ``peak_reserved_bytes`` and all other
    figures of a reading, and ``compare()``, which holds it against this test's line in
    ``stepcost-baseline.jsonl``.
    """
    asked = 0

    def ask(
        *arguments: Any, gpu: str | None = None, torch_version: str | None = None, **options: Any
    ) -> TestedCost:
        nonlocal asked
        asked += 1
        import torch  # noqa: PLC0415 (off until used)

        from stepcost.ask import measure, predict  # noqa: PLC0415

        __tracebackhide__ = True
        try:
            if torch.cuda.is_available():
                cost = measure(*arguments, **options)
            elif gpu is None:
                raise ValueError("without a GPU it takes the card to predict for, such as gpu='h100-80gb'")
            else:
                cost = predict(*arguments, gpu=gpu, torch_version=torch_version, **options)
        except ValueError as error:
            pytest.fail(f"stepcost: {error}", pytrace=False)
        name = request.node.nodeid if asked == 1 else f"{request.node.nodeid} #{asked}"
        return TestedCost(cost, name, request.config)

    return ask
