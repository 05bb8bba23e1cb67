"""One finding, and what an operator may say about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from runner.errors import ConfigError

Level = Literal["ok", "note", "problem", "accepted"]

HOST_NAMES = (
    "settings", "python", "git", "locked-evaluation", "model", "gpu", "cores", "disk", "inodes", "clock",
    "docker", "docker-limits", "docker-users", "docker-disk", "docker-inodes", "docker-clock",
    "gpu-in-containers", "base-image",
)  # fmt: skip
VERSION_NAMES = (
    "engine-version", "runc-version", "containerd-version", "toolkit-version", "driver-version",
    "kernel-version", "torch-version", "git-version", "gitpython-version",
)  # fmt: skip
PROBE_NAMES = (
    "probes", "limits", "oom-victim", "user", "capabilities", "privileges", "seccomp", "system-calls", "network",
    "mounts", "read-only", "devices", "environment", "torch-inside", "one-gpu", "pids-cap",
    "memory-cap", "output-cap", "scratch-cap", "shm-cap", "descriptors-cap", "file-cap", "log-cap",
    "log-rotation", "limits-after-move", "watchdog",
)  # fmt: skip
NAMES = (*HOST_NAMES, *VERSION_NAMES, *PROBE_NAMES)
"""Every name that a finding can have: what `[accept]` may speak of."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact, how serious it is, why it matters, and what to do about it."""

    name: str
    level: Level
    fact: str
    reason: str | None = None
    """Why it matters."""
    remedy: str | None = None
    accepted: str | None = None
    """Why an operator lives with it; only at the level `accepted`."""


def check_names(accept: Mapping[str, str]) -> None:
    """Refuse acceptances of findings that do not exist: a slip of the pen would accept nothing, silently.

    Raises:
        ConfigError: names the strange one, and those that are known.
    """
    for name in accept:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"setting 'accept': there is no finding {name!r}{hint}", f"the findings are: {', '.join(NAMES)}"
            )


def accepting(findings: Iterable[Finding], accept: Mapping[str, str]) -> list[Finding]:
    """The findings, with the problems that an operator accepts marked as such, with the reason.

    Args:
        accept: reason by name of the finding.
    """
    return [
        replace(finding, level="accepted", accepted=accept[finding.name])
        if finding.level == "problem" and finding.name in accept
        else finding
        for finding in findings
    ]
