"""The engine's classic builder: stream a context in, take an image id out, translate what goes wrong.

docker-py has no BuildKit, and the classic builder is in every engine. Its cache is never used: it can be
poisoned (CVE-2024-24557), and our inputs are hashed anyway.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3

from runner.errors import DiskFullError, EngineError, ImageError

LABEL = "org.autoresearch."
"""Prefix of every label on what is ours. Images are found by label, never by name."""

_CHUNK_BYTES = 2**20
_TAIL_LINES = 12


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn the errors of docker-py and of its HTTP layer into ours.

    Args:
        doing: what is being done, as in "building the base image".

    Raises:
        DiskFullError: the engine's disk is full.
        ImageError: the engine refused.
        EngineError: the engine stopped answering.
    """
    try:
        yield
    except docker.errors.DockerException as error:
        raise refusal(doing, str(error)) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:  # docker-py lets urllib3's out
        raise EngineError(f"the Docker engine stopped answering while {doing}: {error}", "make engine") from error


def refusal(doing: str, message: str, remedy: str | None = None) -> DiskFullError | ImageError:
    """The error for what the engine said: a full disk has its own class and remedy."""
    if "no space left on device" in message.lower():
        return DiskFullError(
            f"no space left on the engine's disk while {doing}", "docker system df, then: autoresearch clean"
        )
    return ImageError(f"failed while {doing}: {message}", remedy)


def context_tar(entries: Iterable[tuple[str, bytes | Path]]) -> Iterator[bytes]:
    """A build context as a stream: gigabytes of wheels need neither memory nor a second copy on disk.

    Args:
        entries: name in the context, and its content or the file that holds it.
    """
    for name, content in entries:
        entry = tarfile.TarInfo(name)
        entry.mode = 0o644
        entry.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        yield entry.tobuf(tarfile.GNU_FORMAT)
        if isinstance(content, bytes):
            yield content
        else:
            with content.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def build(
    client: docker.DockerClient,
    context: Iterator[bytes],
    *,
    doing: str,
    labels: Mapping[str, str],
    timeout_seconds: int,
    tag: str | None = None,
    arguments: Mapping[str, str] | None = None,
) -> str:
    """Build the context's `Dockerfile` without network and without cache.

    Args:
        doing: for messages, as in "building the base image".
        timeout_seconds: longest silence of the builder; one quiet step counts as silence.
        arguments: values of the Dockerfile's ARGs.

    Returns:
        The image id, `sha256:…`.

    Raises:
        ImageError, DiskFullError, EngineError
    """
    image_id: str | None = None
    said: list[str] = []
    with engine_errors(doing):
        for event in client.api.build(
            fileobj=context,
            custom_context=True,
            dockerfile="Dockerfile",
            tag=tag,
            labels=dict(labels),
            buildargs=dict(arguments or {}),
            network_mode="none",
            nocache=True,
            rm=True,
            forcerm=True,
            timeout=timeout_seconds,
            decode=True,
        ):
            if not isinstance(event, Mapping):
                raise ImageError(f"failed while {doing}: the builder's answer makes no sense", "docker version")
            image_id = _image_id(event) or image_id
            said = [*said, *str(event.get("stream", "")).splitlines()][-_TAIL_LINES:]
            if "error" in event:
                lines = [line for line in (*said, str(event["error"])) if line.strip()]
                raise refusal(doing, "\n    ".join(("", *lines)))
    if image_id is None:
        raise ImageError(f"failed while {doing}: the builder ended without an image", "docker version")
    return image_id


def _image_id(event: Mapping[str, Any]) -> str | None:
    """The id in a builder's event; the last one of a build is the final stage's."""
    auxiliary = event.get("aux")
    return str(auxiliary["ID"]) if isinstance(auxiliary, Mapping) and "ID" in auxiliary else None
