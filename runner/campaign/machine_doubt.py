"""A machine that breaks in the middle of a night, such as a GPU that is lost or a driver that is replaced.

Every program crashes then, each with the same message. So after a few such crashes of different ideas the tip is
measured again, which has run before: where it crashes too, the ideas are not to blame.

Not covered: a machine on which programs crash in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.tip_control import run_control
from runner.errors import EngineError, without_figures
from runner.records import Experiment, Outcome, Verdict
from runner.untrusted import one_line

log = structlog.get_logger()

MAX_ALIKE = 3
"""Ideas in a row that crash with one message before the tip is measured again."""


def refuse_broken_machine(campaign: Campaign) -> None:
    """Measure the tip again after crashes that are alike, unless it has run since.

    Raises:
        EngineError: it crashed as well. The verdicts of these crashes are infra now.
    """
    alike = _crashes_alike(campaign.experiments)
    if len({one.retry_of or one.number for one in alike}) < MAX_ALIKE:
        return
    tip = campaign.tip
    if any(
        trial.outcome is Outcome.SCORED and trial.opened_seq > alike[0].closed_seq for trial in tip.control_trials
    ):
        return
    campaign.observer.note(f"{len(alike)} experiments in a row crashed alike: is it the machine?")
    trial = run_control(campaign)
    if trial.outcome is not Outcome.CRASH:
        return
    again = f"the tip, experiment {tip.number}, crashed as well: {trial.reason}"
    campaign.ledger.excuse(campaign.tag, {one.number: f"{again}; was a crash: {one.reason}" for one in alike})
    for one in alike:
        campaign.reload(one.number)
    log.warning("crashes_excused", experiments=[one.number for one in alike], reason=trial.reason)
    raise EngineError(
        f"the machine fails, not the ideas: {len(alike)} experiments crashed alike, and {again}",
        "autoresearch doctor, then start again: nothing is lost",
    )


def _crashes_alike(experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """The crashes with one message that the closed experiments end with."""
    alike: list[Experiment] = []
    for one in reversed(experiments):
        if one.verdict is None:
            continue
        if one.verdict is not Verdict.CRASH or (alike and _message(one) != _message(alike[0])):
            break
        alike.append(one)
    return tuple(reversed(alike))


def _message(crash: Experiment) -> str:
    """The end of a crash, without figures. Untrusted text: a message that lies costs one control."""
    return without_figures(f"{crash.reason} {one_line(crash.log_tail.rstrip().rpartition(chr(10))[2])}")
