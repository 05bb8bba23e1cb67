"""Fixtures that many tests share. Those that need an engine ask for `engine`; without one they are skipped."""

from __future__ import annotations

import os

import pytest

from runner.errors import EngineError
from runner.sandbox import Engine, connect

pytest_plugins = ["tests.support.tiny_candidates"]


@pytest.fixture(scope="session")
def engine():
    """The engine that answers here."""
    try:
        found: Engine = connect()
    except EngineError as error:
        if os.environ.get("CI"):
            raise  # there, a suite without an engine proves nothing
        pytest.skip(f"no Docker engine: {error.message}; make engine")
    yield found
    found.client.close()
