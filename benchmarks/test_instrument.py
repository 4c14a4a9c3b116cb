"""What measuring itself costs: the process border, starting a configuration, and whether faults show."""

import pytest

pytestmark = pytest.mark.instrument
FAULT_SHOWS = 0.9
"""A fault shows where the busy share falls below this share of what it was."""
SPREAD_SHARE_MAX = 0.02
"""Largest difference between the medians of a captured step in fresh processes, as a share of them."""
BORDER_SHARE_MAX = 0.01
"""What the border may add to a step of the model that is measured."""


def test_process_border(process_border, session):
    """What does the pipe between the processes add to a training step?"""
    found = process_border()
    if session.on_gpu:
        assert found["border_share"] < BORDER_SHARE_MAX


@pytest.mark.usefixtures("gpu")
def test_spread_of_the_study_step(process_spread, session):
    """Are the medians of the step that questions 3b to 3d take the same in five fresh processes?"""
    if session.study_engine == "eager":
        pytest.skip("the eager step is the host's, whose spread is read and not asserted")
    assert process_spread(session.study_engine)["spread_share"] <= SPREAD_SHARE_MAX


def test_start_of_a_configuration(starts):
    """How much faster is a warm fork server than a fresh interpreter, from request to first step?"""
    found = starts()
    if found["warm_start_s"]:
        assert found["warm_start_s"] < found["fresh_start_s"]


@pytest.mark.usefixtures("gpu")
def test_busy_share_shows_faults(busy_shares):
    """Does the busy share of the study's step fall when it copies its batch from the host?

    The shares of an eager step, with a host that waits after every layer and without, are read alongside:
    the host decides them.
    """
    shares = busy_shares()
    assert shares["study with copy"] < FAULT_SHOWS * shares["study"]
