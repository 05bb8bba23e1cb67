"""Remove images of ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import docker

from runner.errors import ImageError
from runner.sandbox.engine import LABEL, engine_errors


def remove_images(client: docker.DockerClient, labels: Mapping[str, str]) -> int:
    """Remove every image that carries all these labels, with its tags.

    Args:
        labels: labels without the prefix `org.autoresearch.`, as in `{"kind": "candidate"}`.

    Returns: the number of removed images.

    Raises:
        ImageError: an image is used by a container, or is the base of another one, which must be removed first.
        EngineError: the engine stopped answering.
    """
    if not labels:
        raise ValueError("without a label, images of every owner would be removed")
    removed = 0
    with engine_errors("removing images", ImageError):
        for image in client.images.list(filters=label_filter(labels)):
            # The containerd image store would remove a base below its candidates without a word.
            if (above := _image_on(client, image)) is not None:
                raise _in_use(image, f"image {above} is built on it")
            try:
                client.api.remove_image(image.id, force=True)
            except docker.errors.ImageNotFound:
                continue  # removed meanwhile
            except docker.errors.APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise
                raise _in_use(image, error.explanation) from error
            removed += 1
    return removed


def _image_on(client: docker.DockerClient, image: Any) -> str | None:
    """The id of an image of ours that is built on a base or a root file system."""
    if image.labels.get(f"{LABEL}kind") == "candidate":
        return None
    layers = image.attrs["RootFS"]["Layers"]
    for other in client.api.images(filters={"label": f"{LABEL}kind"}, quiet=True):
        with suppress(docker.errors.ImageNotFound):  # removed meanwhile
            found = client.api.inspect_image(other)["RootFS"]["Layers"]
            if len(found) > len(layers) and found[: len(layers)] == layers:
                return str(other)
    return None


def _in_use(image: Any, why: str) -> ImageError:
    name = ", ".join(image.tags) or image.id
    return ImageError(
        f"image {name} is in use: {why}",
        "autoresearch clean, in every clone whose containers or candidates use it",
    )


def remove_leftovers(
    client: docker.DockerClient, labels: Mapping[str, str], patience_seconds: float = 0.0
) -> None:
    """Remove the untagged, childless images with these labels, which failed and multi-stage builds leave behind.

    The labels must identify one builder, because between two steps a running build has such images as well.

    Args:
        patience_seconds: time to wait for the container of a build that was just canceled; an image in use stays.
    """
    leftovers = {"dangling": True, **label_filter(labels)}
    deadline = time.monotonic() + patience_seconds
    with engine_errors("removing build leftovers", ImageError):
        client.images.prune(filters=leftovers)
        while client.api.images(filters=leftovers, quiet=True) and time.monotonic() < deadline:
            time.sleep(0.2)
            client.images.prune(filters=leftovers)


def label_filter(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """The engine's filter for images with all of these labels; it compares whole values."""
    return {"label": [f"{LABEL}{name}={value}" for name, value in labels.items()]}
