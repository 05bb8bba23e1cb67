"""Nights without containers that a test can stop at any step."""

from __future__ import annotations

import pytest

from tests.support.host_night import Night


@pytest.fixture
def night(tmp_path):
    """A repository for one night without containers."""
    one = Night(tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The final state of such a night when nothing befell it."""
    one = Night(tmp_path_factory.mktemp("whole"))
    ended = one.run()
    assert ended.code == 0, ended.errors
    state = one.final_state()
    one.close()
    verdicts = [row["verdict"] for row in state["experiments"]]
    assert verdicts == ["keep", "discard", "accept", "keep", "crash"]
    assert [cost for _, cost in state["money"]] == [0.25, 0.25, 0.25]
    return state
