"""Base images: tagged by the hash of everything that goes into them, and rebuilt only when that changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker

from runner.errors import BaseGoneError, DiskFullError, ImageError
from runner.sandbox.engine import LABEL, engine_errors
from runner.sandbox.images import extra
from runner.sandbox.images.builder import Build, build, context_tar
from runner.sandbox.images.cleanup import label_filter, remove_leftovers
from runner.sandbox.images.rootfs import RECIPE, ensure_rootfs
from runner.sandbox.images.steps import keep_output, step
from runner.sandbox.images.wheels import downloading

Kind = Literal["cpu", "cuda", "prepare"]
"""`cpu` and `cuda` run candidates and contain torch; `prepare` makes the data, without torch."""

REPOSITORY = "autoresearch-base"
_PACKAGED = Path(__file__).with_name("files")
IMAGES_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[3] / "images"
"""Dockerfile and locks: inside an installed package, at the top of a checkout (see `pyproject.toml`)."""
_GIBI = 2**30


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """Differences between the kinds."""

    imports: str  # modules that must import in the finished image
    extra_index: str | None  # public index of wheels that are not on PyPI
    needed_bytes: int  # free disk for wheels, root file system, build stage and image together
    download_mb: int
    build_seconds: int


_RECIPES: dict[Kind, _Recipe] = {
    "cpu": _Recipe(
        imports="torch, numpy, safetensors",
        extra_index="https://download.pytorch.org/whl/cpu",
        needed_bytes=6 * _GIBI,
        download_mb=230,
        build_seconds=60,
    ),
    "cuda": _Recipe(
        imports="torch, triton, numpy, safetensors",
        extra_index=None,
        needed_bytes=20 * _GIBI,
        download_mb=3000,
        build_seconds=300,
    ),
    "prepare": _Recipe(
        imports="numpy, pyarrow, rustbpe, tiktoken",
        extra_index=None,
        needed_bytes=3 * _GIBI,
        download_mb=80,
        build_seconds=20,
    ),
}


@dataclass
class BaseImage:
    """The base of every candidate of a campaign, built again when another program removes it."""

    id: str
    rebuild: Callable[[], str]

    def restore(self) -> None:
        """Build it again.

        Raises:
            BaseGoneError: that is impossible; a night cannot go on.
            DiskFullError, EngineError
        """
        try:
            self.id = self.rebuild()
        except ImageError as error:
            raise BaseGoneError(
                f"the base image was removed, and cannot be built again: {error.message}", error.remedy
            ) from error


def base_inputs(kind: Kind) -> str:
    """The tag of a base image, `<kind>-<hash>`; the hash covers Dockerfile, locks and root file system recipe.

    Raises:
        ImageError: the files of `images/` are missing.
    """
    digest = hashlib.sha256()
    parts = [_image_file("base.Dockerfile").read_bytes(), _lock(kind).read_bytes(), RECIPE.encode()]
    own = _extra_lock(kind)
    if own is None:
        parts.append(b"not resolved yet")  # no image has this key
    elif own:
        parts.append(own)
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return f"{kind}-{digest.hexdigest()[:12]}"


def find_base(client: docker.DockerClient, kind: Kind) -> str | None:
    """Find the id of the base image for the files as they are now; None when it has not been built yet.

    Raises:
        ImageError, EngineError
    """
    with engine_errors("looking for the base image", ImageError):
        images = client.images.list(filters=label_filter({"kind": "base", "inputs": base_inputs(kind)}))
    return str(images[0].id) if images else None


def ensure_base(
    client: docker.DockerClient, kind: Kind, state_dir: Path, on_progress: Callable[[str], None]
) -> str:
    """Build a base image (1 to 10 minutes), unless it exists.

    Two callers at once build it once. Leftovers of an earlier call that was killed are removed first.

    Args:
        state_dir: folder for downloads and scratch; several GB while building, the packages afterwards.
        on_progress: called at the start of each step with a message on what it does and how long it takes.

    Returns: the image id, `sha256:…`.

    Raises:
        ImageError: a download or the build failed.
        DiskFullError: not enough free space.
        EngineError: the engine stopped answering.
    """
    _resolve_extra(kind, on_progress)
    found = find_base(client, kind)
    if found is not None:
        return found
    with _exclusive(state_dir / "base.lock", on_progress):
        found = find_base(client, kind)  # another process may have built it while we waited
        return found if found is not None else _build_base(client, kind, state_dir, on_progress)


def _build_base(
    client: docker.DockerClient, kind: Kind, state_dir: Path, on_progress: Callable[[str], None]
) -> str:
    recipe = _RECIPES[kind]
    inputs = base_inputs(kind)
    _check_architecture(client)
    _check_disk(client, state_dir, kind)
    _remove_leftovers(client, state_dir)  # of a call that was killed
    lock = _whole_lock(kind, state_dir)
    lock_hash = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    on_progress(f"downloading the packages of {lock.name} (about {recipe.download_mb} MB) in the background")
    with downloading(lock, state_dir / "wheels" / f"{kind}-{lock_hash}", recipe.extra_index) as download:
        rootfs_id = ensure_rootfs(
            client,
            recipe_hash=hashlib.sha256(RECIPE.encode()).hexdigest()[:12],
            state_dir=state_dir,
            on_progress=on_progress,
        )
        with step(on_progress, "waiting for the packages"):
            wheelhouse = download.wait()
    context = [
        ("Dockerfile", _image_file("base.Dockerfile")),
        ("requirements.lock", lock),
        *((f"wheels/{wheel.name}", wheel) for wheel in sorted(wheelhouse.iterdir())),
    ]
    options = Build(
        doing=f"building the base image {inputs}",
        timeout_seconds=20 * recipe.build_seconds,
        labels={f"{LABEL}kind": "base", f"{LABEL}inputs": inputs},
        tag=f"{REPOSITORY}:{inputs}",
        arguments={"ROOTFS": rootfs_id, "IMPORTS": recipe.imports, "BUILDER": _builder(state_dir)},
        on_output=lambda text: keep_output(state_dir, "docker build", text),
    )
    try:
        with step(on_progress, f"building {REPOSITORY}:{inputs} (about {recipe.build_seconds} seconds)"):
            image_id = build(client, context_tar(context), options)
    except BaseException as error:
        # Releasing the builder's answer closes its connection, which cancels the build.
        traceback.clear_frames(error.__traceback__)
        _remove_leftovers(client, state_dir, patience_seconds=10.0)
        raise
    _remove_leftovers(client, state_dir)
    for other in wheelhouse.parent.glob(f"{kind}-*"):
        if other != wheelhouse:  # that one is kept: a base that is pruned at night needs no network
            shutil.rmtree(other, ignore_errors=True)
    return image_id


def _builder(state_dir: Path) -> str:
    """A name for the builds of one state folder, of which there is one at a time."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]


def _remove_leftovers(client: docker.DockerClient, state_dir: Path, patience_seconds: float = 0.0) -> None:
    for kind in ("build", "base"):  # the first stage of every build, and the second one of a failed one
        remove_leftovers(client, {"kind": kind, "builder": _builder(state_dir)}, patience_seconds)


def _image_file(name: str) -> Path:
    path = IMAGES_DIR / name
    if not path.is_file():
        raise ImageError(f"{path} is missing", "pip install --force-reinstall autoresearch-runner")
    return path


def _lock(kind: Kind) -> Path:
    return _image_file(f"{kind}.lock")


def _extra_lock(kind: Kind) -> bytes | None:
    """Lock of the user's own packages, which candidates may import; None when it must be resolved."""
    return b"" if kind == "prepare" else extra.locked(IMAGES_DIR, kind, _lock(kind).read_bytes())


def _resolve_extra(kind: Kind, on_progress: Callable[[str], None]) -> None:
    if _extra_lock(kind) is None:
        with step(on_progress, "resolving images/extra.in"):
            extra.resolve(IMAGES_DIR, kind, _lock(kind).read_bytes(), _RECIPES[kind].extra_index)


def _whole_lock(kind: Kind, state_dir: Path) -> Path:
    """The file of everything that is installed: the base image's lock, and that of the user's own packages."""
    own = _extra_lock(kind)
    if not own:
        return _lock(kind)
    path = state_dir / "wheels" / f"{kind}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_lock(kind).read_bytes() + b"\n" + own)
    return path


def _check_architecture(client: docker.DockerClient) -> None:
    with engine_errors("asking the engine for its architecture", ImageError):
        architecture = client.info()["Architecture"]
    if architecture != "x86_64":
        raise ImageError(
            f"the Docker engine runs on {architecture}; the locked packages are for x86_64",
            "use an x86_64 machine",
        )


def _check_disk(client: docker.DockerClient, state_dir: Path, kind: Kind) -> None:
    """Refuse a build that would fill a disk. An engine whose folder is not visible from here is not checked."""
    with engine_errors("asking the engine for its folder", ImageError):
        engine_dir = Path(client.info()["DockerRootDir"])
    needed = _RECIPES[kind].needed_bytes
    for folder in (state_dir, engine_dir):
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        if free < needed:
            raise DiskFullError(
                f"building the {kind} base image needs {needed / _GIBI:.0f} GiB of free disk, "
                f"and {folder} has {free / _GIBI:.1f}",
                f"autoresearch clean, or free some disk at {folder}",
            )


@contextmanager
def _exclusive(path: Path, on_progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock for the one builder of a state folder; the kernel releases it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another process, which builds the base image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
