"""Fixtures and options of all tests: the option `--full`, one core per worker, short pauses, and the engine.

Tests that need an engine ask for `engine`; without one they are skipped.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from runner.errors import EngineError
from runner.sandbox import Engine, connect
from tests.support import replicates, short_pauses

pytest_plugins = ["tests.support.tiny_candidates"]

CORES = sorted(os.sched_getaffinity(0))


def pytest_addoption(parser):
    """`make test-full` gives it."""
    parser.addoption(
        "--full",
        action="store_true",
        help="ten times the replicates, the tests marked `full` too, and every candidate on the real torch",
    )


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(config, items):
    """Mark what needs an engine, and leave out what only `make test-full` runs."""
    for item in items:
        if "engine" in item.fixturenames:
            item.add_marker("docker")
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(tryfirst=True)  # another one runs the tests
def pytest_runtestloop():
    """Spare the garbage collector what lives until the end: a test that collects would scan it for 0.2 s."""
    gc.enable()
    gc.freeze()


def pytest_configure(config):
    """Shorten pauses, count replicates, and give each worker of xdist a core of its own.

    A container runs on the last core that its controller may use. So the containers of two workers never share a
    core, and their clocks do not depend on what the other worker does.
    """
    gc.disable()  # until the tests are collected
    short_pauses.shorten()
    # A caller in the background ignores these, and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    replicates.full = config.getoption("--full")
    settings.register_profile("ours", deadline=None, max_examples=replicates.replicates(100))
    settings.load_profile("ours")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        os.sched_setaffinity(0, {CORES[int(worker.removeprefix("gw")) % len(CORES)]})


@pytest.fixture
def all_cores():
    """Every core of the machine, for a test of what happens between two of them."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture
def tmp_path_on_disk():
    """A folder that is not in memory, as `tmp_path` is with `make`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


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
