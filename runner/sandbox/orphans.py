"""What an earlier controller left behind when it was killed, found by label."""

from __future__ import annotations

from runner.sandbox.engine import LABEL, Engine, engine_errors
from runner.sandbox.limits import remove_container, remove_volume


def remove_orphans(engine: Engine, controller: str) -> int:
    """Remove every container and volume of this controller's; returns how many there were.

    Call it only while the controller's lock is held: then nothing of ours can be running.
    """
    label = {"label": f"{LABEL}controller={controller}"}
    with engine_errors("looking for orphans"):
        containers = [one["Id"] for one in engine.client.api.containers(all=True, filters=label)]
    for container_id in containers:
        remove_container(engine.client, container_id)
    with engine_errors("looking for orphans"):
        volumes = [one["Name"] for one in engine.client.api.volumes(filters=label).get("Volumes") or []]
    for name in volumes:
        remove_volume(engine.client, name)
    return len(containers) + len(volumes)
