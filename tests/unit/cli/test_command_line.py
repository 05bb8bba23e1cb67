"""The command line itself: its help imports nothing heavy, and a mistyped command gets a suggestion."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from runner.cli import cli

HEAVY = {"rich", "numpy", "matplotlib", "scipy", "docker", "git", "sqlite3", "pydantic", "structlog", "difflib"}


def test_help_imports_nothing_heavy():
    code = "import sys; from runner.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "overnight" in done.stdout
    assert {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()} & HEAVY == set()


@pytest.mark.parametrize(
    ("typed", "meant"), [("stauts", "status"), ("over-night", "overnight"), ("reprot", "report")]
)
def test_a_mistyped_command_gets_the_closest_name(typed, meant):
    result = CliRunner().invoke(cli, [typed])
    assert result.exit_code == 2
    assert f"There is no command {typed!r}. Did you mean " in result.output and meant in result.output


def test_a_mistyped_option_gets_the_closest_name():
    result = CliRunner().invoke(cli, ["overnight", "--experiment", "3"])
    assert result.exit_code == 2
    assert "Did you mean '--experiments'?" in result.output


def test_a_word_that_is_close_to_no_command_gets_no_suggestion():
    result = CliRunner().invoke(cli, ["xyzzy"])
    assert result.exit_code == 2
    assert "There is no command 'xyzzy'." in result.output and "Did you mean" not in result.output
