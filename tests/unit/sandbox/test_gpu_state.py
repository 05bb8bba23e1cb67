"""The state of a GPU as the driver's tool reports it: our own processes are no others, and nothing fails."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from runner.errors import EngineError
from runner.sandbox import gpu_state
from runner.sandbox.gpu_state import GpuState, read_gpu

OURS, THEIRS = "a" * 64, "b" * 64


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A shell script in the place of nvidia-smi, and processes with the control groups of containers."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(gpu="1980, 700.00, 0x0000000000000004", pids=(), script=None):
        tool = tmp_path / "nvidia-smi"
        apps = "\n".join(map(str, pids))
        answer = (
            f'[ "$1" = --id=GPU-1 ] || exit 6\n[ "$3" = --format=csv,noheader,nounits ] || exit 2\n'
            f"case $2 in\n--query-gpu=clocks.sm,power.limit,clocks_event_reasons.active) echo '{gpu}' ;;\n"
            f"--query-compute-apps=pid) cat <<'END'\n{apps}\nEND\n;;\n*) exit 2 ;;\nesac"
        )
        tool.write_text(f"#!/bin/sh\n{script or answer}\n")
        tool.chmod(0o755)

    return write


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Control groups of processes, by number; a process without one is hidden or gone."""
    known = {}

    def path(name):
        pid = int(re.fullmatch(r"/proc/(\d+)/cgroup", name)[1])
        made = tmp_path / f"cgroup-{pid}"
        if pid in known:
            made.write_text(f"0::/{known[pid]}\n")
        return made

    monkeypatch.setattr(gpu_state, "Path", path)
    return known


def own():
    return {OURS}


def test_a_card_that_works_at_its_power_limit_is_not_disturbed(driver):
    driver()
    assert read_gpu("GPU-1", own) == GpuState(clock_mhz=1980, power_limit_watts=700, slowdown=None, others=0)


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ("0x0000000000000020", "its temperature"),
        ("0x0000000000000044", "its temperature"),
        ("0x0000000000000080", "the power supply"),
        ("0x0000000000000008", "a hardware slowdown"),
        ("0x0000000000000000", None),
        ("[N/A]", None),
    ],
)
def test_a_throttled_clock_is_named_by_its_cause(driver, reasons, words):
    driver(f"1200, [N/A], {reasons}")
    assert read_gpu("GPU-1", own) == GpuState(clock_mhz=1200, power_limit_watts=None, slowdown=words, others=0)


def test_processes_outside_of_our_containers_are_others(driver, groups):
    groups.update({
        10: f"system.slice/docker-{OURS}.scope", 11: f"docker/{OURS}",
        12: f"system.slice/docker-{THEIRS}.scope", 13: "user.slice/user-1000.slice/session-2.scope",
    })  # fmt: skip
    driver(pids=(10, 11))
    assert read_gpu("GPU-1", own).others == 0, "the candidate's own"
    driver(pids=(10, 12, 13, 99))
    assert read_gpu("GPU-1", own).others == 2, "99 is gone or cannot be seen"


def test_what_the_engine_does_not_say_is_no_disturbance(driver, groups):
    def fails():
        raise EngineError("listing containers failed", "again")

    groups.update({10: f"docker/{OURS}"})
    driver(pids=(10,))
    assert read_gpu("GPU-1", fails).others == 0


def test_a_process_of_this_machine_is_found_in_its_real_control_group(driver):
    with subprocess.Popen(["sleep", "60"]) as process:
        in_container = re.search(r"[0-9a-f]{64}", Path("/proc/self/cgroup").read_text())
        driver(pids=(process.pid,))
        found = read_gpu("GPU-1", lambda: {in_container[0]} if in_container else set()).others
        process.kill()
    assert found == (0 if in_container else 1)
    assert os.getpid() != process.pid


@pytest.mark.parametrize("script", ["exit 9", "echo '[GPU is lost]'", "printf '\\377\\376, 1'"])
def test_a_driver_that_fails_says_nothing(driver, script):
    driver(script=script)
    assert read_gpu("GPU-1", own) == GpuState(clock_mhz=None, power_limit_watts=None, slowdown=None, others=0)


def test_a_driver_that_hangs_or_is_missing_says_nothing(driver, monkeypatch):
    monkeypatch.setattr(gpu_state, "QUERY_SECONDS", 0.1)
    driver(script="exec sleep 60")
    assert read_gpu("GPU-1", own).clock_mhz is None
    monkeypatch.setenv("PATH", "")
    assert read_gpu("GPU-1", own).clock_mhz is None
