"""Trusted programs of the locked evaluation in a container: no network, one writable folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from docker.types import LogConfig, Mount

from runner.errors import DataError
from runner.sandbox.containers import PYTHON, Owner, remove_container
from runner.sandbox.engine import Engine, engine_errors


def run_trusted(
    engine: Engine,
    *,
    image_id: str,
    arguments: list[str],
    read_only: dict[str, Path],
    output: Path,
    owner: Owner,
    on_line: Callable[[str], None],
) -> None:
    """Run `arguments` with Python; `output` is mounted writable at `/output` and belongs to our user.

    Raises:
        DataError: the program refused; its last line says why.
        EngineError: the engine failed.
    """
    api = engine.client.api
    with engine_errors("creating the preparation container"):
        container = api.create_container(
            image=image_id,
            entrypoint=[PYTHON, "-I"],
            command=arguments,
            user=f"{os.getuid()}:{os.getgid()}",
            environment={"HOME": "/tmp", "TMPDIR": "/tmp"},  # noqa: S108
            labels=owner.labels("prepare"),
            network_disabled=True,
            host_config=api.create_host_config(
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=512,
                tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},  # noqa: S108
                mounts=[
                    *(
                        Mount(target=target, source=str(source), type="bind", read_only=True)
                        for target, source in read_only.items()
                    ),
                    Mount(target="/output", source=str(output), type="bind"),
                ],
                log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
            ),
        )
    tail: deque[str] = deque(maxlen=20)
    stream = engine.stream_client().api  # a large corpus may be silent for minutes
    try:
        with engine_errors("preparing data"):
            api.start(container["Id"])
            pending = b""
            for piece in stream.logs(container["Id"], stream=True, follow=True):
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    tail.append(line.decode("utf-8", "replace"))
                    on_line(tail[-1])
            code = api.wait(container["Id"])["StatusCode"]
    finally:
        stream.close()
        remove_container(engine.client, container["Id"])
    if code != 0:
        problem = next((line for line in reversed(tail) if line.startswith("error: ")), None)
        if problem is None:
            raise DataError(
                f"the preparation ended with exit code {code}: " + (tail[-1] if tail else "no output"),
                "autoresearch prepare --force",
            )
        raise DataError(problem.removeprefix("error: "), "autoresearch prepare --source FOLDER")
