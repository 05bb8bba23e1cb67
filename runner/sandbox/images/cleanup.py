"""Removing images of ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

import docker

from runner.errors import ImageError
from runner.sandbox.images.builder import LABEL, engine_errors


def remove_images(client: docker.DockerClient, labels: Mapping[str, str]) -> int:
    """Remove every image that carries all these labels, with its tags.

    Args:
        labels: label → value, with the prefix `org.autoresearch.` left out: `{"kind": "candidate"}`.

    Returns:
        How many images were removed.

    Raises:
        ImageError: an image is in use by a container, or is the base of another one: remove those first.
        EngineError: the engine stopped answering.
    """
    if not labels:
        raise ValueError("without a label, everybody's images would go")
    removed = 0
    with engine_errors("removing images"):
        for image in client.images.list(filters=label_filter(labels)):
            try:
                client.api.remove_image(image.id, force=True)
            except docker.errors.ImageNotFound:
                continue  # somebody was faster
            except docker.errors.APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise
                name = ", ".join(image.tags) or image.id
                raise ImageError(
                    f"image {name} is in use: {error.explanation}",
                    "autoresearch clean, in every clone whose containers or candidates use it",
                ) from error
            removed += 1
    return removed


def remove_leftovers(
    client: docker.DockerClient, labels: Mapping[str, str], patience_seconds: float = 0.0
) -> None:
    """Remove the untagged, childless images with these labels: what a failed or multi-stage build leaves behind.

    The labels must tell one builder from another: between two steps, a build under way looks just the same.

    Args:
        patience_seconds: how long to wait for the container of a build that was just called off; an image in use
            stays.
    """
    leftovers = {"dangling": True, **label_filter(labels)}
    deadline = time.monotonic() + patience_seconds
    with engine_errors("removing build leftovers"):
        client.images.prune(filters=leftovers)
        while client.api.images(filters=leftovers, quiet=True) and time.monotonic() < deadline:
            time.sleep(0.2)
            client.images.prune(filters=leftovers)


def label_filter(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """The engine's filter for "has all of these labels"; it compares whole values."""
    return {"label": [f"{LABEL}{name}={value}" for name, value in labels.items()]}
