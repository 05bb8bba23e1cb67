"""Full, read-only and failing disks under all that a controller writes: one clear error, nothing half-done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.host_night import TRAINING

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a small file system in memory somewhere, and fill it."""
    mounted = []

    def one(folder, options):
        folder.mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", options, "none", str(folder))
        mounted.append(folder)
        return folder

    yield one
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Leave no byte; returns how to make room."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    return ballast.unlink


def fill_inodes(folder):
    """Leave no inode; returns how to make room."""
    many = folder / "many"
    many.mkdir()
    names = []
    try:
        while True:
            (many / str(len(names))).touch()
            names.append(many / str(len(names)))
    except OSError:
        pass

    def remove():
        for name in names:
            name.unlink()
        many.rmdir()

    return remove


FULL = {"bytes": ("size=24m", fill), "inodes": ("size=24m,nr_inodes=3000", fill_inodes)}


def move_to(night, small_disk, what, options):
    """Put a part of what the controller writes on a disk of its own."""
    if what == "git":
        small_disk(night.folder / "disk", options)
        (night.root / ".git").rename(night.folder / "kept.git")
        subprocess.run(["cp", "-a", night.folder / "kept.git", night.folder / "disk" / "git"], check=True)
        (night.root / ".git").write_text(f"gitdir: {night.folder / 'disk' / 'git'}\n")
        return night.folder / "disk"
    if what == "scratch of git":
        night.environment["TMPDIR"] = str(night.folder / "disk")
        return small_disk(night.folder / "disk", options)
    return small_disk(night.state / {"everything": "", "claims": "claims", "audits": "audits"}[what], options)


@needs_mounts
@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("what", ["everything", "claims", "audits", "git", "scratch of git"])
def test_a_disk_that_fills_up_in_the_night_is_one_clear_error_and_with_room_the_night_goes_on(
    night, whole, small_disk, what, kind
):
    options, make_full = FULL[kind]
    disk = move_to(night, small_disk, what, options)
    gate = ("experiment_opened", "after", 3) if "git" in what else TRAINING
    process = night.start(gates=[gate])
    process.at_gate()
    make_room = make_full(disk)
    process.open_gate()
    ended = process.end()
    if (what, kind) == ("everything", "inodes"):
        # The ledger's files are open already. What is written anew next are an audit's rows.
        assert "audit" in ended.errors
    assert ended.code == 1, ended
    told = ended.told()
    assert "No space left" in told or "no room" in told, told
    assert "free some disk" in told
    assert night.rows("experiments")[-1]["verdict"] is None, "no fault of ours is a verdict"
    make_room()
    ended = night.run()
    assert ended.code == 0, ended.errors
    assert night.final_state() == whole


@needs_mounts
@pytest.mark.parametrize("kind", FULL)
def test_a_disk_that_is_full_from_the_start_is_one_clear_error(night, whole, small_disk, kind):
    options, make_full = FULL[kind]
    make_room = make_full(small_disk(night.state, options))
    ended = night.run()
    assert ended.code == 1
    assert "free some disk" in ended.told()
    assert str(night.state) in ended.told()
    make_room()
    assert night.run().code == 0
    assert night.final_state() == whole


@needs_mounts
def test_events_that_cannot_be_written_are_counted_and_end_no_night(night, whole, small_disk):
    make_room = fill(small_disk(night.state / "logs", "size=64k"))
    process = night.start(gates=[TRAINING])
    process.at_gate()
    make_room()
    process.open_gate()
    assert process.end().code == 0
    assert night.final_state() == whole
    lines = night.events()
    assert lines[0]["event"] == "events_lost" and lines[0]["number"] > 5
    assert lines[-1]["event"] == "campaign_ended"


@needs_mounts
def test_a_read_only_state_folder_is_one_clear_error(night, whole, small_disk):
    small_disk(night.state, "size=24m")
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.stop()
    process.end()
    mount("-o", "remount,ro", str(night.state))
    ended = night.run()
    assert ended.code == 1
    assert str(night.state) in ended.told()
    assert "move" not in ended.told(), "nothing is wrong with the ledger itself"
    assert night.run("status").code == 0, "who only reads can do so"
    mount("-o", "remount,rw", str(night.state))
    assert night.run().code == 0
    assert night.final_state() == whole


@pytest.fixture
def failing_disk(tmp_path):
    """A real ext4 that can be made to fail, and then is read-only like any that meets a bad block."""
    image, folder = tmp_path / "ext4", tmp_path / "repository" / ".autoresearch"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    if subprocess.run(["mkfs.ext4", "-q", image], capture_output=True, check=False).returncode:
        pytest.skip("no mkfs.ext4 here")

    def attach():
        folder.mkdir(exist_ok=True)
        mount("-o", "loop,errors=remount-ro", str(image), str(folder))

    def fail():
        device = subprocess.run(
            ["findmnt", "-no", "SOURCE", folder], capture_output=True, text=True, check=True
        ).stdout.strip()
        switch = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
        if not switch.exists():
            pytest.skip("this kernel cannot make a file system fail")
        switch.write_text("1")

    def mend():
        subprocess.run(["umount", folder], check=True)
        subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
        attach()

    yield attach, fail, mend
    subprocess.run(["umount", folder], capture_output=True, check=False)


@needs_mounts
def test_a_disk_that_fails_in_the_night_is_one_clear_error_and_costs_no_row(night, whole, failing_disk):
    attach, fail, mend = failing_disk
    attach()
    process = night.start(gates=[TRAINING])
    process.at_gate()
    before = night.rows("trials")
    fail()
    process.open_gate()
    ended = process.end()
    assert ended.code == 1, ended
    assert str(night.state) in ended.told()
    assert "dmesg" in ended.told()
    mend()
    assert night.rows("trials")[: len(before)] == before
    assert night.rows("experiments")[2]["verdict"] is None
    assert night.run().code == 0
    assert night.final_state() == whole


@needs_mounts
def test_a_read_only_git_folder_is_one_clear_error(night, whole, small_disk):
    disk = move_to(night, small_disk, "git", "size=24m")
    process = night.start(gates=[("experiment_opened", "after", 3)])
    process.at_gate()
    mount("-o", "remount,ro", str(disk))
    process.open_gate()
    ended = process.end()
    assert ended.code == 1
    assert "read-only" in ended.told()
    mount("-o", "remount,rw", str(disk))
    assert night.run().code == 0
    assert night.final_state() == whole


def test_room_enough_is_no_fault(night, whole):
    """The detectors of this file do not fire on a disk that is fine."""
    ended = night.run()
    assert ended.code == 0
    assert "error" not in ended.errors
    assert night.final_state() == whole
