"""One finding of the doctor, and its acceptance by an operator."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from runner.errors import ConfigError

Level = Literal["ok", "note", "problem", "accepted"]

HOST_NAMES = (
    "settings", "python", "git", "locked-evaluation", "model", "gpu", "cores", "disk", "inodes", "file-system",
    "clock", "docker", "docker-limits", "docker-users", "docker-disk", "docker-inodes", "docker-clock",
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
"""Every name that a finding can have, and so every key of `[accept]`."""

UNREADABLE = "a candidate could reach other programs, this machine or the evaluation"
ENDLESS = "one candidate could starve the night and this machine"
REMEDY = "do not run candidates on this engine; a current one: https://docs.docker.com/engine/install/"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact, its level, why it matters, and what to do about it."""

    name: str
    level: Level
    fact: str
    reason: str | None = None
    """The reason why it matters."""
    remedy: str | None = None
    accepted: str | None = None
    """Reason why an operator accepts it; only at the level `accepted`."""


def finding(
    name: str, problems: list[str], fact: str, *, reason: str, remedy: str = REMEDY, level: Level = "problem"
) -> Finding:
    """Build the finding of a probe from its problems, or from the fact when there are none."""
    if not problems:
        return Finding(name=name, level="ok", fact=fact)
    return Finding(name=name, level=level, fact="; ".join(problems), reason=reason, remedy=remedy)


def differing(pairs: Mapping[str, tuple[object, object]]) -> list[str]:
    """Describe every value that differs from the wanted one; pairs of found and wanted, by name."""
    return [
        f"{name}: {found!r} instead of {wanted!r}" for name, (found, wanted) in pairs.items() if found != wanted
    ]


def check_names(accept: Mapping[str, str]) -> None:
    """Refuse acceptances of findings that do not exist: a typo would silently accept nothing.

    Raises:
        ConfigError: names the unknown one, and all known ones.
    """
    for name in accept:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"setting 'accept': there is no finding {name!r}{hint}", f"the findings are: {', '.join(NAMES)}"
            )


def accepting(findings: Iterable[Finding], accept: Mapping[str, str]) -> list[Finding]:
    """Mark the problems that an operator accepts, with the reason.

    Args:
        accept: reasons by the name of the finding.
    """
    return [
        replace(finding, level="accepted", accepted=accept[finding.name])
        if finding.level == "problem" and finding.name in accept
        else finding
        for finding in findings
    ]
