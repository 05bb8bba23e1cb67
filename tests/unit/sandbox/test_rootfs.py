"""The root file system: from a registry that answers, else from debootstrap, which leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from runner.errors import ImageError
from runner.sandbox.images import rootfs

ROOT = Path(__file__).resolve().parents[3]


def test_an_unreachable_registry_costs_seconds(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(rootfs, "REGISTRY_SECONDS", 0.1)
    client = SimpleNamespace(api=SimpleNamespace(inspect_distribution=lambda name: release.wait(60)))
    started = time.monotonic()
    assert not rootfs._registry_answers(client)
    assert time.monotonic() - started < 5
    release.set()


def test_a_registry_that_knows_the_image_is_used():
    asked = []
    client = SimpleNamespace(
        api=SimpleNamespace(inspect_distribution=asked.append),
        images=SimpleNamespace(pull=lambda name, tag, platform: SimpleNamespace(id=f"sha256:{name}:{tag}")),
    )
    assert rootfs._pull(client, asked.append) == f"sha256:python:{rootfs.REGISTRY_TAG}"
    assert asked[0] == f"python:{rootfs.REGISTRY_TAG}"


def test_a_registry_that_breaks_off_is_not_the_end():
    def broken(name, tag, platform):
        raise requests.ConnectionError("cut")

    client = SimpleNamespace(
        api=SimpleNamespace(inspect_distribution=lambda name: {}), images=SimpleNamespace(pull=broken)
    )
    assert rootfs._pull(client, lambda message: None) is None


def test_without_registry_and_root_the_error_names_both_ways(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match=r"(?s)needs root.*sudo make prepare"):
        rootfs._check_debootstrap()


def test_debootstrap_without_the_keyring_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(rootfs, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(ImageError, match=r"none\.gpg is missing"):
        rootfs._check_debootstrap()


BOOTSTRAP = """
import sys
from pathlib import Path
from runner.sandbox.images import rootfs
try:
    rootfs.ensure_rootfs.__globals__["_find"] = lambda client, recipe: None
    rootfs.ensure_rootfs.__globals__["_pull"] = lambda client, on_progress: None
    rootfs.ensure_rootfs.__globals__["_check_debootstrap"] = lambda: None
    rootfs.ensure_rootfs(None, recipe_hash="x", state_dir=Path(sys.argv[1]), on_progress=lambda message: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, and so this test of it, needs root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_debootstrap_leaves_no_process_and_no_mount(tmp_path, number):
    bin_folder, scratch = tmp_path / "bin", tmp_path / "state" / "rootfs"
    bin_folder.mkdir()
    os.mkfifo(tmp_path / "started")
    # Does what debootstrap does half-way: files, and /proc mounted inside the target.
    (bin_folder / "debootstrap").write_text(
        f"""#!/bin/bash
        exec 9>{tmp_path}/alive; flock 9
        target=${{@: -2:1}}; mkdir -p "$target/proc"; touch "$target/file"
        mount -t proc proc "$target/proc" || exit 1
        (sleep 1000) & echo up >{tmp_path}/started; wait
        """
    )
    (bin_folder / "debootstrap").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP, str(scratch.parent)],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        cwd=ROOT,
    )
    assert (tmp_path / "started").read_text() == "up\n"
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    with (tmp_path / "alive").open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)  # waits for the last process of the bootstrap
    assert str(scratch) not in Path("/proc/mounts").read_text()
    assert scratch.exists() is (number == signal.SIGKILL)
    if scratch.exists():  # nothing could remove it; the next call does, and finds no mount under it
        assert (scratch / "file").exists()
        assert os.listdir(scratch / "proc") == []


def test_a_failed_debootstrap_says_why_and_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "_find", lambda client, recipe: None)
    monkeypatch.setattr(rootfs, "_pull", lambda client, on_progress: None)
    monkeypatch.setattr(rootfs, "_check_debootstrap", lambda: None)
    failed = subprocess.CompletedProcess([], 1, b"I: Retrieving InRelease\nE: Failed getting release file\n")
    monkeypatch.setattr(rootfs, "_run", lambda command, environment: failed)
    with pytest.raises(ImageError, match="E: Failed getting release file"):
        rootfs.ensure_rootfs(None, recipe_hash="x", state_dir=tmp_path, on_progress=lambda message: None)
    assert not (tmp_path / "rootfs").exists()
    assert "E: Failed getting release file" in (tmp_path / "logs" / "setup.log").read_text()
