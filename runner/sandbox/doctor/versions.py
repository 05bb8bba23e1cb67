"""Versions of what the sandbox rests on, and what is known to be wrong with old ones.

`classify` is pure. It knows the releases in which upstream mended a flaw: a distribution often mends one
without a new upstream number, which nobody can tell from the number. Such a finding is to be looked up and
accepted, with the reason. Only flaws that a candidate, its image or its checkpoint could use are listed, and
the list is as old as this file: a version without a finding is not a version without a flaw.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from runner.sandbox import images
from runner.sandbox.doctor.finding import Finding
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.images.base import IMAGES_DIR

TOOL_SECONDS = 10
"""Longest wait for a program that tells its version."""
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[-~.+]?(alpha|beta|rc)[-.]?(\d+)?)?")
_STAGES = {"alpha": 0, "beta": 1, "rc": 2}
_RELEASED = 3


class Version(NamedTuple):
    """A version that can be compared: candidates for a release come before it."""

    major: int
    minor: int
    patch: int = 0
    stage: int = _RELEASED
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Something that old versions have."""

    mended: tuple[str, ...]
    """First release without it, of each line that was mended; the newest line last."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Component:
    """One program or library."""

    name: str
    """Of its finding."""
    title: str
    flaws: tuple[Flaw, ...]
    remedy: str
    level: str = "problem"


_ENGINE = "install a current engine: https://docs.docker.com/engine/install/"

COMPONENTS = (
    Component(
        name="engine-version",
        title="Docker Engine",
        flaws=(
            Flaw(
                mended=("24.0.9", "25.0.2"),
                what="CVE-2024-24557: the cache of the classic builder can be poisoned (builds here never use it, "
                "and check the layers)",
            ),
        ),
        remedy=_ENGINE,
    ),
    Component(
        name="runc-version",
        title="runc",
        flaws=(
            Flaw(
                mended=("1.1.12",),
                what="CVE-2024-21626: a leaked descriptor lets an image, or a process started later, reach the "
                "files of the host",
            ),
            Flaw(
                mended=("1.2.8", "1.3.3", "1.4.0-rc.3"),
                what="CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: races while masked paths, the console and "
                "/proc are set up let a container out",
            ),
        ),
        remedy=_ENGINE,
    ),
    Component(
        name="containerd-version",
        title="containerd",
        flaws=(
            Flaw(
                mended=("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
                what="CVE-2024-25621: its folders are open to local users of the host",
            ),
        ),
        remedy=_ENGINE,
    ),
    Component(
        name="toolkit-version",
        title="NVIDIA container toolkit",
        flaws=(
            Flaw(
                mended=("1.17.8",),
                what="CVE-2025-23266, CVE-2025-23267: its hooks run as root and follow what a container holds",
            ),
        ),
        remedy="sudo apt-get install --only-upgrade nvidia-container-toolkit, or as its vendor says",
    ),
    Component(
        name="driver-version",
        title="NVIDIA driver",
        flaws=(
            Flaw(mended=("580.0",), what="it is older than CUDA 13, which torch in the base image is made for"),
        ),
        remedy="install a driver of branch 580 or newer",
    ),
    Component(
        name="kernel-version",
        title="Linux",
        flaws=(
            Flaw(
                mended=("5.10",),
                what="the kernel is the wall between a candidate and this machine, and nobody upstream mends one "
                "that old",
            ),
        ),
        remedy="boot a newer kernel, or rely on the one that your distribution maintains",
        level="note",
    ),
    Component(
        name="torch-version",
        title="torch in the base image",
        flaws=(
            Flaw(
                mended=("2.10.0",),
                what="CVE-2026-24747: torch.load(weights_only=True) can be made to run a checkpoint's code",
            ),
        ),
        remedy="raise torch in images/*.in, lock again, autoresearch prepare",
    ),
    Component(
        name="git-version",
        title="git",
        flaws=(
            Flaw(
                mended=("2.36.0",),
                what="it ignores core.fsync: a power cut may lose commits that the ledger names",
            ),
        ),
        remedy="install a newer git",
        level="note",
    ),
    Component(
        name="gitpython-version",
        title="GitPython",
        flaws=(
            Flaw(
                mended=("3.1.59",),
                what="CVE-2026-78676: it writes configuration values that run code (nothing here writes any)",
            ),
        ),
        remedy="pip install --upgrade GitPython",
    ),
)
_BY_NAME = {one.name: one for one in COMPONENTS}
_OF_ENGINE = {"Engine": "engine-version", "runc": "runc-version", "containerd": "containerd-version"}
"""Findings by the names that an engine gives its components."""


def parse(text: str) -> Version | None:
    """The first version in a text, however distributions decorate it; None when there is none."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    major, minor, patch, stage, number = found.groups()
    return Version(
        int(major), int(minor), int(patch or 0), _RELEASED if stage is None else _STAGES[stage], int(number or 0)
    )


def is_mended(version: Version, releases: tuple[str, ...]) -> bool:
    """Whether a version has a mend: by the release of its own line, else by the newest line."""
    mended = [parsed for release in releases if (parsed := parse(release)) is not None]
    own = [one for one in mended if one[:2] == version[:2]]
    return version >= (own or mended)[-1]


def classify(component: Component, text: str | None) -> Finding:
    """What a version means.

    Args:
        text: as the component or its package tells it; None when it was not told.
    """
    version = None if text is None else parse(text)
    if text is None or version is None:
        told = "does not tell its version" if text is None else f"tells a version that is none: {text!r}"
        return Finding(
            name=component.name,
            level="note",
            fact=f"{component.title} {told}",
            reason="so nobody can say what is known to be wrong with it",
            remedy=component.remedy,
        )
    flaws = [flaw for flaw in component.flaws if not is_mended(version, flaw.mended)]
    if not flaws:
        return Finding(name=component.name, level="ok", fact=f"{component.title} {text}")
    needed = " or ".join(flaws[-1].mended)
    return Finding(
        name=component.name,
        level="note" if component.level == "note" else "problem",
        fact=f"{component.title} {text} is older than {needed}",
        reason="; ".join(flaw.what for flaw in flaws),
        remedy=component.remedy
        if component.level == "note"
        else f"{component.remedy}. Mended by your distribution, or no concern of yours? Accept it in "
        f'autoresearch.toml: [accept] {component.name} = "why"',
    )


def collect(engine: Engine | None, profile: images.Kind) -> dict[str, str | None]:
    """Versions by name of their finding; those that this profile does not use are left out.

    Asks the engine and the tools of the host. torch's version is that of the lock that the base image was built
    from: nothing runs in a container for it.

    Raises:
        EngineError: the engine stopped answering.
    """
    found: dict[str, str | None] = {}
    if engine is not None:
        with engine_errors("asking the engine for its versions"):
            found.update(_of_engine(engine.client.version()))
    if profile == "cuda":
        found["toolkit-version"] = _told(["nvidia-ctk", "--version"])
        found["driver-version"] = _told(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    found["kernel-version"] = os.uname().release
    found["torch-version"] = _locked_torch(profile)
    found["git-version"] = _told(["git", "--version"])
    try:
        found["gitpython-version"] = importlib.metadata.version("GitPython")
    except importlib.metadata.PackageNotFoundError:
        found["gitpython-version"] = None
    return found


def version_findings(engine: Engine | None, profile: images.Kind) -> list[Finding]:
    """Every version, and what is known to be wrong with it.

    Raises:
        EngineError: the engine stopped answering.
    """
    return [classify(_BY_NAME[name], text) for name, text in collect(engine, profile).items()]


def _of_engine(answer: Mapping[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(_OF_ENGINE.values())
    for component in answer.get("Components") or ():
        if component.get("Name") in _OF_ENGINE:
            found[_OF_ENGINE[component["Name"]]] = str(component.get("Version") or "") or None
    if found["engine-version"] is None:
        found["engine-version"] = answer.get("Version")
    return found


def _told(command: list[str]) -> str | None:
    """The version in the first line that a program prints; None when it does not run."""
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    line = next(iter(answer.stdout.splitlines()), "")
    number = re.search(r"\d+(?:\.\d+)+\S*", line)
    return number.group() if number else line or None


def _locked_torch(profile: images.Kind) -> str | None:
    try:
        lock = (IMAGES_DIR / f"{profile}.lock").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^torch==(\S+)", lock, re.MULTILINE)
    return found.group(1) if found else None
