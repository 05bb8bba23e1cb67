"""Facts of this host: its GPUs, as the driver's own tool lists them, and the load and clock of its processors.

Two libraries were considered and rejected. `nvidia-ml-py` loads the driver's library into this process, where a
driver that hangs or crashes would take a whole night with it; `nvidia-smi` is a process of its own that can be
given up. `psutil` returns per-core times and clocks as a list without the core numbers of `/proc`, so that one
core which is offline shifts all that follow.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runner.errors import EngineError
from runner.untrusted import one_line

DRIVER_SECONDS = 30.0
"""Time limit for nvidia-smi; without persistence mode it loads the driver first."""
_REMEDY = "reinstall the NVIDIA driver, or reboot after an update of it; or choose --profile cpu"
_NOT_REPORTED = {"N/A", "NOT SUPPORTED"}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU."""

    uuid: str
    name: str
    memory_mib: int | None  # None: the driver does not report it, as where CPU and GPU share one memory


def find_gpus() -> tuple[Gpu, ...]:
    """List every GPU that `nvidia-smi` lists; empty only when that program is not installed.

    Raises:
        EngineError: there is a driver, but it lists no GPU; a night on the CPU instead would be a surprise.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, encoding="utf-8", errors="replace", timeout=DRIVER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"nvidia-smi did not answer within {DRIVER_SECONDS:g} s", _REMEDY) from error
    except OSError as error:
        raise EngineError(f"nvidia-smi cannot be started: {error.strerror}", _REMEDY) from error
    lines = [line.strip() for line in answer.stdout.splitlines()]
    lines = [line for line in lines if line and not line.startswith("WARNING:")]  # of a card's own memory
    if "No devices were found" in lines or not (lines or answer.returncode):
        raise EngineError("nvidia-smi is installed, but lists no GPU", _REMEDY)
    if answer.returncode:
        how = f"with exit code {answer.returncode}"
        if answer.returncode < 0:
            how = f"by signal {-answer.returncode} ({signal.strsignal(-answer.returncode)})"
        said = next(iter([*lines, *answer.stderr.strip().splitlines()]), "it said nothing")
        raise EngineError(f"nvidia-smi ended {how}: {one_line(said)}", _REMEDY)
    return tuple(_gpu_of(line) for line in lines)


def _gpu_of(line: str) -> Gpu:
    """Parse one line: the UUID, a name that may contain commas, and the memory."""
    uuid, _, rest = line.partition(",")
    name, _, memory = (part.strip() for part in rest.rpartition(","))
    reported = memory.strip("[]").upper() not in _NOT_REPORTED
    if not uuid.startswith("GPU-") or not name or (reported and not (memory.isascii() and memory.isdigit())):
        raise EngineError(f"nvidia-smi lists a GPU in a line that cannot be read: {one_line(line)}", _REMEDY)
    return Gpu(uuid=uuid.strip(), name=name, memory_mib=int(memory) if reported else None)


def cpu_name() -> str:
    """Name of the processor model, as the kernel reports it."""
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def cores_mhz(cores: Collection[int]) -> float | None:
    """Mean present clock of some cores; None where it is not reported."""
    try:
        return _cores_mhz(cores)
    except (OSError, ValueError):
        return None  # a number for people: no measurement fails for want of it


def _cores_mhz(cores: Collection[int]) -> float | None:
    found = []
    core = -1
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "processor":
            core = int(value)
        elif name.strip() == "cpu MHz" and core in cores:
            found.append(float(value))
    return sum(found) / len(found) if found else None


def suspended_seconds() -> float:
    """Seconds that this machine was suspended since it started: one clock counts them, the other does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def busy_seconds(cores: Collection[int]) -> float:
    """Seconds that these cores were busy since the machine started, stolen time included.

    Stolen time is what the hypervisor gave to other machines; a training loses it like any other.
    """
    ticks = 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
