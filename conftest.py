"""Names the fixture modules; nothing else."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.probe",
    "fixtures.engines",
    "fixtures.gpu",
    "fixtures.model",
    "fixtures.data",
    "fixtures.answers",
    "fixtures.gate",
    "fixtures.resume",
]
