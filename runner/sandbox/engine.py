"""The connection to one Docker engine, pinned by its socket and its id."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
import urllib3

from runner.errors import DiskFullError, EngineError
from runner.sandbox.transport import OLDEST_API, open_client

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 60.0
"""Longest answer to a request that makes, starts or removes something."""
QUICK_SECONDS = 5.0
"""Longest answer to a look at a container, and to its kill: one that hangs is given up and asked again."""
NONSENSE = (KeyError, TypeError, ValueError, AttributeError, struct.error, urllib3.exceptions.HTTPError)
"""What an answer that makes no sense raises in docker-py and here, and what it lets through of urllib3's."""
LABEL = "org.autoresearch."
"""Prefix of every label on what is ours. Things are found by label, never by name."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine. `docker.from_env()` is not used: it can follow a CLI context to another host."""

    url: str
    daemon_id: str  # engines before 23 take it from /etc/docker: two on one machine share it
    version: str
    client: docker.DockerClient
    data_root: str = ""  # which tells these two apart
    api_version: str = OLDEST_API
    cdi_devices: frozenset[str] = frozenset()  # names of devices that the engine can inject by itself
    request_seconds: float = REQUEST_SECONDS
    quick_seconds: float = QUICK_SECONDS

    def another_client(self) -> docker.DockerClient:
        """A client of its own for a thread: a stalled stream must not block the one that kills."""
        return open_client(self.url, self.request_seconds, api_version=self.api_version)

    def quick_client(self) -> docker.DockerClient:
        """For looking and killing."""
        return open_client(self.url, self.quick_seconds, api_version=self.api_version)

    def stream_client(self) -> docker.DockerClient:
        """For streams that may be silent for long: only the head of an answer has a time limit."""
        return open_client(self.url, self.request_seconds, api_version=self.api_version, streams=True)


def connect(
    docker_host: str | None = None,
    *,
    request_seconds: float = REQUEST_SECONDS,
    quick_seconds: float = QUICK_SECONDS,
) -> Engine:
    """Connect to the engine at `docker_host`, else `DOCKER_HOST`, else the default socket.

    Args:
        request_seconds: longest answer to one request.
        quick_seconds: longest answer to a look or a kill.

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
    opened = [open_client(url, request_seconds)]
    try:
        api_version: str = opened[0].api.version(api_version=False)["ApiVersion"]
        opened.append(open_client(url, request_seconds, api_version=api_version))
        info = opened[1].info()
        engine = Engine(
            url=url,
            daemon_id=info["ID"],
            version=info["ServerVersion"],
            client=opened.pop(),
            data_root=info["DockerRootDir"],
            api_version=api_version,
            cdi_devices=frozenset(
                device["ID"] for device in info.get("DiscoveredDevices") or () if device.get("Source") == "cdi"
            ),
            request_seconds=request_seconds,
            quick_seconds=quick_seconds,
        )
    except (docker.errors.DockerException, requests.RequestException, *NONSENSE) as error:
        raise EngineError(f"the Docker engine at {url} does not answer: {error}", "make engine") from error
    finally:
        for client in opened:
            client.close()
    return engine


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what docker-py and its HTTP layer raise into one EngineError that says what we were doing.

    Keep the calls to the engine inside and everything else out.

    Raises:
        DiskFullError: the engine has no room, or no inodes, which it calls the same.
        EngineError: anything else.
    """
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, *NONSENSE) as error:
        if "no space left on device" in str(error).lower():
            raise DiskFullError(
                f"no space left on the engine's disk while {doing}", "docker system df, then: autoresearch clean"
            ) from error
        status = getattr(error, "status_code", None)
        raise EngineError(
            f"the Docker engine failed while {doing}: {error or type(error).__name__}",
            "autoresearch doctor",
            fault=f"{doing}: {type(error).__name__} {status or ''}".rstrip(),
        ) from error
