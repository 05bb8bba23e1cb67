"""A Docker engine of a test's own, to be killed, stopped and robbed of its socket.

The engine of the machine is never touched. Each private one lives in a folder of its own under `ROOT`, whose lock
its test holds: what a killed test run left behind has no lock, is found at the next start, and ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

ROOT = Path(tempfile.gettempdir()) / "autoresearch-engines"
START_SECONDS = 60.0


class PrivateEngine:
    """A dockerd, its containerd, and the containers that outlive them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        (self.folder / "pid").unlink(missing_ok=True)  # of a daemon that was killed; its number may be another's
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [
                    "dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                    "--pidfile", self.folder / "pid", "-H", self.url,
                    "--bridge=none", "--iptables=false", "--ip6tables=false", "--live-restore",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        give_up = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.daemon.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"dockerd did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether the daemon serves requests."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))  # a client that is refused would leave its own socket open
            with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=5)) as client:
                return bool(client.ping())
        except (OSError, docker.errors.DockerException):
            return False

    def send(self, number: int) -> None:
        """Send a signal to the daemon alone."""
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the daemon; its containers run on."""
        self.send(number)
        assert self.daemon is not None
        self.daemon.wait(30)

    def contained(self) -> dict[int, str]:
        """Processes in containers of this engine: their ids on this machine, and their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    lines = (entry / "mountinfo").read_text().splitlines()
                    if any(line.split()[4] == "/" and f"{self.folder}/data" in line for line in lines):
                        found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def servants(self) -> list[int]:
        """Processes that name this engine's folder on their command line: dockerd, containerd, shims."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    program = Path(os.fsdecode(arguments[0])).name
                    named = any(os.fsencode(self.folder) in argument for argument in arguments)
                    if named and program in (
                        "dockerd",
                        "containerd",
                        "containerd-shim-runc-v2",
                        "containerd-shim",
                    ):
                        found.append(int(entry.name))
        return found

    def crash(self) -> None:
        """Everything at once, as when the power fails: daemon, containers, and what lay in memory."""
        give_up = time.monotonic() + START_SECONDS
        while left := [*self.servants(), *self.contained()]:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            assert time.monotonic() < give_up, f"processes that do not die: {left}"
            time.sleep(0.05)
        if self.daemon is not None:
            self.daemon.wait(30)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([one for one in mounts if one.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.folder / "exec", ignore_errors=True)

    def end(self) -> None:
        """End it and remove all that it had."""
        self.crash()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """A running engine without images; ended and removed whatever happens. Skips where none can be had."""
    if os.geteuid() != 0:
        pytest.skip("a private Docker engine needs root")
    if shutil.which("dockerd") is None:
        pytest.skip("a private Docker engine needs dockerd on this machine")
    ROOT.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with ROOT.with_suffix(".lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # else a folder whose lock is not taken yet would pass for a leftover
            for leftover in ROOT.iterdir():
                with (leftover / "lock").open("w") as lock, contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    PrivateEngine(leftover).end()
            folder = Path(tempfile.mkdtemp(dir=ROOT))
            held = stack.enter_context((folder / "lock").open("w"))
            fcntl.flock(held, fcntl.LOCK_EX)
        engine = PrivateEngine(folder)
        try:
            engine.start()
            yield engine
        finally:
            if engine.daemon is not None:
                with contextlib.suppress(ProcessLookupError):
                    engine.send(signal.SIGCONT)
            engine.end()


def copy_image(source: docker.DockerClient, image_id: str, target: PrivateEngine) -> None:
    """Bring an image from another engine: by hard links where both store layers as overlays, in about a second.

    Layers are never written to, so two engines can share the files. Else as a stream, which takes 20 s and more.
    """
    theirs, ours = Path(source.info()["DockerRootDir"]), target.folder / "data"
    view = target.folder / "view"
    view.mkdir()
    target.kill(signal.SIGTERM)
    # In a mount namespace of its own, which ends with the process: nothing that removes `view` can meet the mount.
    linking = [sys.executable, __file__, str(theirs), str(ours), str(view), image_id]
    linked = subprocess.run(["unshare", "--mount", *linking], check=False, capture_output=True)
    if linked.returncode != 0:
        shutil.rmtree(ours)
    target.start()
    if linked.returncode != 0:
        with contextlib.closing(docker.DockerClient(base_url=target.url, timeout=300)) as client:
            for _ in client.api.load_image(source.api.get_image(image_id)):
                pass


def _link_image(theirs: Path, ours: Path, view: Path, image_id: str) -> None:
    """Configuration and layers of an image, in the layout of the `overlay2` driver.

    Raises:
        OSError: another layout, or another disk.
    """
    # Each engine mounts its own folder over itself, and no link leads from mount to mount: go below them.
    subprocess.run(["mount", "--bind", "/", view], check=True)
    theirs, ours = view / theirs.relative_to("/"), view / ours.relative_to("/")
    configuration = Path("image/overlay2/imagedb/content/sha256") / image_id.removeprefix("sha256:")
    shutil.copy(theirs / configuration, ours / configuration)
    chain = ""
    for layer in json.loads((theirs / configuration).read_text())["rootfs"]["diff_ids"]:
        chain = f"sha256:{hashlib.sha256(f'{chain} {layer}'.encode()).hexdigest()}" if chain else layer
        facts = Path("image/overlay2/layerdb/sha256") / chain.removeprefix("sha256:")
        shutil.copytree(theirs / facts, ours / facts)
        folder = (theirs / facts / "cache-id").read_text()
        shutil.copytree(
            theirs / "overlay2" / folder, ours / "overlay2" / folder, symlinks=True, copy_function=_link
        )
        (ours / "overlay2/l" / (theirs / "overlay2" / folder / "link").read_text()).symlink_to(f"../{folder}/diff")


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


if __name__ == "__main__":
    _link_image(*map(Path, sys.argv[1:4]), sys.argv[4])
