"""Overwrite all free memory of the GPU with zeros, so that no container finds data of an earlier one there.

Every container of a candidate gets a scrubbed GPU. The program is `locked_eval/container/gpu_scrub.py`, in a
container of its own on the base image, with the limits of a candidate's. It has not run on a GPU yet.

Not covered: memory that the program does not reach, which its docstring names; other programs on the same GPU.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import structlog

from runner.config import Config
from runner.errors import EngineError
from runner.sandbox.container_spec import ContainerSpec
from runner.sandbox.containers import Owner, Sandbox, open_container
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.supervision import POLL_SECONDS

log = structlog.get_logger()

LIMIT_SECONDS = 120
"""Time limit. Writing 80 GB takes a fraction of a second; most of the rest is the start of the driver."""


def scrub(engine: Engine, *, config: Config, image_id: str, locked: Path, owner: Owner) -> None:
    """Overwrite the free memory of the GPU of `config`; does nothing without a GPU.

    Args:
        image_id: the base image, never a candidate's.
        locked: host folder that holds `locked_eval/`.

    Raises:
        EngineError: the engine failed, or the memory could not be overwritten; says nothing about a candidate.
    """
    if config.gpu is None:
        return
    sandbox = Sandbox(engine=engine, config=config, locked=locked, owner=owner)
    spec = ContainerSpec(phase="scrub", image_id=image_id, program="container/gpu_scrub.py")
    api = engine.client.api
    with open_container(sandbox, spec) as container_id, engine_errors("scrubbing the GPU"):
        api.start(container_id)
        give_up = time.monotonic() + LIMIT_SECONDS
        while (state := api.inspect_container(container_id)["State"])["Running"]:
            if time.monotonic() > give_up:
                raise EngineError(f"scrubbing the GPU took longer than {LIMIT_SECONDS} s", "nvidia-smi")
            time.sleep(POLL_SECONDS)
        output: bytes = api.logs(container_id, stdout=True, stderr=False)
        problems: bytes = api.logs(container_id, stdout=False, stderr=True)
    if state["ExitCode"] != 0:
        last = problems.decode("utf-8", "replace").strip().rpartition("\n")[2].removeprefix("error: ")
        raise EngineError(
            f"the memory of the GPU could not be scrubbed: {last or state['ExitCode']}", "nvidia-smi"
        )
    try:
        facts = json.loads(output)
        log.info("gpu_scrubbed", bytes=facts["bytes"], seconds=facts["seconds"], fraction=facts["fraction"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError("the program that scrubs the GPU sent no report", "make check") from error
