"""Limits that the kernel enforces for a running container, and whether it runs, read from its control group.

Engines report the limits that were requested, not those in force: with systemd and cgroup v2 a change of cores,
and each `systemctl daemon-reload`, removes the swap limit, and the engine still reports the old one. Nor does an
engine know of a container that was frozen behind its back, by `systemctl freeze` or in the control group itself.

Not covered: a container whose control group cannot be read from here (another PID or cgroup namespace, files that
this user may not read) is not checked, and only `autoresearch doctor` says so. Neither is a limit that the kernel
has no file for, nor swap on a machine that has none. A change in the last tenth of a second of a training, or one
that was undone between two checks, goes unnoticed.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runner.errors import EngineError
from runner.sandbox.inspection import has_swap

PAUSED = "one of our containers was paused by another program"

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")

_FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "cpuset": ("cpuset.cpus", "cpuset.effective_cpus"),
    "freezer": ("freezer.state",),
    "": ("memory.max", "memory.swap.max", "pids.max", "cpuset.cpus", "cpuset.cpus.effective", "cgroup.events"),
}
"""Files by controller of cgroup v1; the empty name is v2, which has one hierarchy for all controllers."""
SWAP_FILES = {"memory.swap.max", "memory.memsw.limit_in_bytes"}
PAUSES = {"freezer.state", "cgroup.events"}
"""Files that show a container that is paused, also one that the engine does not know to be."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that a container must have."""

    memory_bytes: int  # swap included
    pids: int
    cores: tuple[int, ...]


class Deviation(NamedTuple):
    """A limit that differs from the wanted one."""

    name: str  # of the kernel's file
    wanted: str
    found: str


def limit_files(
    process: int, container_id: str, *, proc: Path = PROC, cgroup: Path = CGROUP
) -> Mapping[str, Path]:
    """Find the kernel's files that hold a container's limits, by name; empty when they cannot be found from here.

    Args:
        process: PID 1 of the container, as the engine sees it. In another PID namespace that number is another
            process, so only control groups with the container's id in their path count.
        proc: folder in which the kernel shows processes.
        cgroup: folder in which control groups are mounted: v2 itself, or one folder for each controller of v1.
    """
    try:
        lines = (proc / str(process) / "cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        group = _group_of(path, container_id)
        if group is None:
            continue
        for controller in controllers.split(","):
            folders = (controllers, controller) if controller else ("", "unified")
            for name in _FILES.get(controller, ()):
                places = (cgroup / folder / group / name for folder in folders)
                place = next((place for place in places if _read(place) is not None), None)
                if place is not None:
                    found[name] = place
    return found


def deviations(files: Mapping[str, Path], limits: Limits, *, swap: bool) -> list[Deviation]:
    """Compare the kernel's limits with the wanted ones. Files that are gone, with their container, are skipped.

    Args:
        files: files by name, from `limit_files`.
        limits: the wanted limits.
        swap: whether this machine has swap; without it engines may leave out its limit, which is harmless.
    """
    memory = str(limits.memory_bytes // mmap.PAGESIZE * mmap.PAGESIZE)
    wanted = {
        "memory.max": memory,
        "memory.limit_in_bytes": memory,
        "memory.swap.max": "0",
        "memory.memsw.limit_in_bytes": memory,
        "pids.max": str(limits.pids),
        "freezer.state": "THAWED",
    }
    differ = []
    for name, place in files.items():
        found = _read(place)
        if found is None or (name in SWAP_FILES and not swap):
            continue
        if name == "cgroup.events":
            if "frozen 1" in found.splitlines():
                differ.append(Deviation(name, "frozen 0", "frozen 1"))
        elif name in wanted:
            if found != wanted[name]:
                differ.append(Deviation(name, wanted[name], found))
        elif _cores(found) != set(limits.cores):
            differ.append(Deviation(name, ",".join(map(str, limits.cores)), found or "empty"))
    return differ


@dataclass
class LimitWatch:
    """A periodic check of the limits of one running container."""

    container_id: str
    phase: str
    limits: Limits
    _files: Mapping[str, Path] = field(default_factory=dict)
    _process: int = 0
    _held: bool = False

    def check(self, process: int) -> None:
        """Check the limits. Costs no request to the engine.

        Args:
            process: PID 1 of the container, as the engine reports it; 0 when it does not run.

        Raises:
            EngineError: a limit differs; the candidate is not to blame for the outcome.
        """
        if process and process != self._process:
            self._process, self._files = process, limit_files(process, self.container_id)
        self.check_now()

    def check_now(self) -> None:
        """Check the limits whose files were found before; passes once the container is gone.

        Raises:
            EngineError: as `check`.
        """
        differ = deviations(self._files, self.limits, swap=has_swap())
        if not differ:
            self._held = self._held or bool(self._files)
            return
        if any(one.name in PAUSES for one in differ):  # its clock ran on
            raise EngineError(PAUSED)
        name, wanted, found = differ[0]
        where = f"the kernel's limit {name} of the {self.phase} container"
        if self._held:
            raise EngineError(
                f"{where} was changed from {wanted} to {found} while it ran; systemctl daemon-reload and docker "
                "update do this",
                "do not reload systemd or update containers during a night; autoresearch doctor checks the limits",
                fault=f"{name} was changed",
            )
        raise EngineError(
            f"{where} is {found} instead of {wanted}, whatever the engine reports",
            "autoresearch doctor",
            fault=f"{name} is not kept",
        )


def _group_of(path: str, container_id: str) -> str | None:
    """The control group of a container, without those created inside it; None when it is not in this path."""
    parts = path.strip("/").split("/")
    if ".." in parts:  # outside of what our own cgroup namespace shows
        return None
    own = next((index for index, part in enumerate(parts) if container_id in part), None)
    return None if own is None else "/".join(parts[: own + 1])


def _read(place: Path) -> str | None:
    try:
        return place.read_text("ascii").strip()
    except OSError:
        return None


def _cores(text: str) -> set[int]:
    """Parse a list of cores such as `0-2,5`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found
