"""Names the fixture modules; nothing else."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.probe",
    "fixtures.gpu",
    "fixtures.model",
    "fixtures.data",
    "fixtures.answers",
    "fixtures.gate",
]
