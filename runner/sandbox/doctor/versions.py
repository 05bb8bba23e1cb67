"""Versions of the software that the sandbox depends on, and known flaws of old versions.

`classify` is pure. It knows the releases in which upstream fixed a flaw. Distributions often backport a fix
without changing the upstream version, which the number alone cannot show. For their own engine, `packaged` makes
one note of it; look any other finding up, and accept it with the reason. Only flaws that a candidate, its image or
its checkpoint could use are listed, and the list is as old as this file: a version without a finding may still
have flaws.
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
from runner.sandbox.doctor.packaged import installed, merge_packaged
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.images.base import IMAGES_DIR

TOOL_SECONDS = 10
"""Time limit for a program that prints its version."""
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[-~.+]?(alpha|beta|rc)[-.]?(\d+)?)?")
_STAGES = {"alpha": 0, "beta": 1, "rc": 2}
_RELEASED = 3


class Version(NamedTuple):
    """A version that can be compared; release candidates come before their release."""

    major: int
    minor: int
    patch: int = 0
    stage: int = _RELEASED
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """A flaw of old versions."""

    fixed_in: tuple[str, ...]
    """First release without it, of each line that was fixed; the newest line last."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Component:
    """One program or library."""

    name: str
    """Name of its finding."""
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
                fixed_in=("24.0.9", "25.0.2"),
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
                fixed_in=("1.1.12",),
                what="CVE-2024-21626: a leaked descriptor lets an image, or a process started later, reach the "
                "files of the host",
            ),
            Flaw(
                fixed_in=("1.2.8", "1.3.3", "1.4.0-rc.3"),
                what="CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: races while masked paths, the console and "
                "/proc are set up let a container escape",
            ),
        ),
        remedy=_ENGINE,
    ),
    Component(
        name="containerd-version",
        title="containerd",
        flaws=(
            Flaw(
                fixed_in=("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
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
                fixed_in=("1.17.8",),
                what="CVE-2025-23266, CVE-2025-23267: its hooks run as root and follow what a container holds",
            ),
        ),
        remedy="sudo apt-get install --only-upgrade nvidia-container-toolkit, or as its vendor says",
    ),
    Component(
        name="driver-version",
        title="NVIDIA driver",
        flaws=(
            Flaw(fixed_in=("580.0",), what="it is older than CUDA 13, which torch in the base image is built for"),
        ),
        remedy="install a driver of branch 580 or newer",
    ),
    Component(
        name="kernel-version",
        title="Linux",
        flaws=(
            Flaw(
                fixed_in=("5.10",),
                what="only the kernel separates a candidate from this machine, and upstream no longer "
                "maintains one this old",
            ),
        ),
        remedy="boot a newer kernel, or one that your distribution still maintains",
        level="note",
    ),
    Component(
        name="torch-version",
        title="torch in the base image",
        flaws=(
            Flaw(
                fixed_in=("2.10.0",),
                what="CVE-2026-24747: torch.load(weights_only=True) can be made to run a checkpoint's code",
            ),
        ),
        remedy="raise torch in images/*.in, regenerate the locks, then: autoresearch prepare",
    ),
    Component(
        name="git-version",
        title="git",
        flaws=(
            Flaw(
                fixed_in=("2.36.0",),
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
                fixed_in=("3.1.59",),
                what="CVE-2026-78676: it writes configuration values that run code (this program writes none)",
            ),
        ),
        remedy="pip install --upgrade GitPython",
    ),
)
_BY_NAME = {one.name: one for one in COMPONENTS}
_OF_ENGINE = {"Engine": "engine-version", "runc": "runc-version", "containerd": "containerd-version"}
"""Names of findings by the engine's names for its components."""


def parse(text: str) -> Version | None:
    """Parse the first version in a text, ignoring what distributions add; None when there is none."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    major, minor, patch, stage, number = found.groups()
    return Version(
        int(major), int(minor), int(patch or 0), _RELEASED if stage is None else _STAGES[stage], int(number or 0)
    )


def is_fixed(version: Version, releases: tuple[str, ...]) -> bool:
    """Whether a version has a fix: judged by the release of its own line, else by the newest line."""
    fixed = [parsed for release in releases if (parsed := parse(release)) is not None]
    own = [one for one in fixed if one[:2] == version[:2]]
    return version >= (own or fixed)[-1]


def classify(component: Component, text: str | None) -> Finding:
    """Judge a version.

    Args:
        text: version as the component or its package reports it; None when it reports none.
    """
    version = None if text is None else parse(text)
    if text is None or version is None:
        problem = "does not report its version" if text is None else f"reports an invalid version: {text!r}"
        return Finding(
            name=component.name,
            level="note",
            fact=f"{component.title} {problem}",
            reason="its known flaws cannot be determined",
            remedy=component.remedy,
        )
    flaws = [flaw for flaw in component.flaws if not is_fixed(version, flaw.fixed_in)]
    if not flaws:
        return Finding(name=component.name, level="ok", fact=f"{component.title} {text}")
    needed = " or ".join(flaws[-1].fixed_in)
    return Finding(
        name=component.name,
        level="note" if component.level == "note" else "problem",
        fact=f"{component.title} {text} is older than {needed}",
        reason="; ".join(flaw.what for flaw in flaws),
        remedy=component.remedy
        if component.level == "note"
        else f"{component.remedy}. If your distribution has fixed it, or it does not concern you, accept it in "
        f'autoresearch.toml: [accept] {component.name} = "why"',
    )


def collect(engine: Engine | None, profile: images.Kind) -> dict[str, str | None]:
    """Collect versions by the name of their finding, without those that this profile does not use.

    Asks the engine and the tools of the host. The version of torch is read from the lock that the base image was
    built from, so that no container has to run.

    Raises:
        EngineError: the engine stopped answering.
    """
    found: dict[str, str | None] = {}
    if engine is not None:
        with engine_errors("asking the engine for its versions"):
            found.update(_of_engine(engine.client.version()))
    if profile == "cuda":
        found["toolkit-version"] = _reported(["nvidia-ctk", "--version"])
        found["driver-version"] = _reported(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    found["kernel-version"] = os.uname().release
    found["torch-version"] = _locked_torch(profile)
    found["git-version"] = _reported(["git", "--version"])
    try:
        found["gitpython-version"] = importlib.metadata.version("GitPython")
    except importlib.metadata.PackageNotFoundError:
        found["gitpython-version"] = None
    return found


def version_findings(engine: Engine | None, profile: images.Kind) -> list[Finding]:
    """Judge every version.

    Raises:
        EngineError: the engine stopped answering.
    """
    versions = collect(engine, profile)
    findings = [classify(_BY_NAME[name], text) for name, text in versions.items()]
    return merge_packaged(findings, versions, installed())


def driver_finding() -> Finding:
    """Judge the NVIDIA driver alone; a note when there is none."""
    return classify(_BY_NAME["driver-version"], collect(None, "cuda")["driver-version"])


def _of_engine(answer: Mapping[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(_OF_ENGINE.values())
    for component in answer.get("Components") or ():
        if component.get("Name") in _OF_ENGINE:
            found[_OF_ENGINE[component["Name"]]] = str(component.get("Version") or "") or None
    if found["engine-version"] is None:
        found["engine-version"] = answer.get("Version")
    return found


def _reported(command: list[str]) -> str | None:
    """The version in a program's first line of output; None when the program is missing or fails."""
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
