"""The connection to one Docker engine, pinned by its socket and its id."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import requests

from runner.errors import EngineError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 60
LABEL = "org.autoresearch."
"""Prefix of every label on what is ours. Things are found by label, never by name."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine. `docker.from_env()` is not used: it can follow a CLI context to another host."""

    url: str
    daemon_id: str
    version: str
    client: docker.DockerClient
    cdi_devices: frozenset[str] = frozenset()  # names of devices that the engine can inject by itself

    def another_client(self, timeout_seconds: float | None = REQUEST_SECONDS) -> docker.DockerClient:
        """A client of its own for a thread: a stalled stream must not block the one that kills.

        Args:
            timeout_seconds: for each read; None for streams that may be silent for long.
        """
        return docker.DockerClient(base_url=self.url, timeout=timeout_seconds)


def connect(docker_host: str | None = None) -> Engine:
    """Connect to the engine at `docker_host`, else `DOCKER_HOST`, else the default socket.

    Raises:
        EngineError: nothing answers there, it is not local, or we may not use it.
    """
    url = docker_host or os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
    if not url.startswith("unix://"):
        raise EngineError(
            f"the Docker engine at {url} is not local: read-only mounts need the files on its own disk",
            "unset DOCKER_HOST, or run the controller on that machine",
        )
    socket = Path(url.removeprefix("unix://"))
    try:
        exists = socket.exists()
    except PermissionError:
        exists = True
    if not exists:
        raise EngineError(f"no Docker engine: {socket} does not exist", "make engine")
    if not os.access(socket, os.R_OK | os.W_OK):
        raise EngineError(
            f"no permission on the Docker socket {socket}",
            'sudo usermod -aG docker "$USER", then log in again',
        )
    client: docker.DockerClient | None = None
    try:
        client = docker.DockerClient(base_url=url, timeout=REQUEST_SECONDS)
        info = client.info()
    except (docker.errors.DockerException, requests.RequestException) as error:
        if client is not None:
            client.close()
        raise EngineError(f"the Docker engine at {url} does not answer: {error}", "make engine") from error
    return Engine(
        url=url,
        daemon_id=info["ID"],
        version=info["ServerVersion"],
        client=client,
        cdi_devices=frozenset(
            device["ID"] for device in info.get("DiscoveredDevices") or () if device.get("Source") == "cdi"
        ),
    )


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what docker-py and its HTTP layer raise into one EngineError that says what we were doing."""
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError(f"the Docker engine failed while {doing}: {error}", "autoresearch doctor") from error
