"""`images/engine.sh` with the engine of this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "images" / "engine.sh"


@pytest.mark.docker
def test_a_real_engine_gives_one_line(engine):
    environment = {**os.environ, "DOCKER_HOST": engine.url}
    result = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"engine: answers at {engine.url}\n", "")
