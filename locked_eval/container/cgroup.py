"""Facts that only the control group of a container knows. Standard library only: PID 1 imports it."""

from __future__ import annotations

import contextlib
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_seconds() -> float | None:
    """CPU time of this container as its control group counts it; None where the kernel does not show it.

    Not `getrusage`: the kernel itself reaps a child that ignores SIGCHLD, and credits its time to no process. A
    candidate could burn its core that way and look like one that other programs disturbed.
    """
    with contextlib.suppress(OSError, ValueError):
        return int((CGROUP / "cpuacct" / "cpuacct.usage").read_text("ascii")) / 1e9
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (CGROUP / "cpu.stat").read_text("ascii").splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
    return None


def out_of_memory() -> bool:
    """Whether the kernel killed a process of this container because memory ran out."""
    for path in ("memory/memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError, ValueError):
            lines = (CGROUP / path).read_text("ascii").splitlines()
            if int(dict(line.split() for line in lines).get("oom_kill", "0")) > 0:
                return True
    return False
