"""Remove what an earlier controller left behind when it was killed, found by label."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from runner.errors import AutoresearchError, EngineError
from runner.sandbox.containers import remove_container, remove_volume
from runner.sandbox.engine import LABEL, Engine, engine_errors

log = structlog.get_logger()

SWEEPS, SWEEP_PAUSE_SECONDS = 4, 0.5
"""Removals by an interrupted controller, and the wait after each: the engine finishes requests late."""


@contextmanager
def swept_when_interrupted(engine: Engine, controller: str) -> Iterator[None]:
    """On the way out of an exception, remove what an interrupted request left.

    The engine may still be making a container whose request nothing waits for any more.
    """
    try:
        yield
    except BaseException:
        with suppress(AutoresearchError):
            for _ in range(SWEEPS):
                remove_orphans(engine, controller)
                time.sleep(SWEEP_PAUSE_SECONDS)
        raise


def remove_orphans(engine: Engine, controller: str) -> int:
    """Remove every container and volume of this controller; returns their number.

    The controller's lock must be held: then none of its containers can be in use.

    An engine that was killed and restarted under its containers may count a mount that no longer exists, and keep
    the volume until it starts again. Such a volume is logged and does not stop a night.
    """
    label = {"label": f"{LABEL}controller={controller}"}
    with engine_errors("listing leftover containers and volumes"):
        containers = [one["Id"] for one in engine.client.api.containers(all=True, filters=label)]
    for container_id in containers:
        remove_container(engine.client, container_id)
    with engine_errors("listing leftover containers and volumes"):
        volumes = [one["Name"] for one in engine.client.api.volumes(filters=label).get("Volumes") or []]
    stuck = 0
    for name in volumes:
        try:
            remove_volume(engine.client, name)
        except EngineError as error:
            if "has active mounts" not in error.message:
                raise
            stuck += 1
            log.warning("volume_stuck", volume=name, remedy="restart the Docker engine when no campaign runs")
    return len(containers) + len(volumes) - stuck
