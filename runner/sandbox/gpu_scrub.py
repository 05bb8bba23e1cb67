"""Zeros in all free memory of the GPU, so that no container finds what an earlier one left there.

Every container of a candidate gets a scrubbed GPU. The program is `locked_eval/container/gpu_scrub.py`, in a
container of its own on the base image, with the limits of a candidate's. It has not run on a GPU yet.

Not covered: what that program does not reach, see there; programs of others on the same GPU.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import structlog

from runner.config import Config
from runner.errors import EngineError
from runner.sandbox.containers import Owner, create_container, discard, remove_container
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.supervision import POLL_SECONDS

log = structlog.get_logger()

LIMIT_SECONDS = 120
"""Longest wait. Writing 80 GB takes a fraction of a second; the driver's own start takes most of the rest."""


def scrub(engine: Engine, *, config: Config, image_id: str, locked: Path, owner: Owner) -> None:
    """Overwrite the free memory of the GPU of `config`; without a GPU there is nothing to do.

    Args:
        image_id: the base image, never a candidate's.
        locked: host folder that holds `locked_eval/`.

    Raises:
        EngineError: the engine failed, or the memory could not be overwritten; says nothing about a candidate.
    """
    if config.gpu is None:
        return
    container_id = create_container(
        engine,
        config=config,
        image_id=image_id,
        phase="scrub",
        command=[],
        environment={},
        read_only={"/locked": locked},
        output_volume=None,
        owner=owner,
        interactive=False,
        program="container/gpu_scrub.py",
    )
    api = engine.client.api
    try:
        with engine_errors("scrubbing the GPU"):
            api.start(container_id)
            give_up = time.monotonic() + LIMIT_SECONDS
            while (state := api.inspect_container(container_id)["State"])["Running"]:
                if time.monotonic() > give_up:
                    raise EngineError(f"scrubbing the GPU took longer than {LIMIT_SECONDS} s", "nvidia-smi")
                time.sleep(POLL_SECONDS)
            output: bytes = api.logs(container_id, stdout=True, stderr=False)
            problems: bytes = api.logs(container_id, stdout=False, stderr=True)
    finally:
        discard(remove_container, engine.client, container_id)
    if state["ExitCode"] != 0:
        last = problems.decode("utf-8", "replace").strip().rpartition("\n")[2].removeprefix("error: ")
        raise EngineError(
            f"the memory of the GPU could not be scrubbed: {last or state['ExitCode']}", "nvidia-smi"
        )
    try:
        facts = json.loads(output)
        log.info("gpu_scrubbed", bytes=facts["bytes"], seconds=facts["seconds"], fraction=facts["fraction"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError("the program that scrubs the GPU did not say what it did", "make check") from error
