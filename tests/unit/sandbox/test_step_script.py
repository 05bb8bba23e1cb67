"""`images/step.sh`: one line before a step and one after it; foreign output only when the step fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "images" / "step.sh"


def run(tmp_path, command):
    """Run a shell command as a step; returns its result and the text of the log."""
    log = tmp_path / "logs" / "setup.log"
    result = subprocess.run(
        [SCRIPT, log, "installing things (about 2 seconds)", "sh", "-c", command],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return result, log.read_text()


def test_a_step_says_what_it_does_and_how_long_it_took(tmp_path):
    result, log = run(tmp_path, "echo WARNING: noise; echo more noise >&2")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"installing things \(about 2 seconds\)\n… done in \d+ s\n", result.stdout)
    assert "WARNING: noise" in log and "more noise" in log


def test_a_step_that_fails_shows_the_end_of_its_output_and_keeps_its_status(tmp_path):
    result, log = run(tmp_path, "seq 40; echo 'no space left'; exit 3")
    assert result.returncode == 3
    assert "no space left" in result.stderr and "\n12\n" not in result.stderr
    assert "error: installing things failed after" in result.stderr
    assert f"→ less {tmp_path}/logs/setup.log" in result.stderr
    assert "\n12\n" in log
