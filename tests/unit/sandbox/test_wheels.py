"""Downloads of a lock's packages: whole or absent, and checked against the lock's hashes."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from runner.errors import ImageError
from runner.sandbox.images import wheels


def fake_pip(tmp_path: Path, monkeypatch, script: str) -> None:
    """Put a shell script in the place of Python; `$dest` is the folder that pip should fill."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/bash\nfor dest; do :; done\necho "$*" >>{tmp_path}/calls\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text("x==1 --hash=sha256:0\n")
    return path


def test_a_finished_download_is_a_folder_of_its_own(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    house = tmp_path / "wheels" / "x"
    with wheels.downloading(lock, house, None) as download:
        assert download.wait() == house
    assert os.listdir(house) == ["x.whl"]
    assert os.listdir(house.parent) == ["x"]


def test_a_finished_download_is_used_again(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, "exit 1")
    house = tmp_path / "wheels" / "x"
    house.mkdir(parents=True)
    with wheels.downloading(lock, house, None) as download:
        assert download.wait() == house
    assert not (tmp_path / "calls").exists()


def test_a_public_index_is_asked_only_when_the_host_has_no_such_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, '[[ $* == *https://public.example* ]] || exit 1; touch "$dest/x.whl"')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", "https://public.example") as download:
        download.wait()
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert "--extra-index-url" not in first
    assert "--extra-index-url https://public.example" in second


def test_a_public_index_is_not_asked_when_the_host_has_the_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", "https://public.example") as download:
        download.wait()
    assert "public.example" not in (tmp_path / "calls").read_text()


def test_a_failed_download_says_what_pip_said_and_leaves_nothing(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/half"; echo chatter; echo "ERROR: no x for you"; exit 1')
    with (
        pytest.raises(ImageError, match=r"x\.lock:\n    ERROR: no x for you\n"),
        wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download,
    ):
        download.wait()
    assert os.listdir(tmp_path / "wheels") == []


def test_an_abandoned_download_ends_and_leaves_nothing(tmp_path, monkeypatch, lock):
    os.mkfifo(tmp_path / "started")
    fake_pip(tmp_path, monkeypatch, f'touch "$dest/half"; echo $$ >{tmp_path}/started; exec sleep 1000')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None):
        pid = int((tmp_path / "started").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert os.listdir(tmp_path / "wheels") == []


def test_what_a_killed_download_left_is_not_taken_for_a_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    partial = tmp_path / "wheels" / "x.partial"
    partial.mkdir(parents=True)
    (partial / "half.whl").touch()
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download:
        assert os.listdir(download.wait()) == ["x.whl"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An index of one package, with a wheel per kind of machine; returns its wheels' hashes by name."""
    index = tmp_path / "index"
    index.mkdir()
    tags = ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-win_amd64")
    hashes = {}
    for tag in tags:
        path = index / f"tiny-1.0-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            wheel.writestr("tiny-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            wheel.writestr("tiny-1.0.dist-info/RECORD", "")
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return hashes


def test_pip_takes_the_wheel_of_the_image_whatever_the_host_is(tmp_path, package):
    lock = tmp_path / "tiny.lock"
    lock.write_text("tiny==1.0 " + " ".join(f"--hash=sha256:{value}" for value in package.values()))
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download:
        assert os.listdir(download.wait()) == ["tiny-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"]


def test_a_package_that_differs_from_its_hash_is_refused(tmp_path, package):
    lock = tmp_path / "tiny.lock"
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}")
    with (
        pytest.raises(ImageError, match=r"(?s)HASHES.*Got"),
        wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download,
    ):
        download.wait()
