"""Names the fixture modules; nothing else."""

pytest_plugins = [
    "fixtures.suite",
    "fixtures.options",
    "fixtures.session",
    "fixtures.rows",
    "fixtures.memory",
    "fixtures.training",
    "fixtures.searching",
    "fixtures.engines",
    "fixtures.savers",
    "fixtures.parallel",
    "fixtures.cards",
    "fixtures.instrument",
]
