"""Smoke test of a submission: it trains for a few seconds, on a spare core and without a GPU, and is then scored.

Small sizes (those of the profile `cpu`) and the training data of one seed, in the same sandbox as every candidate.
What it published is loaded and asked in another container, as scoring and audits do it, but about random tokens
(`scored_check.py`). A program that passes may still fail at full size; one that fails here would fail there. When
the engine itself fails, the submission passes, and its experiment decides.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from runner.config import Config
from runner.errors import AutoresearchError, Interrupted
from runner.evaluation.evaluator import Evaluator
from runner.evaluation.scored_check import NOTHING_PUBLISHED, Problem, asking, place_in, problem_of
from runner.records import Files, Phase, RunEnd, RunRecord
from runner.sandbox import Engine, images
from runner.sandbox.containers import Sandbox, create_output_volume, discard, remove_volume
from runner.sandbox.reservation import choose_cores, spare_cores
from runner.sandbox.responder import Question, Responder, open_responder
from runner.sandbox.session import start_up_seconds
from runner.sandbox.supervision import POLL_SECONDS
from runner.sandbox.training import Callbacks, Training, train
from runner.untrusted import clean

log = structlog.get_logger()

SEED = 1
LOG_LINES = 50
PATIENCE = 4
"""A program that published nothing before its deadline is run again with so many times the seconds: a core may
be slow, and the first step of a large context long."""
ROOM = 4
"""Checkpoints may be so many times as large as allowed, so that the size of one that is too large is reported."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of a short training, and what is wrong with the program."""

    training: RunRecord
    problem: Problem | None


class _Smoke(NamedTuple):
    """Inputs of one smoke test."""

    evaluator: Evaluator
    config: Config  # small sizes, one spare core
    image_id: str
    number: int
    abandon: Callable[[], None]


def check(evaluator: Evaluator, files: Files, number: int, leaving: Callable[[], bool]) -> str:
    """Run files for a moment; return why they fail, with the end of their log, or an empty string.

    Args:
        number: of the experiment that they may become, for labels.
        leaving: whether the controller is about to exit; the run is then abandoned.

    Raises:
        Interrupted: it was abandoned.
    """
    measured = evaluator.config
    small = {"profile": "cpu", "tier": "none", "train_seconds": measured.smoke_seconds, "cpus": 1, "gpu": None}
    cores = (spare_cores(measured) or choose_cores(measured))[-1:]
    config = measured.model_copy(update={**small, "cores": cores})
    try:
        checked = examine(evaluator, files, number, config, leaving)
    except Interrupted:
        raise
    except AutoresearchError as error:
        log.warning("check_failed", experiment=number, reason=error.message)
        return ""
    run, problem = checked.training, checked.problem
    log.info("checked", experiment=number, end=run.end, seconds=run.wall_seconds)
    if problem is None:
        return ""
    where = "" if problem.place is None else f"; see {problem.place}"
    tail = evaluator.redactor.redact(problem.traceback or clean(run.log_tail, LOG_LINES))
    return f"{problem.reason}{where}\n{tail}" if tail else problem.reason + where


def examine(
    evaluator: Evaluator, files: Files, number: int, config: Config, leaving: Callable[[], bool]
) -> Checked:
    """Train files for `train_seconds` of a configuration, and ask what they published as scoring does.

    Raises:
        Interrupted: `leaving` said so.
        AutoresearchError: the engine failed; says nothing about the program.
    """

    def abandon() -> None:
        if leaving():
            raise Interrupted(
                "the controller exits: a smoke test was abandoned", "run the same command again to continue"
            )

    owner = evaluator.owner(number)
    with ExitStack() as stack:
        # Its own connection: another thread measures meanwhile.
        client = stack.enter_context(closing(evaluator.engine.another_client()))
        engine = replace(evaluator.engine, client=client)
        mark = {"check": uuid.uuid4().hex}
        stack.callback(_discard_image, engine, mark)
        built = images.build_candidate(
            client, base_id=evaluator.base_image, files=files, labels={**owner.facts(), **mark}
        )
        mine = replace(evaluator, engine=engine, config=config)  # and with its GPU, if any, not that of a trial
        smoke = _Smoke(mine, config, built.id, number, abandon)
        checked, published = _attempt(smoke)
        if checked.training.end is RunEnd.DEADLINE and not published:
            patient = config.model_copy(update={"train_seconds": PATIENCE * config.train_seconds})
            checked, _ = _attempt(smoke._replace(config=patient))
        return checked


def _attempt(smoke: _Smoke) -> tuple[Checked, bool]:
    """Train once, and ask what was published; the second value says whether anything was."""
    evaluator, config = smoke.evaluator, smoke.config
    roomy = _with_room(config)
    owner = evaluator.owner(smoke.number)
    sandbox = Sandbox(engine=evaluator.engine, config=roomy, locked=evaluator.mounts.locked, owner=owner)
    with ExitStack() as stack:
        asked = stack.enter_context(asking(config, evaluator.scratch))
        volume = create_output_volume(evaluator.engine, roomy, owner)
        stack.callback(discard, remove_volume, evaluator.engine.client, volume)
        question = Question(
            phase=Phase.SCORE,
            program="check",
            image_id=smoke.image_id,
            rows=asked.folder,
            batch_rows=config.score_batch_rows,
            volume=volume,
            limit_seconds=config.score_seconds,
            hold_seconds=2 * start_up_seconds(config) + config.train_seconds,
            linger_seconds=0,
            max_bytes=asked.max_bytes,
        )
        responder = stack.enter_context(open_responder(sandbox, question, moves=False))
        _await(responder, smoke.abandon)
        run = train(
            sandbox,
            Training(image_id=smoke.image_id, volume=volume, data=evaluator.mounts.train(SEED), seed=SEED),
            Callbacks(meanwhile=smoke.abandon),
        )
        if (failed := _training_problem(run, config)) is not None:
            return Checked(training=run, problem=failed), True
        smoke.abandon()
        evaluator.scrub(smoke.number)
        scored, answer = responder.go(SEED)
        problem = _scoring_problem(scored, config) if answer is None else problem_of(answer, asked, config)
        return Checked(training=run, problem=problem), problem != NOTHING_PUBLISHED


def _with_room(config: Config) -> Config:
    """The settings of a run whose checkpoint may be too large, within the memory of its container."""
    room = max(config.output_bytes, min(ROOM * config.output_bytes, config.memory_bytes))
    return config.model_copy(update={"output_bytes": room, "scratch_bytes": max(config.scratch_bytes, room)})


def _await(responder: Responder, abandon: Callable[[], None]) -> None:
    """Wait until the container that asks has imported torch: it shares the core of the training."""
    while not responder.reports.ready.wait(POLL_SECONDS):
        abandon()
        responder.refuse_dead()


def _discard_image(engine: Engine, labels: Mapping[str, str]) -> None:
    try:
        images.remove_images(engine.client, labels)
    except AutoresearchError as error:
        log.warning("cleanup_failed", thing="image of a check", reason=error.message)


def _training_problem(run: RunRecord, config: Config) -> Problem | None:
    """Return why the training itself failed."""
    if run.end is RunEnd.FAILED:
        reason = f"it failed after {run.wall_seconds or 0:.1f} s with exit code {run.exit_code}"
        return Problem(reason, place_in(run.log_tail))
    if run.end is RunEnd.OUT_OF_MEMORY:
        return Problem(f"it ran out of memory at the sizes of the profile {config.profile}")
    return None


def _scoring_problem(run: RunRecord, config: Config) -> Problem | None:
    """Return why nothing was answered; None where that says nothing about the program."""
    match run.end:
        case RunEnd.FAILED:
            return Problem(f"loading or scoring it ended with exit code {run.exit_code}")
        case RunEnd.OUT_OF_MEMORY:
            return Problem(f"scoring ran out of memory with batches of {config.score_batch_rows} rows")
        case RunEnd.DEADLINE:
            return Problem(f"scoring five batches took longer than {config.score_seconds:g} s")
        case _:
            return None
