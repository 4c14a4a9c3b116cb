"""What the tests share."""

import os

from hypothesis import HealthCheck, settings

# Predictions are the same on every machine, whichever cuDNN is installed; a test that asks one names it.
os.environ["STEPCOST_CUDNN_OF_TESTS"] = os.environ.get("STEPCOST_CUDNN", "")
os.environ["STEPCOST_CUDNN"] = "off"

pytest_plugins = ["pytester"]

# For `tox -e mutants`: the same few examples for each mutant, however slow it makes them.
settings.register_profile(
    "mutants", derandomize=True, max_examples=25, deadline=None, suppress_health_check=[*HealthCheck]
)
