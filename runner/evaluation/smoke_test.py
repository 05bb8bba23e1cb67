"""The cheap check of an idea: it runs for a few seconds, on a spare core and without a GPU.

Small sizes (those of the profile `cpu`) and the training data of one seed, in the same sandbox as every candidate.
What imports, takes a few steps and publishes a checkpoint may still fail at full size; what fails here would have.
The engine's own failures are nobody's: then the experiment tells.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

import structlog

from runner.errors import AutoresearchError, Interrupted
from runner.evaluation.trial import Laboratory
from runner.records import Files, RunEnd, RunRecord
from runner.sandbox import Engine, images
from runner.sandbox.containers import (
    Sandbox,
    choose_cores,
    create_output_volume,
    discard,
    remove_volume,
    spare_cores,
)
from runner.sandbox.training import Callbacks, Training, train
from runner.untrusted import clean

log = structlog.get_logger()

SEED = 1
LOG_LINES = 50


def check(lab: Laboratory, files: Files, number: int, leaving: Callable[[], bool]) -> str:
    """Run files for a moment; why they are no good, with the end of their log, or nothing.

    Args:
        number: of the experiment that may come of them, for labels.
        leaving: the controller ends: the run is given up.

    Raises:
        Interrupted: it was given up.
    """
    try:
        run = _run(lab, files, number, leaving)
    except Interrupted:
        raise
    except AutoresearchError as error:
        log.warning("check_failed", experiment=number, reason=error.message)
        return ""
    reason = _reason(run)
    log.info("checked", experiment=number, end=run.end, seconds=run.wall_seconds)
    if not reason:
        return ""
    tail = lab.redactor.redact(clean(run.log_tail, LOG_LINES))
    return f"{reason}\n{tail}" if tail else reason


def _run(lab: Laboratory, files: Files, number: int, leaving: Callable[[], bool]) -> RunRecord:
    def give_up() -> None:
        if leaving():
            raise Interrupted("the controller ends: a check was given up", "the same command goes on")

    config = lab.config.model_copy(
        update={"profile": "cpu", "train_seconds": lab.config.smoke_seconds, "cpus": 1, "gpu": None}
    )
    cores = (spare_cores(lab.config) or choose_cores(lab.config))[-1:]
    owner = lab.owner(number)
    with ExitStack() as stack:
        # Its own connection: another thread measures meanwhile.
        client = stack.enter_context(closing(lab.engine.another_client()))
        engine = replace(lab.engine, client=client)
        mark = {"check": uuid.uuid4().hex}
        stack.callback(_discard_image, engine, mark)
        built = images.build_candidate(
            client, base_id=lab.base_image, files=files, labels={**owner.facts(), **mark}
        )
        volume = create_output_volume(engine, config, owner)
        stack.callback(discard, remove_volume, client, volume)
        return train(
            Sandbox(engine=engine, config=config, locked=lab.mounts.locked, owner=owner),
            Training(image_id=built.id, volume=volume, data=lab.mounts.train(SEED), seed=SEED, cores=cores),
            Callbacks(meanwhile=give_up),
        )


def _discard_image(engine: Engine, labels: Mapping[str, str]) -> None:
    try:
        images.remove_images(engine.client, labels)
    except AutoresearchError as error:
        log.warning("cleanup_failed", thing="image of a check", reason=error.message)


def _reason(run: RunRecord) -> str:
    """What is the candidate's own fault."""
    if run.end is RunEnd.FAILED:
        return f"it failed after {run.wall_seconds or 0:.1f} s with exit code {run.exit_code}"
    if run.end is RunEnd.OUT_OF_MEMORY:
        return "it ran out of memory at the sizes of the profile cpu"
    return ""
