"""Examine this machine and its engine without changing anything."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Set
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import locked_eval
from runner.config import Config
from runner.errors import AutoresearchError, ConfigError
from runner.sandbox import cards
from runner.sandbox.container_spec import gpu_request
from runner.sandbox.doctor.finding import Finding
from runner.sandbox.engine import Engine
from runner.sandbox.host import Gpu, find_gpus
from runner.storage import pinned_evaluation
from runner.storage.filesystem import FileSystem
from runner.storage.repository import Repository
from runner.tiers import TIERS

MIN_FREE_GIB = {"cpu": 6, "cuda": 20}
"""Free disk that building the base image needs; see `runner/sandbox/images/base.py`."""
MIN_FREE_INODES = 200_000
"""A base image, its build stage and its root file system have about 100,000 files together."""
MAX_CLOCK_SECONDS = 2.0
"""Largest difference between our clock and the engine's, which are the same clock on one machine."""
SOURCE_DATE = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
"""A clock that shows an earlier time is wrong, because this program did not exist then."""
_UNSYNCHRONIZED = 5  # TIME_ERROR of adjtimex(2)

Profile = Literal["cpu", "cuda"]


def seen_gpus() -> tuple[tuple[Gpu, ...], Finding | None]:
    """List the GPUs; the finding is for a driver that fails to list them."""
    try:
        return find_gpus(), None
    except AutoresearchError as error:
        return (), Finding(name="gpu", level="problem", fact=error.message, remedy=error.remedy)


def choose_gpu(config: Config, gpus: tuple[Gpu, ...], sizes: Set[str] = frozenset()) -> tuple[Config, Finding]:
    """Choose the GPU that a campaign would use; returns the settings with it, and a finding.

    Args:
        sizes: modules of the workload's sizes.
    """
    names = ", ".join(f"{gpu.name} ({_memory_of(gpu)})" for gpu in gpus) or "none"
    if config.profile == "cpu":
        return config.model_copy(update={"gpu": None}), Finding(
            name="gpu", level="ok", fact=f"{names}; nights use the profile cpu"
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
    config = config.model_copy(update={"gpu": found[0].uuid})
    try:
        config = cards.fit(config, found[:1], sizes=sizes, decided={}, note=lambda _: None)
    except ConfigError as error:
        return config, Finding(
            name="gpu", level="problem", fact=error.message, reason="nights on it are refused", remedy=error.remedy
        )
    shown = f"{names}; sizes {config.tier}" if config.tier in TIERS else names
    return config, Finding(name="gpu", level="ok", fact=shown)


def _memory_of(gpu: Gpu) -> str:
    return "memory not reported" if gpu.memory_mib is None else f"{gpu.memory_mib // 1024} GiB"


def git_finding(directory: Path) -> Finding:
    """Check that the repository is ready for a campaign."""
    try:
        repository = Repository(directory)
        commit = repository.check_ready()
    except AutoresearchError as error:
        return Finding(name="git", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="git", level="ok", fact=f"{repository.root} at {commit[:10]}")


def locked_finding() -> Finding:
    """Check the locked evaluation against its manifest."""
    try:
        pinned_evaluation.refuse_changes(Path(locked_eval.__file__).parent)
    except AutoresearchError as error:
        return Finding(name="locked-evaluation", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="locked-evaluation", level="ok", fact="matches its manifest")


def key_finding() -> Finding:
    """Check that a language model can be used."""
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        return Finding(name="model", level="ok", fact="an Anthropic key is set")
    return Finding(
        name="model",
        level="ok",
        fact="no ANTHROPIC_API_KEY is set: nights use the offline proposer",
    )


def disk_findings(prefix: str, path: Path, profile: Profile) -> list[Finding]:
    """Check free space and inodes of the disk that holds a path.

    Args:
        prefix: prefix of the names of the findings.
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
                fact=f"{facts.f_favail} inodes are free at {path}",
                reason=None if enough else "a disk can run out of inodes while it has free space",
                remedy=f"free {MIN_FREE_INODES} inodes there: remove folders of many small files",
            )
        )
    return findings


def file_system_finding(found: FileSystem | None) -> Finding:
    """Check that no other machine shares the file system of the ledger."""
    if found is None or not found.is_shared:
        return Finding(name="file-system", level="ok", fact="unknown" if found is None else str(found))
    return Finding(
        name="file-system",
        level="note",
        fact=f"the repository is on {found}, which other machines may use too",
        reason="the ledger has a slower journal there, and two machines must not run nights in one clone",
        remedy="git clone it onto a local disk, and work there",
    )


def clock_finding(now: float, clock_state: int) -> Finding:
    """Check this machine's clock. Deadlines do not depend on it; dates of commits do.

    Args:
        now: seconds since the epoch.
        clock_state: return value of adjtimex(2).
    """
    if now < SOURCE_DATE:
        return Finding(
            name="clock",
            level="problem",
            fact=f"the clock shows {datetime.fromtimestamp(now):%Y-%m-%d %H:%M}, before this program was written",
            reason="commits and ledger rows would carry wrong times, and TLS fails",
            remedy="timedatectl set-ntp true, or set it by hand",
        )
    if clock_state == _UNSYNCHRONIZED:
        return Finding(
            name="clock",
            level="note",
            fact="no time service synchronizes the clock",
            reason="dates in commits and in the ledger may be off; deadlines use another clock",
            remedy="timedatectl set-ntp true, or install chrony",
        )
    return Finding(name="clock", level="ok", fact="synchronized by a time service")


def clock_state() -> int:
    """Ask the kernel whether its clock is synchronized; changes nothing."""
    nothing = ctypes.create_string_buffer(512)  # struct timex with modes = 0
    return int(ctypes.CDLL(None).adjtimex(nothing))


def limit_findings(info: dict[str, Any]) -> list[Finding]:
    """Check that this engine can enforce limits, filters system calls, and leaves user ids unchanged."""
    options = [str(option).removeprefix("name=").partition(",")[0] for option in info.get("SecurityOptions") or ()]
    if "rootless" in options:
        return [
            Finding(
                name="docker-users",
                level="problem",
                fact="the Docker engine is rootless",
                reason="its limits depend on what systemd delegates to its user, by default not the cores; the "
                "sandbox has not been shown to hold there",
                remedy="unset DOCKER_HOST, then: sudo make engine",
            )
        ]
    missing = {"MemoryLimit": "limit memory", "PidsLimit": "limit processes", "CPUSet": "pin cores"}
    findings = [
        Finding(
            name="docker-limits",
            level="problem",
            fact=f"the Docker engine cannot {what}",
            reason="a candidate could take the whole machine",
            remedy="enable its cgroup controller at boot; cat /proc/cgroups lists what the kernel has",
        )
        for key, what in missing.items()
        if info.get(key) is False
    ]
    if "seccomp" not in options:
        findings.append(
            Finding(
                name="docker-limits",
                level="problem",
                fact="the Docker engine filters no system calls",
                reason="the filter of the locked evaluation stands on top of the engine's; it does not replace it",
                remedy="use an engine and a kernel with seccomp",
            )
        )
    if "userns" in options:
        findings.append(
            Finding(
                name="docker-users",
                level="problem",
                fact='the Docker engine remaps users ("userns-remap" in /etc/docker/daemon.json)',
                reason="uid 10001 inside is another uid outside, and cannot write checkpoints",
                remedy='remove "userns-remap" from /etc/docker/daemon.json, then: sudo systemctl restart docker',
            )
        )
    return findings


def engine_findings(engine: Engine, info: dict[str, Any], config: Config, now: float) -> list[Finding]:
    """Examine the engine itself, its disk, its clock, and its GPU support.

    Args:
        info: the engine's description of itself.
        config: settings with the GPU that a campaign would use.
        now: time of that description, in seconds since the epoch.
    """
    findings = [
        *limit_findings(info),
        Finding(name="docker", level="ok", fact=f"{engine.version} at {engine.url}, id {engine.daemon_id[:12]}"),
        *_engine_clock(info, now),
    ]
    with suppress(OSError):  # an ordinary user may not see the engine's folder
        findings += disk_findings("docker-", Path(info.get("DockerRootDir", "/")), config.profile)
    if config.gpu is not None:
        findings.append(_gpu_in_containers(engine, info, config.gpu))
    return findings


def _gpu_in_containers(engine: Engine, info: dict[str, Any], gpu: str) -> Finding:
    """Ask as the night does: for this GPU by its UUID, else for NVIDIA's hook."""
    if gpu_request(engine, gpu).get("Driver") == "cdi":
        return Finding(name="gpu-in-containers", level="ok", fact=f"the engine injects {gpu} itself (CDI)")
    if "nvidia" in info.get("Runtimes", {}):
        return Finding(name="gpu-in-containers", level="ok", fact="the engine knows the nvidia runtime")
    if any(name.startswith("nvidia.com/gpu=") for name in engine.cdi_devices):
        fact = "the engine knows GPUs by their index only (CDI), which changes with the order of the cards"
        remedy = "sudo nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml"
    else:
        fact = "the engine knows neither an nvidia runtime nor CDI devices"
        remedy = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    return Finding(
        name="gpu-in-containers",
        level="problem",
        fact=fact,
        reason="containers would get no GPU",
        remedy=remedy,
    )


def base_finding(base: str | None) -> Finding:
    """Report whether the base image exists."""
    return Finding(
        name="base-image",
        level="ok" if base else "note",
        fact=base or "not built yet",
        remedy="built at the first start, or now: autoresearch prepare",
    )


def _engine_clock(info: dict[str, Any], now: float) -> list[Finding]:
    """Compare the engine's clock with ours; no finding when the engine does not report one."""
    try:
        reported = datetime.fromisoformat(str(info["SystemTime"])[:19] + "+00:00").timestamp()
    except (KeyError, ValueError):
        return []
    if not str(info["SystemTime"]).endswith("Z"):  # in local time: no finding rather than a wrong one
        return []
    apart = abs(now - reported)
    good = apart <= MAX_CLOCK_SECONDS + 1  # its fraction was cut off
    return [
        Finding(
            name="docker-clock",
            level="ok" if good else "problem",
            fact="the same as ours" if good else f"the engine's clock is {apart:.0f} s from ours",
            reason=None if good else "so it is not an engine of this machine, and mounts would show other files",
            remedy="unset DOCKER_HOST, or set the clocks",
        )
    ]
