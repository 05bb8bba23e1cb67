"""The engine's classic builder: stream a context in, take an image id out.

docker-py has no BuildKit, and the classic builder is in every engine. Its cache is never used: it can be
poisoned (CVE-2024-24557), and our inputs are hashed anyway.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from runner.errors import ImageError
from runner.sandbox.engine import engine_errors, refused

_CHUNK_BYTES = 2**20
_TAIL_LINES = 12


def context_tar(entries: Iterable[tuple[str, bytes | Path]]) -> Iterator[bytes]:
    """Stream a build context, so that gigabytes of wheels need neither memory nor a second copy on disk.

    Args:
        entries: pairs of a name in the context, and its content or the file that holds it.
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


@dataclass(frozen=True, kw_only=True)
class Build:
    """Options of one build."""

    doing: str
    """For messages, as in "building the base image"."""
    timeout_seconds: int
    """Longest silence of the builder; a step without output counts as silence."""
    labels: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Values of the Dockerfile's ARGs."""
    on_output: Callable[[str], None] | None = None
    """Gets everything that the builder printed, also when it failed."""


def build(client: docker.DockerClient, context: Iterator[bytes], options: Build) -> str:
    """Build the context's `Dockerfile` without network and without cache.

    Returns: the image id, `sha256:…`.

    Raises:
        ImageError, DiskFullError, EngineError
    """
    doing = options.doing
    image_id: str | None = None
    output: list[str] = []
    with engine_errors(doing, ImageError):
        for event in client.api.build(
            fileobj=context,
            custom_context=True,
            dockerfile="Dockerfile",
            tag=options.tag,
            labels=dict(options.labels),
            buildargs=dict(options.arguments),
            network_mode="none",
            nocache=True,
            rm=True,
            forcerm=True,
            timeout=options.timeout_seconds,
            decode=True,
        ):
            if not isinstance(event, Mapping):
                raise ImageError(
                    f"failed while {doing}: the builder sent a malformed answer", "autoresearch doctor"
                )
            image_id = _image_id(event) or image_id
            output += str(event.get("stream", "")).splitlines()
            if "error" in event:
                _hand_over([*output, str(event["error"])], options)
                lines = [line for line in (*output[-_TAIL_LINES:], str(event["error"])) if line.strip()]
                raise refused(doing, "\n    ".join(("", *lines)), ImageError)
    _hand_over(output, options)
    if image_id is None:
        raise ImageError(f"failed while {doing}: the builder ended without an image", "autoresearch doctor")
    return image_id


def _hand_over(output: list[str], options: Build) -> None:
    if options.on_output is not None:
        options.on_output("\n".join(output))


def _image_id(event: Mapping[str, Any]) -> str | None:
    """The id in a builder's event; the last one of a build is the final stage's."""
    auxiliary = event.get("aux")
    return str(auxiliary["ID"]) if isinstance(auxiliary, Mapping) and "ID" in auxiliary else None
