"""How far fresh processes differ on this host: the noise that comparisons of times allow for."""

import pytest


@pytest.mark.usefixtures("gpu")
def test_spread_of_the_eager_step(process_spread):
    """How far apart are the medians of the eager step in five fresh processes? The host decides."""
    assert min(process_spread("eager")["process_medians_s"]) > 0
