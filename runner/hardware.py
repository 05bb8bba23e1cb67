"""What this host has: GPUs, asked from the driver's own tool, and how busy its cores are."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runner.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU."""

    uuid: str
    name: str
    memory_mib: int


def find_gpus() -> tuple[Gpu, ...]:
    """Every GPU that `nvidia-smi` lists; empty without a driver.

    Raises:
        EngineError: there is a driver, but it does not answer; a night on the CPU instead would surprise.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(
            f"nvidia-smi fails: {error}", "mend the NVIDIA driver, or choose --profile cpu"
        ) from error
    gpus = []
    for line in answer.stdout.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[2].isdigit():
            gpus.append(Gpu(uuid=fields[0], name=fields[1], memory_mib=int(fields[2])))
    return tuple(gpus)


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
