"""The command line: commands parse, call one function, print. Heavy imports wait until a command needs them.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. Progress goes to stderr, results to stdout (`--json`).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from runner.cli.output import hold_standard_streams, say, stderr
from runner.errors import AutoresearchError, remedy_of

COMMANDS = {
    "demo": ("demo", "Take a tour: every verdict once, from real trainings."),
    "doctor": ("machine", "Check this machine, with a remedy for each problem."),
    "prepare": ("machine", "Build the base image and prepare the data, if missing."),
    "baseline": ("night", "Measure the unmodified workload and its noise."),
    "overnight": ("night", "Run experiments until a budget is used up or Ctrl-C."),
    "try": ("night", "Run one patch through the whole pipeline."),
    "status": ("status", "Show where the campaign stands."),
    "log": ("status", "List all experiments in one table."),
    "show": ("status", "Explain one experiment: reason, runs, diff, and log."),
    "report": ("status", "Write results.tsv, progress.png, and other reports."),
    "reproduce": ("rerun", "Rerun a commit's image and compare the scores."),
    "audit": ("rerun", "Rerun a commit and audit its claims."),
    "ablate": ("studies", "Find the keeps that still matter; write a minimal patch."),
    "confirm": ("studies", "Confirm an improvement with fresh runs and sealed rows."),
    "calibrate": ("rerun", "Measure this machine's noise with honest runs."),
    "simulate": ("simulate", "Compare keep rules on synthetic campaigns."),
    "adopt": ("adopt", "Turn a trainer of your own into a workload."),
    "check-workload": ("adopt", "Check a workload against the contract."),
    "config": ("machine", "Show every setting with its value."),
    "clean": ("machine", "Remove the containers and images of this repository."),
}
"""Command → the module of this package that defines it, and its one-line help, so that help imports nothing."""


class KilledError(Exception):
    """A command was interrupted. Click would write to stderr, which may be full, and block."""


class ReaderLeftError(Exception):
    """The reader of stdout is gone. Click would call that a failure."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command runs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise KilledError from error
        except BrokenPipeError as error:
            raise ReaderLeftError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all commands, in the order of a user's first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"runner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or suggest the closest names."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autoresearch-runner", prog_name="autoresearch")
def cli() -> None:
    """Let a language model edit a training program all night, and keep only verified improvements.

    First day: autoresearch demo, autoresearch report, autoresearch doctor, autoresearch overnight.
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
        say("interrupted; nothing is lost, run the same command to resume")
        stderr.settle()
        sys.exit(130)
    except (ReaderLeftError, BrokenPipeError):
        _silence_stdout()  # a reader such as `head`
        sys.exit(0)
    except OSError as error:
        _silence_stdout()
        _end(str(AutoresearchError(str(error), remedy_of(error))), 1)
    finally:
        if "SUDO_UID" in os.environ:
            _give_back()


def _give_back() -> None:
    """Leave nothing of root's in the clone of the person who typed sudo."""
    from runner.storage.ownership import give_to_caller
    from runner.storage.repository import Repository

    with suppress(AutoresearchError, OSError):
        give_to_caller(Repository(Path.cwd()).root)


def _end(reason: str, code: int) -> NoReturn:
    say(click.style("error: ", fg="red", bold=True) + reason if stderr.isatty() else f"error: {reason}")
    stderr.settle()
    sys.exit(code)


def _silence_stdout() -> None:
    """Discard the interpreter's last flush."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
