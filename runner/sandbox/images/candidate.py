"""Candidate images: a base plus one commit's `workload/` as a single deterministic layer.

The layer is put into a container that never starts, and the container is committed. No builder is involved: each
of its instructions makes an image of its own, for which the containerd image store compares the whole base. The
image id differs from build to build, because it covers the time of creation: identity is `Image.layers`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import docker

from runner.errors import BaseGoneError, EngineError, ImageError
from runner.failpoints import Step, around
from runner.records import Files
from runner.sandbox.containers import discard, remove_container
from runner.sandbox.engine import LABEL, engine_errors
from runner.sandbox.images.cleanup import label_filter

ROOT = "candidate"
_COMMAND = ["/never-started"]
"""Command of the container that is committed, since engines refuse one without; it never starts."""
_INHERITED = ("Env", "Entrypoint", "User", "WorkingDir", "Volumes", "OnBuild", "Shell", "StopSignal")


@dataclass(frozen=True, kw_only=True)
class Image:
    """A candidate's image, checked against its base."""

    id: str  # sha256:…, differs from build to build
    base_id: str
    layer_digest: str  # diff id of the candidate's own layer, the same on every machine
    layers: tuple[str, ...]  # diff ids from the root file system up; the last one is `layer_digest`


def layer_tar(files: Files) -> bytes:
    """Build the candidate's layer: the same bytes for the same files, whatever their order, owner or age.

    Args:
        files: contents by path, every one inside `workload/`.

    Raises:
        ImageError: a path that is not a plain relative one inside `workload/`.
    """
    paths = {_checked(name): content for name, content in files.items()}
    folders = {parent for path in paths for parent in path.parents if parent != PurePosixPath()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_entry(ROOT, None))
        for path in sorted({*paths, *folders}, key=lambda path: path.parts):
            content = paths.get(path)
            entry = _entry(f"{ROOT}/{path}", content)
            tar.addfile(entry, None if content is None else io.BytesIO(content))
    return buffer.getvalue()


def _checked(name: str) -> PurePosixPath:
    """Check a path again after `runner.edits`, because this tar is unpacked as root at the root of the image."""
    path = PurePosixPath(name)
    if (
        str(path) != name
        or len(path.parts) < 2
        or path.parts[0] != "workload"
        or ".." in path.parts
        or "\0" in name
        # A whiteout: in a layer such a name is not a file, but hides others.
        or any(part.startswith(".wh.") for part in path.parts)
    ):
        raise ImageError(f"a candidate image may not hold the path {name!r}")
    return path


def _entry(name: str, content: bytes | None) -> tarfile.TarInfo:
    """An entry for a file, or a folder when `content` is None, owned by root, dated 1970, readable by all."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    entry.mode = 0o755 if content is None else 0o644
    entry.size = 0 if content is None else len(content)
    return entry


def build_candidate(
    client: docker.DockerClient,
    *,
    base_id: str,
    files: Files,
    labels: Mapping[str, str],
    tag: str | None = None,
) -> Image:
    """Build a candidate's image (about 0.15 seconds, 3 with the containerd image store). Nothing of it runs.

    Args:
        base_id: `sha256:…` of its base.
        files: the candidate's `workload/`.
        labels: labels without the prefix `org.autoresearch.`: commit, tree, base, campaign, experiment.
        tag: `repository:tag` for people, and so that `docker image prune` leaves the image alone.

    Raises:
        ImageError: a path is refused, the build failed, or the image is not its base plus one layer.
        BaseGoneError: there is no such base.
        DiskFullError, EngineError
    """
    _refuse_missing(client, base_id)
    layer = layer_tar(files)
    marked = {f"{LABEL}{name}": value for name, value in {**labels, "kind": "candidate"}.items()}
    with around(Step.IMAGE_BUILT):
        image_id = _commit(client, base_id, layer, marked, tag)
    return _checked_image(client, image_id, base_id)


def _commit(
    client: docker.DockerClient, base_id: str, layer: bytes, labels: Mapping[str, str], tag: str | None
) -> str:
    """Commit a container with the layer. `remove_orphans` finds what a killed call leaves."""
    api = client.api
    repository, _, name = (tag or "").rpartition(":")
    with engine_errors("building the candidate's image", ImageError):
        host_config = api.create_host_config(network_mode="none")
        container = api.create_container(base_id, _COMMAND, labels=dict(labels), host_config=host_config)["Id"]
        try:
            api.put_archive(container, "/", layer)
            image_id: str = api.commit(container, repository or None, name or None)["Id"]
        finally:
            discard(remove_container, client, container)
    return image_id


def _refuse_missing(client: docker.DockerClient, base_id: str) -> None:
    if not exists(client, base_id):
        raise BaseGoneError(
            f"the base image {base_id} was removed",
            "start again: it is rebuilt, which takes minutes; nothing is lost",
        )


def exists(client: docker.DockerClient, image_id: str) -> bool:
    """Whether the engine has the image.

    Raises:
        ImageError, EngineError
    """
    with engine_errors(f"looking for image {image_id}", ImageError):
        try:
            client.api.inspect_image(image_id)
        except docker.errors.ImageNotFound:
            return False
    return True


def find_candidate(client: docker.DockerClient, *, base_id: str, campaign: str, commit: str) -> Image | None:
    """Find the image of a commit on this base by its labels; None when there is none.

    Raises:
        ImageError: an image with these labels is not the base plus one layer.
        BaseGoneError: there is one, but no such base.
        EngineError: the engine stopped answering.
    """
    labels = {"kind": "candidate", "campaign": campaign, "commit": commit}
    with engine_errors("looking for a candidate's image", ImageError):
        images = client.images.list(filters=label_filter(labels))
    if images:
        _refuse_missing(client, base_id)
    for image in images:
        if _layers(image.attrs)[:-1] == _layers(_inspect(client, base_id)):
            return _checked_image(client, str(image.id), base_id)
    return None


def _checked_image(client: docker.DockerClient, image_id: str, base_id: str) -> Image:
    """Compare a built image with its base: exactly one layer more, and the same configuration."""
    image, base = _inspect(client, image_id), _inspect(client, base_id)
    layers = _layers(image)
    if layers[:-1] != _layers(base):
        raise ImageError(
            f"image {image_id} is not {base_id} plus one layer: the engine's builder cannot be trusted",
            "update the Docker engine",
        )
    if image["Config"].get("Cmd") not in (_COMMAND, base["Config"].get("Cmd")):
        raise ImageError(f"image {image_id} has another command than it was given", "update the Docker engine")
    for name in _INHERITED:
        if (image["Config"].get(name) or None) != (base["Config"].get(name) or None):
            raise ImageError(f"image {image_id} differs from its base in {name}", "update the Docker engine")
    return Image(id=image_id, base_id=base_id, layer_digest=layers[-1], layers=layers)


def _inspect(client: docker.DockerClient, image_id: str) -> Mapping[str, Any]:
    with engine_errors(f"inspecting image {image_id}", ImageError):
        attributes: Mapping[str, Any] = client.api.inspect_image(image_id)
    if not isinstance(attributes, Mapping) or not {"RootFS", "Config"} <= set(attributes):
        raise EngineError(f"the Docker engine sent a malformed answer on image {image_id}", "autoresearch doctor")
    return attributes


def _layers(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(attributes["RootFS"]["Layers"])
