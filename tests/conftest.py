"""What the tests share."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# For `tox -e mutants`: the same few examples for each mutant, however slow it makes them.
settings.register_profile(
    "mutants", derandomize=True, max_examples=25, deadline=None, suppress_health_check=[*HealthCheck]
)
