"""What this machine and its engine offer, examined without changing anything."""

from __future__ import annotations

import ctypes
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import locked_eval
from runner.config import Config
from runner.errors import AutoresearchError
from runner.sandbox.doctor.finding import Finding
from runner.sandbox.engine import Engine
from runner.sandbox.host import Gpu, find_gpus
from runner.storage import pinned_evaluation
from runner.storage.repository import Repository

MIN_FREE_GIB = {"cpu": 6, "cuda": 20}
"""What building the base image asks for; see `runner/sandbox/images/base.py`."""
MIN_FREE_INODES = 200_000
"""A base image, its build stage and its root file system have about 100,000 files."""
MAX_CLOCK_SECONDS = 2.0
"""Between our clock and the engine's, which are the same clock on one machine."""
SOURCE_DATE = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
"""A clock that shows an earlier time is wrong: this program did not exist then."""
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)

Profile = Literal["cpu", "cuda"]


def seen_gpus() -> tuple[tuple[Gpu, ...], Finding | None]:
    """The GPUs, and a finding when the driver does not tell them."""
    try:
        return find_gpus(), None
    except AutoresearchError as error:
        return (), Finding(name="gpu", level="problem", fact=error.message, remedy=error.remedy)


def choose_gpu(config: Config, gpus: tuple[Gpu, ...]) -> tuple[Config, Finding]:
    """The settings with the GPU that a campaign would use, and what to say of it."""
    names = ", ".join(f"{gpu.name} ({_memory_of(gpu)})" for gpu in gpus) or "none"
    if config.profile == "cpu":
        return config.model_copy(update={"gpu": None}), Finding(
            name="gpu",
            level="ok" if gpus else "note",
            fact=f"{names}; the profile is cpu" if gpus else names,
            reason="the cpu profile is used",
            remedy="a real night needs an NVIDIA GPU and its container toolkit",
        )
    found = [gpu for index, gpu in enumerate(gpus) if config.gpu in (None, gpu.uuid, str(index))]
    if not found:
        return config, Finding(
            name="gpu",
            level="problem",
            fact=f"there is no GPU {config.gpu!r}, but: {names}" if gpus else "nvidia-smi lists no GPU",
            reason="the profile cuda needs one",
            remedy="set `gpu` to one of: " + ", ".join(gpu.uuid for gpu in gpus) if gpus else "--profile cpu",
        )
    return config.model_copy(update={"gpu": found[0].uuid}), Finding(name="gpu", level="ok", fact=names)


def _memory_of(gpu: Gpu) -> str:
    return "memory not reported" if gpu.memory_mib is None else f"{gpu.memory_mib // 1024} GiB"


def git_finding(directory: Path) -> Finding:
    """Whether the repository can carry a campaign."""
    try:
        repository = Repository(directory)
        commit = repository.check_ready()
    except AutoresearchError as error:
        return Finding(name="git", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="git", level="ok", fact=f"{repository.root} at {commit[:10]}")


def locked_finding() -> Finding:
    """Whether the locked evaluation is the one that was locked."""
    try:
        pinned_evaluation.refuse_changes(Path(locked_eval.__file__).parent)
    except AutoresearchError as error:
        return Finding(name="locked-evaluation", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="locked-evaluation", level="ok", fact="as in its manifest")


def key_finding() -> Finding:
    """Whether a language model can be asked."""
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        return Finding(name="model", level="ok", fact="an Anthropic key is set")
    return Finding(
        name="model",
        level="note",
        fact="no ANTHROPIC_API_KEY",
        reason="the offline proposer will be used",
        remedy="export ANTHROPIC_API_KEY=…",
    )


def disk_findings(prefix: str, path: Path, profile: Profile) -> list[Finding]:
    """Room and inodes of the disk that holds a path.

    Args:
        prefix: of the names of the findings.
    """
    needed = MIN_FREE_GIB[profile]
    free = shutil.disk_usage(path).free / 2**30
    findings = [
        Finding(
            name=f"{prefix}disk",
            level="ok" if free >= needed else "problem",
            fact=f"{free:.0f} GiB free at {path}",
            reason=None if free >= needed else "images, or the ledger of a long night, may not fit",
            remedy=f"free {needed} GiB there",
        )
    ]
    facts = os.statvfs(path)
    if facts.f_files:  # btrfs and others have no limit
        enough = facts.f_favail >= MIN_FREE_INODES
        findings.append(
            Finding(
                name=f"{prefix}inodes",
                level="ok" if enough else "problem",
                fact=f"{facts.f_favail} files more fit at {path}",
                reason=None if enough else "a disk can be full of small files while it has room",
                remedy=f"free {MIN_FREE_INODES} inodes there: remove folders of many small files",
            )
        )
    return findings


def clock_finding(now: float, clock_state: int) -> Finding:
    """Whether this machine's clock can be believed. Deadlines do not depend on it; dates of commits do.

    Args:
        now: seconds since the epoch.
        clock_state: what adjtimex(2) returns.
    """
    if now < SOURCE_DATE:
        return Finding(
            name="clock",
            level="problem",
            fact=f"the clock shows {datetime.fromtimestamp(now):%Y-%m-%d %H:%M}, before this program was written",
            reason="commits and ledger rows would carry wrong times, and TLS fails",
            remedy="timedatectl set-ntp true, or set it by hand",
        )
    if clock_state == _UNSYNCHRONISED:
        return Finding(
            name="clock",
            level="note",
            fact="no time service keeps the clock",
            reason="dates in commits and in the ledger may be off; deadlines use another clock",
            remedy="timedatectl set-ntp true, or install chrony",
        )
    return Finding(name="clock", level="ok", fact="kept by a time service")


def clock_state() -> int:
    """Ask the kernel whether its clock is kept; changes nothing."""
    nothing = ctypes.create_string_buffer(512)  # struct timex with modes = 0
    return int(ctypes.CDLL(None).adjtimex(nothing))


def limit_findings(info: dict[str, Any]) -> list[Finding]:
    """What this engine cannot enforce, and what it does to user ids."""
    missing = {"MemoryLimit": "limit memory", "PidsLimit": "limit processes", "CPUSet": "pin cores"}
    findings = [
        Finding(
            name="docker-limits",
            level="problem",
            fact=f"the engine cannot {what}",
            reason="a candidate could take the whole machine",
            remedy="enable its cgroup controller",
        )
        for key, what in missing.items()
        if info.get(key) is False
    ]
    options = [str(option).removeprefix("name=").partition(",")[0] for option in info.get("SecurityOptions") or ()]
    if "seccomp" not in options:
        findings.append(
            Finding(
                name="docker-limits",
                level="problem",
                fact="the engine filters no system calls",
                reason="the filter of the locked evaluation stands on top of the engine's; it does not replace it",
                remedy="use an engine and a kernel with seccomp",
            )
        )
    findings += [
        Finding(
            name="docker-users",
            level="problem",
            fact=f"the engine runs with {name}",
            reason="uid 10001 inside is another one outside, and files that it must read are not readable",
            remedy="use an engine without user namespace remapping",
        )
        for name in options
        if name in ("userns", "rootless")
    ]
    return findings


def engine_findings(engine: Engine, info: dict[str, Any], profile: Profile, now: float) -> list[Finding]:
    """The engine itself, its disk, its clock, its GPU support.

    Args:
        info: what the engine says of itself.
        now: seconds since the epoch, when it said so.
    """
    findings = [
        *limit_findings(info),
        Finding(name="docker", level="ok", fact=f"{engine.version} at {engine.url}, id {engine.daemon_id[:12]}"),
        *_engine_clock(info, now),
    ]
    root = Path(info.get("DockerRootDir", "/"))
    if root.exists():
        findings += disk_findings("docker-", root, profile)
    if profile == "cuda":
        known = "nvidia" in info.get("Runtimes", {}) or bool(engine.cdi_devices)
        findings.append(
            Finding(
                name="gpu-in-containers",
                level="ok" if known else "problem",
                fact="Docker knows the GPU" if known else "Docker knows neither an nvidia runtime nor CDI devices",
                reason=None if known else "containers would get no GPU",
                remedy="sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
            )
        )
    return findings


def base_finding(base: str | None) -> Finding:
    """Whether the base image is there."""
    return Finding(
        name="base-image",
        level="ok" if base else "note",
        fact=base or "not built yet",
        remedy="built at the first start, or now: autoresearch prepare",
    )


def _engine_clock(info: dict[str, Any], now: float) -> list[Finding]:
    """The engine's clock against ours; nothing when it does not tell."""
    try:
        told = datetime.fromisoformat(str(info["SystemTime"])[:19] + "+00:00").timestamp()
    except (KeyError, ValueError):
        return []
    if not str(info["SystemTime"]).endswith("Z"):  # told in a local time: say nothing rather than a wrong thing
        return []
    apart = abs(now - told)
    good = apart <= MAX_CLOCK_SECONDS + 1  # its fraction was cut off
    return [
        Finding(
            name="docker-clock",
            level="ok" if good else "problem",
            fact="the same as ours" if good else f"the engine's clock is {apart:.0f} s from ours",
            reason=None if good else "then it is not an engine of this machine, and mounts would show other files",
            remedy="unset DOCKER_HOST, or set the clocks",
        )
    ]
