"""The command line: commands parse, call one function, print. Heavy imports wait until a command needs them.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. People read stderr, programs read stdout (`--json`).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from runner.cli.output import hold_standard_streams, say, stderr
from runner.errors import AutoresearchError, remedy_of

COMMANDS = {
    "doctor": ("machine", "Check this machine and say what to do about each finding."),
    "prepare": ("machine", "Set up engine, base image and data; check what is there."),
    "baseline": ("night", "Measure the unmodified workload."),
    "overnight": ("night", "Run experiments until a budget ends or Ctrl-C."),
    "try": ("night", "Take one patch through the whole pipeline."),
    "status": ("status", "Where the campaign stands."),
    "log": ("status", "Every experiment in one table."),
    "show": ("status", "One experiment: why its verdict, its diff, its runs, its log."),
    "report": ("status", "Write results.tsv and progress.png."),
    "reproduce": ("rerun", "Run a commit's image again and compare the scores."),
    "audit": ("rerun", "Run a commit again and audit its claims."),
    "ablate": ("studies", "Which keeps still matter, and the minimal patch that keeps the gain."),
    "confirm": ("studies", "Confirm an improvement with fresh runs, then on the sealed rows."),
    "calibrate": ("rerun", "Measure this machine's noise with honest runs."),
    "simulate": ("simulate", "Compare keep rules on campaigns whose truth is known."),
    "config": ("machine", "Show every setting with its value."),
    "clean": ("machine", "Remove containers, volumes and candidate images of this repository."),
}
"""Command → module of this package that defines it, and its one-line help (so that help imports nothing)."""


class KilledError(Exception):
    """A command was interrupted. Click would write to a stderr that may be full, and wait for ever."""


class ReaderLeftError(Exception):
    """Nobody reads stdout any more. Click would call that a failure."""


class LazyGroup(click.Group):
    """Imports a command's module when the command runs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise KilledError from error
        except BrokenPipeError as error:
            raise ReaderLeftError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a user's first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"runner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autoresearch-runner", prog_name="autoresearch")
def cli() -> None:
    """A language model edits a training program all night; only proven improvements are kept.

    First day: autoresearch doctor, autoresearch overnight --profile cpu --experiments 8, autoresearch report.
    """


def main() -> None:
    """Run the command line and end the process with its exit code."""
    hold_standard_streams()
    try:
        code = cli.main(standalone_mode=False)
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AutoresearchError as error:
        _end(str(error), error.exit_code)
    except (KilledError, KeyboardInterrupt, click.Abort):
        say("interrupted; nothing is lost, the same command goes on")
        stderr.settle()
        sys.exit(130)
    except (ReaderLeftError, BrokenPipeError):
        _silence_stdout()  # such as `head`
        sys.exit(0)
    except OSError as error:
        _silence_stdout()
        _end(str(AutoresearchError(str(error), remedy_of(error))), 1)


def _end(reason: str, code: int) -> NoReturn:
    say(click.style("error: ", fg="red", bold=True) + reason if stderr.isatty() else f"error: {reason}")
    stderr.settle()
    sys.exit(code)


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
