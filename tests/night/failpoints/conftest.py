"""A night that runs until it ends or dies, and one that nothing interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import scripted_night
from tests.support.failpoint_nights import NightResult, make_repository, whole_night


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Run the night of a folder until it ends, or dies where `item` says; no temporary file may outlive it."""
    scratch = tmp_path_factory.mktemp("scratch")
    command = [sys.executable, scripted_night.__file__]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def one(root, **item):
            process.stdin.write(json.dumps({"root": str(root), "item": item}) + "\n")
            process.stdin.flush()
            end = json.loads(process.stdout.readline())["end"]
            reached = [tuple(line.split()) for line in root.with_name("reached").read_text().splitlines()]
            assert list(scratch.iterdir()) == []
            return NightResult(end, reached, root.with_name("errors").read_text())

        yield one
        process.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(night, tmp_path_factory):
    """The points of a night without a crash, and its final state."""
    return whole_night(night, make_repository(tmp_path_factory.mktemp("whole") / "repository"))
