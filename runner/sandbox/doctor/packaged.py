"""The engine from the distribution's packages, as `make engine` installs it: one note in place of its findings.

A distribution fixes flaws without raising the upstream version, so the number alone is no reason to act. Not every
flaw gets such a fix, so the note names them all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from runner.sandbox.doctor.finding import Finding

TOOL_SECONDS = 10


class _Part(NamedTuple):
    title: str
    package: str  # of Debian and Ubuntu


PARTS = {
    "engine-version": _Part("Docker Engine", "docker.io"),
    "runc-version": _Part("runc", "runc"),
    "containerd-version": _Part("containerd", "containerd"),
}
"""By the name of the finding."""


def merge_packaged(
    findings: list[Finding], versions: Mapping[str, str | None], packages: Mapping[str, str]
) -> list[Finding]:
    """Make one note of the problems of components that come from the distribution's packages.

    Args:
        versions: by name of a finding, as the engine reports them.
        packages: versions of installed packages by name; see `installed`.
    """
    flawed = {
        one.name: one
        for one in findings
        if one.level == "problem"
        and one.name in PARTS
        and _is_of(PARTS[one.name].package, versions[one.name], packages)
    }
    if not flawed:
        return findings
    seen = {name: f"{PARTS[name].title} {versions[name]}" for name in flawed}
    names = " ".join(PARTS[name].package for name in flawed)
    first = next(iter(flawed))
    note = Finding(
        name=first,
        level="note",
        fact=f"{', '.join(seen.values())}: packages of this distribution, older than upstream's fixes",
        reason="a distribution adds fixes without raising these numbers, but not all of them: "
        + "; ".join(one.reason or "" for one in flawed.values()),
        remedy=f"sudo apt-get update && sudo apt-get install --only-upgrade {names}; for nights beside anything "
        "of value, a current engine: https://docs.docker.com/engine/install/",
    )
    merged = {name: Finding(name=name, level="ok", fact=fact) for name, fact in seen.items()} | {first: note}
    return [merged.get(one.name, one) for one in findings]


def installed() -> dict[str, str]:
    """Return the versions of the installed packages of the engine; empty where there is no dpkg."""
    names = (part.package for part in PARTS.values())
    command = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\\n", *names]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)


def _is_of(package: str, reported: str | None, packages: Mapping[str, str]) -> bool:
    """Whether a package installed this component: its version is the upstream part of the package's."""
    return reported is not None and packages.get(package, "").rpartition("-")[0] == reported
