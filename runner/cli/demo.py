"""The command demo: a tour that shows every verdict once, shown as it happens."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.night import open_night, write_night_reports

if TYPE_CHECKING:
    from rich.text import Text

    from runner.campaign.campaign import Controller
    from runner.proposers.tour import Tour, TourProposer
    from runner.records import Experiment
    from runner.report.tour import TourStop

NARROWEST, WIDEST = 60, 96
STYLES = {
    "KEPT": "bold green", "ACCEPTED": "green", "DISCARDED": "yellow", "ROLLED BACK": "yellow", "UNCLEAR": "yellow",
    "CRASHED": "bold red", "REFUSED": "bold magenta",
}  # fmt: skip


@click.command("demo")
@click.option("--tag", default="demo", show_default=True, help="Name of the campaign.")
@click.option(
    "--experiments",
    type=click.IntRange(0),
    help="Experiments of the offline proposer after the tour (default: 2, at a later start 8).",
)
@click.option(
    "--since",
    type=float,
    help="Uptime of the machine in seconds when the setup began, to tell its share of the time.",
)
def demo_command(tag: str, experiments: int | None, since: float | None) -> None:
    """Take a tour of a few minutes on the CPU, without a key: every verdict once, from real trainings.

    An interrupted tour resumes where it was. After its end, each start lets the offline proposer go on.
    """
    from runner.campaign import tour as tours
    from runner.proposers.tour import FOLDER, Tour, TourProposer
    from runner.storage.repository import Repository

    began = since or _uptime_seconds()
    root = Repository(Path.cwd()).root
    tour = Tour.read(root / FOLDER)
    settings: dict[str, Any] = {**tour.settings, "profile": "cpu", "tag": tag, "proposer": "optuna"}
    with open_night(verdicts=False, **settings) as (controller, stop):
        guide, story = TourProposer(tour), Story(controller, tour)
        set_up_seconds = _uptime_seconds() - began
        story.introduce(guide)
        try:
            tours.run(story.heard_by(controller), guide, stop, experiments)
        finally:
            *_, picture = write_night_reports(controller)
        lines = story.closing()
    click.echo("\n".join([*lines, _times(_uptime_seconds() - began, set_up_seconds)]))
    again = f"make demo{'' if tag == 'demo' else f' TAG={tag}'}"
    if stop.requested:
        click.echo(f"\nStopped; nothing is lost: {again} continues.")
    else:
        click.echo("\n".join(_next_steps(tag, tour.your_turn.relative_to(root), picture.relative_to(root), again)))


class Story:
    """An observer that tells the tour, and passes progress on to the one that was there before."""

    def __init__(self, controller: Controller, tour: Tour) -> None:
        from runner.cli.display import result_writer

        self._controller, self._tour, self._inner = controller, tour, controller.observer
        self._print = result_writer(controller.observer)
        self._width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))

    def heard_by(self, controller: Controller) -> Controller:
        """Return the same controller with the story as its observer."""
        return replace(controller, observer=self, evaluator=replace(controller.evaluator, observer=self))

    def introduce(self, guide: TourProposer) -> None:
        """Say what will happen, and what the ledger already has."""
        experiments = self._experiments()
        config = self._controller.config
        seconds, needed = config.train_seconds, config.accept_probability
        text = (
            f"A tour of {len(self._tour.stops)} stops. At each one, an edit of a small GPT (workload/) is trained "
            f"from scratch for {seconds:g} seconds in a container without a network, and scored in bits per byte "
            "(bpb) of text that training never sees: lower is better. An edit that is better with a probability "
            f"of {needed:.0%}, and whose audit confirms its numbers, is accepted onto the tip. At the end, a "
            "certificate measures the tip against the champion again, under new seeds: only that is kept, as a "
            "commit. The edits are packed; every number is measured now."
        )
        if experiments:
            known = f"autoresearch log --tag {config.tag}"
            is_over = guide.is_over(experiments)
            text = (
                f"The tour was taken before ({known}). The offline proposer continues where it was."
                if is_over
                else f"The tour resumes where it was interrupted ({known})."
            )
        self._tell(["", *textwrap.wrap(text, self._width)])

    def closing(self) -> list[str]:
        """Sum up all experiments, and show the newest kept commit."""
        from runner.report.summary import counted
        from runner.report.tour import overview

        stops = [self._tour_stop(one) for one in self._experiments()[1:] if one.verdict is not None]
        lines = ["", *overview(stops, self._width)] if stops else []
        kept = [one.experiment for one in stops if one.experiment.kept_commit]
        if kept:
            commit = kept[0].kept_commit or ""
            message = self._controller.repository.message(commit).rstrip().split("\n")
            lines += [
                "",
                f"$ git log {self._controller.branch}    ({counted(len(kept), 'kept commit')}; the first:)",
            ]
            lines += [f"commit {commit}", *(f"  {line}"[: self._width].rstrip() for line in message)]
        return [*lines, ""]

    # ---------------------------------------------------------------- observer

    def note(self, message: str) -> None:
        """Pass it on."""
        self._inner.note(message)

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """Pass it on."""
        self._inner.begin(tag, done, target, ends_at)

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Pass it on."""
        self._inner.phase(number, name, seconds)

    def line(self, text: str) -> None:
        """Pass it on."""
        self._inner.line(text)

    def opened(self, experiment: Experiment) -> None:
        """Tell what is tried."""
        from runner.report.tour import opening

        self._tell(opening(self._tour_stop(experiment), self._width))

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """Tell what came of it."""
        from runner.report.tour import baseline_story, ending

        self._inner.closed(experiment, best_bpb)
        stop = self._tour_stop(experiment)
        self._tell(ending(stop, self._width) if experiment.number else baseline_story(experiment, self._width))
        self._tell(self._disturbed(experiment))

    # ----------------------------------------------------------------- details

    def _experiments(self) -> tuple[Experiment, ...]:
        return self._controller.ledger.experiments(self._controller.config.tag)

    def _disturbed(self, experiment: Experiment) -> list[str]:
        """Say that a busy machine has a part in a number; where it is never quiet, the last attempt counts."""
        from runner.evaluation.contention import others_share

        config = self._controller.config
        trainings = [one.training for one in experiment.trials if one.val_bpb is not None]
        share = max((others_share(one, config.cpus) or 0.0 for one in trainings if one), default=0.0)
        if share <= config.max_disturbance:
            return []
        text = (
            f"the machine was busy: other programs used {share:.0%} of the candidate's cores while it trained, as "
            "in the attempts before. Its number says little about the edit."
        )
        return textwrap.wrap(text, self._width, initial_indent="Note      ", subsequent_indent=" " * 10)

    def _tour_stop(self, experiment: Experiment) -> TourStop:
        from runner.report.tour import TourStop

        champion = next((one for one in self._experiments() if one.number == experiment.champion), None)
        found = self._tour.stop_of(experiment)
        number, stop = (0, None) if found is None else found
        repairs = stop is not None and experiment.retry_of is not None
        title = "the offline proposer" if stop is None else f"{number} of {len(self._tour.stops)}: {stop.title}"
        title = "the certificate" if experiment.is_certificate else title
        title += " (second try)" if repairs else ""
        return TourStop(
            experiment=experiment,
            champion=champion,
            title=title,
            meant=None if stop is None or repairs else stop.meant,
            changes_nothing=stop is not None and stop.until_lucky,
            needed=self._controller.config.accept_probability,
        )

    def _tell(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._print(_styled(line))


def _styled(line: str) -> Text:
    from rich.text import Text

    text = Text(line)
    if line.startswith("── "):
        text.stylize("bold")
    for word, style in STYLES.items():
        text.highlight_words([word], style)
    content = line[10:]
    if content.startswith(("+ ", "- ")):
        text.stylize("green" if content[0] == "+" else "red", 10)
    return text


def _times(seconds: float, set_up_seconds: float) -> str:
    from runner.cli.display import clock

    share = set_up_seconds / max(seconds, 1.0)
    return f"It took {clock(seconds)}, {clock(set_up_seconds)} of it ({share:.0%}) to set up the machine."


def _next_steps(tag: str, patch: Path, picture: Path, again: str) -> list[str]:
    program = sys.argv[0] if not sys.argv[0].endswith("__main__.py") else "python -m runner"
    return [
        "",
        "Next:",
        f"  {program} try {patch} --tag {tag}",
        "      takes one more edit the same way; git diff writes your own",
        f"  {program} report --tag {tag}",
        f"      says what was really found; picture: {picture.parent}/",
        "  make overnight",
        "      a real night: with an NVIDIA GPU and ANTHROPIC_API_KEY, else like this one",
        f"({again} lets the offline proposer go on.)",
    ]


def _uptime_seconds() -> float:
    """The clock of /proc/uptime, which `make` reads."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
