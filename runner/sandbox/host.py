"""What this host has: GPUs, asked from the driver's own tool, and how busy its cores are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runner.errors import EngineError
from runner.untrusted import one_line

DRIVER_SECONDS = 30.0
"""Longest answer of nvidia-smi; without its persistence mode the driver is loaded first."""
_REMEDY = "reinstall the NVIDIA driver, or reboot after an update of it; or choose --profile cpu"
_NOT_REPORTED = {"N/A", "NOT SUPPORTED"}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU."""

    uuid: str
    name: str
    memory_mib: int | None  # None: the driver does not report it, as where CPU and GPU share one memory


def find_gpus() -> tuple[Gpu, ...]:
    """Every GPU that `nvidia-smi` lists; empty without that program, never because it fails.

    Raises:
        EngineError: there is a driver, but it tells no GPU; a night on the CPU instead would surprise.
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
    """The GPU of one line: first its UUID, last its memory, between them a name that may hold commas."""
    uuid, _, rest = line.partition(",")
    name, _, memory = (part.strip() for part in rest.rpartition(","))
    reported = memory.strip("[]").upper() not in _NOT_REPORTED
    if not uuid.startswith("GPU-") or not name or (reported and not (memory.isascii() and memory.isdigit())):
        raise EngineError(f"nvidia-smi lists a GPU in a line that cannot be read: {one_line(line)}", _REMEDY)
    return Gpu(uuid=uuid.strip(), name=name, memory_mib=int(memory) if reported else None)


def cpu_name() -> str:
    """Model of the processor, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def clock_mhz(cores: Collection[int], gpu: str | None) -> float | None:
    """The present clock: of a GPU's processors, else the mean of some cores; None where nobody says.

    Args:
        cores: of the host.
        gpu: its UUID; None: the cores do the work.
    """
    try:
        return _cores_mhz(cores) if gpu is None else _gpu_mhz(gpu)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None  # a figure for people: no measurement fails for it


def _gpu_mhz(uuid: str) -> float:
    query = ["nvidia-smi", f"--id={uuid}", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    return float(subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout)


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


def busy_seconds(cores: Collection[int]) -> float:
    """Seconds that these cores were not idle since the machine started, stolen time included.

    Stolen time is what a hypervisor gave to other machines: for a training it is as lost as any other.
    """
    ticks = 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
