"""Smoke test of a submission: it runs for a few seconds, on a spare core and without a GPU.

Small sizes (those of the profile `cpu`) and the training data of one seed, in the same sandbox as every candidate.
A program that imports, takes a few steps and publishes a checkpoint may still fail at full size; one that fails
here would fail there. When the engine itself fails, the submission passes, and its experiment decides.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

import structlog

from runner.errors import AutoresearchError, Interrupted
from runner.evaluation.evaluator import Evaluator
from runner.records import Files, RunEnd, RunRecord
from runner.sandbox import Engine, images
from runner.sandbox.containers import Sandbox, create_output_volume, discard, remove_volume
from runner.sandbox.reservation import choose_cores, spare_cores
from runner.sandbox.training import Callbacks, Training, train
from runner.untrusted import clean

log = structlog.get_logger()

SEED = 1
LOG_LINES = 50


def check(evaluator: Evaluator, files: Files, number: int, leaving: Callable[[], bool]) -> str:
    """Run files for a moment; return why they fail, with the end of their log, or an empty string.

    Args:
        number: of the experiment that they may become, for labels.
        leaving: whether the controller is about to exit; the run is then abandoned.

    Raises:
        Interrupted: it was abandoned.
    """
    try:
        run = _run(evaluator, files, number, leaving)
    except Interrupted:
        raise
    except AutoresearchError as error:
        log.warning("check_failed", experiment=number, reason=error.message)
        return ""
    reason = _reason(run)
    log.info("checked", experiment=number, end=run.end, seconds=run.wall_seconds)
    if not reason:
        return ""
    tail = evaluator.redactor.redact(clean(run.log_tail, LOG_LINES))
    return f"{reason}\n{tail}" if tail else reason


def _run(evaluator: Evaluator, files: Files, number: int, leaving: Callable[[], bool]) -> RunRecord:
    def abandon() -> None:
        if leaving():
            raise Interrupted(
                "the controller exits: a smoke test was abandoned", "run the same command again to continue"
            )

    measured = evaluator.config
    cores = (spare_cores(measured) or choose_cores(measured))[-1:]
    small = {"profile": "cpu", "train_seconds": measured.smoke_seconds, "cpus": 1, "cores": cores, "gpu": None}
    config = measured.model_copy(update=small)
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
        volume = create_output_volume(engine, config, owner)
        stack.callback(discard, remove_volume, client, volume)
        return train(
            Sandbox(engine=engine, config=config, locked=evaluator.mounts.locked, owner=owner),
            Training(image_id=built.id, volume=volume, data=evaluator.mounts.train(SEED), seed=SEED),
            Callbacks(meanwhile=abandon),
        )


def _discard_image(engine: Engine, labels: Mapping[str, str]) -> None:
    try:
        images.remove_images(engine.client, labels)
    except AutoresearchError as error:
        log.warning("cleanup_failed", thing="image of a check", reason=error.message)


def _reason(run: RunRecord) -> str:
    """Why the submission itself failed."""
    if run.end is RunEnd.FAILED:
        return f"it failed after {run.wall_seconds or 0:.1f} s with exit code {run.exit_code}"
    if run.end is RunEnd.OUT_OF_MEMORY:
        return "it ran out of memory at the sizes of the profile cpu"
    return ""
