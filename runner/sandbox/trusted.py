"""Trusted programs of the locked evaluation in a container: no network, one writable folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docker.types import LogConfig, Mount

from runner.errors import DataError
from runner.sandbox.containers import PYTHON, Owner, remove_container
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.reservation import free_cores

PROBLEM = "error: "
"""The beginning of the line in which a program says what is wrong with its input."""


@dataclass(frozen=True, kw_only=True)
class TrustedProgram:
    """One run of a trusted program."""

    image_id: str
    arguments: Sequence[str]  # of Python
    read_only: Mapping[str, Path]  # host folders by mount point
    output: Path  # mounted writable at `/output`; belongs to our user


def run_trusted(engine: Engine, program: TrustedProgram, *, owner: Owner, on_line: Callable[[str], None]) -> None:
    """Run a trusted program to its end.

    Args:
        on_line: receives every line that the program prints, but for the reason of a refusal.

    Raises:
        DataError: the program refused; its last line says why.
        EngineError: the engine failed.
    """
    container_id = _create(engine, program, owner)
    api = engine.client.api
    tail: deque[str] = deque(maxlen=20)
    stream = engine.stream_client().api  # a large corpus may be silent for minutes
    try:
        with engine_errors("preparing data"):
            api.start(container_id)
            pending = b""
            for piece in stream.logs(container_id, stream=True, follow=True):
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    tail.append(line.decode("utf-8", "replace"))
                    if not tail[-1].startswith(PROBLEM):  # which becomes our own error
                        on_line(tail[-1])
            code = api.wait(container_id)["StatusCode"]
    finally:
        stream.close()
        remove_container(engine.client, container_id)
    if code != 0:
        problem = next((line for line in reversed(tail) if line.startswith(PROBLEM)), None)
        if problem is None:
            raise DataError(
                f"the preparation ended with exit code {code}: " + (tail[-1] if tail else "no output"),
                "autoresearch prepare --force",
            )
        raise DataError(
            problem.removeprefix(PROBLEM),
            "change the source, then start again; docs/data.md says what it may hold",
        )


def _create(engine: Engine, program: TrustedProgram, owner: Owner) -> str:
    api = engine.client.api
    mounts = [
        Mount(target=target, source=str(source), type="bind", read_only=True)
        for target, source in program.read_only.items()
    ]
    with engine_errors("creating the preparation container"):
        container = api.create_container(
            image=program.image_id,
            entrypoint=[PYTHON, "-I"],
            command=list(program.arguments),
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
                cpuset_cpus=",".join(map(str, free_cores())),  # none: all, beside every campaign
                tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},  # noqa: S108
                mounts=[*mounts, Mount(target="/output", source=str(program.output), type="bind")],
                log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
            ),
        )
        container_id: str = container["Id"]
    return container_id
