"""What the kernel keeps of a running container's limits, read from its control group.

Engines tell what they were asked for, not what holds: with systemd and cgroup v2 a change of cores, and each
`systemctl daemon-reload`, puts the swap limit back to none, and the engine goes on telling the old one.

Not covered: a container whose control group cannot be read from here (another PID or cgroup namespace, files
that this user may not see) is not judged, and nothing says so but `autoresearch doctor`. Neither is a limit that
the kernel has no file for, nor swap on a machine without any. A change in the last `LOOK_SECONDS` of a training,
or one that was undone between two looks, is not seen.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runner.errors import EngineError
from runner.sandbox.inspection import has_swap

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
LOOK_SECONDS = 2.0
"""Time between two looks at one container."""

_FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "cpuset": ("cpuset.cpus", "cpuset.effective_cpus"),
    "": ("memory.max", "memory.swap.max", "pids.max", "cpuset.cpus", "cpuset.cpus.effective"),
}
"""Files by controller of version 1; the empty name is version 2, which has one hierarchy for all."""
SWAP_FILES = {"memory.swap.max", "memory.memsw.limit_in_bytes"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a container is to have."""

    memory_bytes: int  # swap included
    pids: int
    cores: tuple[int, ...]


class Deviation(NamedTuple):
    """A limit that is not what it should be."""

    name: str  # of the kernel's file
    wanted: str
    found: str


def limit_files(
    process: int, container_id: str, *, proc: Path = PROC, cgroup: Path = CGROUP
) -> Mapping[str, Path]:
    """The kernel's files that hold a container's limits, by name; empty when they cannot be found from here.

    Args:
        process: PID 1 of the container, as the engine sees it: in another PID namespace it is somebody else, so
            only control groups with the container's id in their path count.
        proc: where the kernel shows processes.
        cgroup: where control groups are mounted: all of version 2, or one folder for each controller of version 1.
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
    """The limits that are not what they should be. Files that are gone, with their container, are not judged.

    Args:
        files: by name, from `limit_files`.
        limits: what should be there.
        swap: whether this machine has swap; without it engines may leave its limit out, and nothing is lost.
    """
    memory = str(limits.memory_bytes // mmap.PAGESIZE * mmap.PAGESIZE)
    wanted = {
        "memory.max": memory,
        "memory.limit_in_bytes": memory,
        "memory.swap.max": "0",
        "memory.memsw.limit_in_bytes": memory,
        "pids.max": str(limits.pids),
    }
    differ = []
    for name, place in files.items():
        found = _read(place)
        if found is None or (name in SWAP_FILES and not swap):
            continue
        if name in wanted:
            if found != wanted[name]:
                differ.append(Deviation(name, wanted[name], found))
        elif _cores(found) != set(limits.cores):
            differ.append(Deviation(name, ",".join(map(str, limits.cores)), found or "empty"))
    return differ


@dataclass
class LimitWatch:
    """Trials at the limits of one running container now and then."""

    container_id: str
    phase: str
    limits: Limits
    _files: Mapping[str, Path] = field(default_factory=dict)
    _process: int = 0
    _next: float = 0.0
    _held: bool = False

    def look(self, process: int) -> None:
        """Look, unless that was done a moment ago. Costs no request to the engine.

        Args:
            process: PID 1 of the container, as the engine tells; 0 when it does not run.

        Raises:
            EngineError: a limit is not what it should be; what comes of it is not the candidate's doing.
        """
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_SECONDS
            if process and process != self._process:
                self._process, self._files = process, limit_files(process, self.container_id)
            self.look_again()

    def look_again(self) -> None:
        """Look now, if anything was found before; says nothing once the container is gone.

        Raises:
            EngineError: as `look`.
        """
        differ = deviations(self._files, self.limits, swap=has_swap())
        if not differ:
            self._held = self._held or bool(self._files)
            return
        name, wanted, found = differ[0]
        where = f"the kernel's limit {name} of the {self.phase} container"
        if self._held:
            raise EngineError(
                f"{where} was changed from {wanted} to {found} while it ran; systemctl daemon-reload and docker "
                "update do this",
                "leave systemd and the engine alone during a night; autoresearch doctor looks at the limits",
                fault=f"{name} was changed",
            )
        raise EngineError(
            f"{where} is {found} instead of {wanted}, whatever the engine tells",
            "autoresearch doctor",
            fault=f"{name} is not kept",
        )


def _group_of(path: str, container_id: str) -> str | None:
    """The control group of a container, without those that were made inside; None when it is not in this path."""
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
    """The cores of a list as `0-2,5`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found
