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

from runner.errors import DiskFullError, EngineError, ImageError
from runner.sandbox.transport import OLDEST_API, open_client

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 60.0
"""Time limit for a request that creates, starts or removes something."""
QUICK_SECONDS = 5.0
"""Time limit for inspecting or killing a container: a request that hangs is abandoned and sent again."""
NONSENSE = (KeyError, TypeError, ValueError, AttributeError, struct.error, urllib3.exceptions.HTTPError)
"""Errors that docker-py and this package raise on a malformed answer; docker-py lets those of urllib3 through."""
LABEL = "org.autoresearch."
"""Prefix of our labels. Containers, volumes and images are found by label, never by name."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One Docker engine. `docker.from_env()` is not used: it can follow a CLI context to another host."""

    url: str
    daemon_id: str  # engines before 23 take it from /etc/docker: two on one machine share it
    version: str
    client: docker.DockerClient
    data_root: str = ""  # distinguishes those two
    api_version: str = OLDEST_API
    cdi_devices: frozenset[str] = frozenset()  # names of devices that the engine can inject itself
    request_seconds: float = REQUEST_SECONDS
    quick_seconds: float = QUICK_SECONDS

    def another_client(self) -> docker.DockerClient:
        """Open a client for another thread: a stalled stream must not block the thread that kills."""
        return open_client(self.url, self.request_seconds, api_version=self.api_version)

    def quick_client(self) -> docker.DockerClient:
        """Open a client for inspecting and killing."""
        return open_client(self.url, self.quick_seconds, api_version=self.api_version)

    def stream_client(self) -> docker.DockerClient:
        """Open a client for streams that may stay silent: only the head of an answer has a time limit."""
        return open_client(self.url, self.request_seconds, api_version=self.api_version, streams=True)


def connect(
    docker_host: str | None = None,
    *,
    request_seconds: float = REQUEST_SECONDS,
    quick_seconds: float = QUICK_SECONDS,
) -> Engine:
    """Connect to the engine at `docker_host`, else at `DOCKER_HOST`, else at the default socket.

    Args:
        request_seconds: time limit for one request.
        quick_seconds: time limit for inspecting or killing a container.

    Raises:
        EngineError: nothing answers there, the engine is not local, or this user may not use it.
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
def engine_errors(doing: str, refusal: type[EngineError | ImageError] = EngineError) -> Iterator[None]:
    """Turn the errors of docker-py and its HTTP layer into one of ours that says what we were doing.

    Keep requests to the engine inside the block and everything else out of it.

    Args:
        doing: a participle, as in "building the base image".
        refusal: class of the error for a request that the engine refused; `ImageError` where an image is the
            subject.

    Raises:
        DiskFullError: the engine has no space left, or no inodes, which it reports with the same message.
        ImageError: the engine refused, and `refusal` is this class.
        EngineError: the engine refused, stopped answering, or sent a malformed answer.
    """
    try:
        yield
    except docker.errors.DockerException as error:
        status = getattr(error, "status_code", None)
        raise refused(
            doing, str(error), refusal, fault=f"{type(error).__name__} {status or ''}".strip()
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise EngineError(
            f"the Docker engine stopped answering while {doing}: {error}",
            "make engine",
            fault=f"{doing}: {type(error).__name__}",
        ) from error
    except NONSENSE as error:
        name = type(error).__name__
        raise refused(doing, str(error) or name, fault=name) from error


def refused(
    doing: str,
    message: str,
    refusal: type[EngineError | ImageError] = EngineError,
    *,
    remedy: str | None = None,
    fault: str | None = None,
) -> EngineError | ImageError:
    """Build the error for a message of the engine; a full disk has its own class and remedy.

    Args:
        fault: what failed, in words that stay the same from one time to the next.
    """
    if "no space left on device" in message.lower():
        return DiskFullError(
            f"no space left on the engine's disk while {doing}",
            "autoresearch clean, or free some disk (df -h)",
        )
    if issubclass(refusal, ImageError):
        return refusal(f"failed while {doing}: {message}", remedy)
    return refusal(
        f"the Docker engine failed while {doing}: {message}",
        remedy or "autoresearch doctor",
        fault=None if fault is None else f"{doing}: {fault}",
    )
