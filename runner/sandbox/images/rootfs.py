"""A Debian with Python 3.11, a C++ compiler and the Python headers: from a registry, else from debootstrap.

The same Dockerfile works on either. The registry's image is the full `python` image: the slim one lacks the
compiler, and the build has no network to install it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import requests

from runner.errors import ImageError
from runner.sandbox.engine import LABEL, engine_errors, refused
from runner.sandbox.images.cleanup import label_filter
from runner.sandbox.images.steps import keep_output, step

REGISTRY_REPOSITORY = "python"
REGISTRY_TAG = "3.11.14-bookworm"
REGISTRY_SECONDS = 8.0
"""Time limit for the question whether a registry has the image; an unreachable one must cost only seconds."""

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("g++", "gcc", "python3", "python3-dev", "python3-venv")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LEFT_OUT = (
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./tmp/*",
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
)
RECIPE = f"{REGISTRY_REPOSITORY}:{REGISTRY_TAG} | debootstrap {SUITE} {' '.join(PACKAGES)} - {' '.join(LEFT_OUT)}"
"""Everything that determines its contents; part of the base images' tag."""

_REMEDY = "sudo apt-get install debootstrap debian-archive-keyring, then run this again"
_NUM_MESSAGE_LINES = 8


def ensure_rootfs(
    client: docker.DockerClient, *, recipe_hash: str, state_dir: Path, on_progress: Callable[[str], None]
) -> str:
    """Find, pull or bootstrap an image to build on; returns its id.

    Args:
        recipe_hash: hash of `RECIPE`; names a bootstrapped image, and finds it again.
        state_dir: for the log, and for a folder that holds a whole Debian meanwhile.
        on_progress: called with a message on each step and its duration.

    Raises:
        ImageError: no registry answers and debootstrap cannot be used or fails.
        DiskFullError, EngineError
    """
    found = _find(client, recipe_hash)
    if found is not None:
        return found
    pulled = _pull(client, on_progress)
    if pulled is not None:
        return pulled
    _check_debootstrap()
    scratch = state_dir / "rootfs"
    doing = "no registry answers: making a Debian root file system with debootstrap (about 50 seconds)"
    try:
        with step(on_progress, doing):
            _debootstrap(scratch, lambda text: keep_output(state_dir, "debootstrap", text))
        with step(on_progress, "importing the root file system (about 10 seconds)"):
            return _import(client, scratch, recipe_hash)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _find(client: docker.DockerClient, recipe_hash: str) -> str | None:
    with engine_errors("looking for a root file system", ImageError):
        for image in client.images.list(filters=label_filter({"kind": "rootfs", "inputs": recipe_hash})):
            return str(image.id)
        try:
            return str(client.images.get(f"{REGISTRY_REPOSITORY}:{REGISTRY_TAG}").id)
        except docker.errors.ImageNotFound:
            return None


def _pull(client: docker.DockerClient, on_progress: Callable[[str], None]) -> str | None:
    """Pull the registry's image; None when no registry provides it, for any reason."""
    if not _registry_answers(client):
        return None
    try:
        with step(on_progress, f"pulling {REGISTRY_REPOSITORY}:{REGISTRY_TAG} (about 400 MB)"):
            return str(client.images.pull(REGISTRY_REPOSITORY, tag=REGISTRY_TAG, platform="linux/amd64").id)
    except (docker.errors.DockerException, requests.RequestException) as error:
        if "no space left on device" in str(error).lower():
            raise refused("pulling the root file system", str(error), ImageError) from error
        return None  # rate limits, a proxy's login page, a cut line: debootstrap is the other way


def _registry_answers(client: docker.DockerClient) -> bool:
    """Whether the engine's registry has the image.

    Asked on a thread of its own, because the engine keeps trying an unreachable registry for too long.
    """
    answers = threading.Event()

    def ask() -> None:
        try:
            client.api.inspect_distribution(f"{REGISTRY_REPOSITORY}:{REGISTRY_TAG}")
            answers.set()
        except (docker.errors.DockerException, requests.RequestException):
            pass
        finally:
            done.set()

    done = threading.Event()
    threading.Thread(target=ask, name="registry-probe", daemon=True).start()
    done.wait(REGISTRY_SECONDS)
    return answers.is_set()


def _check_debootstrap() -> None:
    if os.geteuid() != 0:
        raise ImageError(
            f"no registry has {REGISTRY_REPOSITORY}:{REGISTRY_TAG} for the engine, and debootstrap needs root",
            "sudo make prepare, once; then run this again",
        )
    missing = [tool for tool in ("debootstrap", "unshare", "setpriv", "tar") if shutil.which(tool) is None]
    if missing:
        raise ImageError(f"no registry answers, and {missing[0]} is not installed", _REMEDY)
    if not KEYRING.exists():  # without it, debootstrap would go on without checking a signature
        raise ImageError(f"no registry answers, and {KEYRING} is missing", _REMEDY)


def _debootstrap(target: Path, on_output: Callable[[str], None]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = [
        # Dies with us, even by SIGKILL, and takes every process and mount of the bootstrap with it: debootstrap
        # mounts /proc inside the target, and removing the target through a mount left behind would be a disaster.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("debootstrap", "--variant=minbase", "--force-check-gpg", f"--keyring={KEYRING}"),
        *(f"--include={','.join(PACKAGES)}", SUITE, str(target), _host_mirror()),
    ]
    environment = {**os.environ, **_host_proxy(), "LC_ALL": "C"}
    result = _run(command, environment)
    output = result.stdout.decode("utf-8", "replace")
    on_output(output)
    if result.returncode != 0:
        lines = [line for line in output.splitlines() if line.strip()]
        shown = "".join(f"\n    {line}" for line in lines[-_NUM_MESSAGE_LINES:])
        raise refused(
            "making the root file system with debootstrap",
            shown,
            ImageError,
            remedy="check that the Debian mirror is reachable (apt-get update), then run this again",
        )


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run in a session of its own, so that Ctrl-C reaches only us; then kill it and wait for its last process."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            process.communicate()  # ends when the last holder of the pipe is gone: nothing writes there any more
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _import(client: docker.DockerClient, root: Path, recipe_hash: str) -> str:
    changes = [f"LABEL {LABEL}kind=rootfs {LABEL}inputs={recipe_hash}"]
    command = ["tar", "--create", "--numeric-owner", "--one-file-system", "--directory", str(root)]
    command += [f"--exclude={pattern}" for pattern in LEFT_OUT]
    with subprocess.Popen([*command, "."], stdout=subprocess.PIPE) as tar:
        try:
            with engine_errors("importing the root file system", ImageError):
                client.api.import_image_from_stream(
                    tar.stdout, repository="autoresearch-base", tag=f"rootfs-{recipe_hash}", changes=changes
                )
        except BaseException:
            tar.kill()
            raise
    if tar.returncode != 0:
        with engine_errors("removing an incomplete root file system", ImageError):
            client.api.remove_image(f"autoresearch-base:rootfs-{recipe_hash}", force=True)
        raise ImageError("tar could not read the whole root file system", "run this again")
    found = _find(client, recipe_hash)
    if found is None:
        raise ImageError("the engine imported the root file system but does not list it", "autoresearch doctor")
    return found


def _host_mirror() -> str:
    """The Debian mirror in the host's apt configuration, which may be near; else the public one."""
    result = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for uri in result.stdout.split():
        if uri.startswith(("http://", "https://")) and uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    return MIRROR


def _host_proxy() -> dict[str, str]:
    """The proxy of apt, for debootstrap's wget; the environment's own proxy stays when apt has none."""
    result = subprocess.run(
        ["apt-config", "shell", "proxy", "Acquire::http::Proxy"], capture_output=True, text=True, check=False
    )
    value = result.stdout.strip().removeprefix("proxy=").strip("'")
    return {"http_proxy": value} if value and value != "DIRECT" else {}
