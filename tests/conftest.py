"""Fixtures that many tests share. Those that need an engine ask for `engine`; without one they are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import EngineError
from runner.sandbox import Engine, connect

pytest_plugins = ["tiny_candidates"]

ZOO = Path(__file__).parent / "zoo"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The zoo first: it keeps one worker busy for long, and the other one has all the rest meanwhile."""
    items.sort(key=lambda item: not item.path.is_relative_to(ZOO))


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
