"""What a campaign needs from this machine, examined without changing anything."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import image, locked
from runner.config import load
from runner.errors import AutoresearchError
from runner.hardware import find_gpus
from runner.repo import Repository
from runner.sandbox import connect

MIN_FREE_GIB = {"cpu": 6, "cuda": 20}
"""What building the base image asks for; see `runner/image/base.py`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact, how serious it is, and what to do about it."""

    name: str
    level: Literal["ok", "note", "problem"]
    fact: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Every finding, in the order in which a person would mend them."""
    problem: AutoresearchError | None = None
    try:
        gpus = find_gpus()
    except AutoresearchError as error:
        gpus, problem = (), error
    profile: Literal["cpu", "cuda"] = "cuda" if gpus else "cpu"
    findings = [
        Finding(name="python", level="ok", fact=platform.python_version()),
        _git(),
        _locked(),
        _key(),
        Finding(
            name="gpu",
            level="problem" if problem else "ok" if gpus else "note",
            fact=problem.message
            if problem
            else ", ".join(f"{gpu.name} ({gpu.memory_mib // 1024} GiB)" for gpu in gpus) or "none",
            remedy=problem.remedy
            if problem
            else "the cpu profile will be used; a night needs an NVIDIA GPU and its container toolkit",
        ),
        Finding(name="cores", level="ok", fact=str(len(os.sched_getaffinity(0)))),
        _disk("disk here", Path.cwd(), MIN_FREE_GIB[profile]),
    ]
    return findings + _engine(profile)


def _git() -> Finding:
    try:
        repository = Repository(Path.cwd())
        commit = repository.check_ready()
    except AutoresearchError as error:
        return Finding(name="git", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="git", level="ok", fact=f"{repository.root} at {commit[:10]}")


def _locked() -> Finding:
    import locked_eval

    try:
        locked.refuse_changes(Path(locked_eval.__file__).parent)
    except AutoresearchError as error:
        return Finding(name="locked evaluation", level="problem", fact=error.message, remedy=error.remedy)
    return Finding(name="locked evaluation", level="ok", fact="as in its manifest")


def _key() -> Finding:
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        return Finding(name="model", level="ok", fact="an Anthropic key is set")
    return Finding(
        name="model",
        level="note",
        fact="no ANTHROPIC_API_KEY; the offline proposer will be used",
        remedy="export ANTHROPIC_API_KEY=…",
    )


def _disk(name: str, path: Path, needed_gib: int) -> Finding:
    free = shutil.disk_usage(path).free / 2**30
    return Finding(
        name=name,
        level="ok" if free >= needed_gib else "problem",
        fact=f"{free:.0f} GiB free at {path}",
        remedy=f"free {needed_gib} GiB there",
    )


def _limits(info: dict[str, Any]) -> list[Finding]:
    """What this engine cannot enforce, and what it does to user ids."""
    missing = {
        "MemoryLimit": "limit memory",
        "PidsLimit": "limit processes",
        "CPUSet": "pin cores",
    }
    findings = [
        Finding(
            name="docker limits", level="problem", fact=f"the engine cannot {what}", remedy="enable its cgroup"
        )
        for key, what in missing.items()
        if info.get(key) is False
    ]
    for option in info.get("SecurityOptions") or ():
        name = str(option).removeprefix("name=").partition(",")[0]
        if name in ("userns", "rootless"):
            findings.append(
                Finding(
                    name="docker users",
                    level="problem",
                    fact=f"the engine runs with {name}: uid 10001 inside is another one outside",
                    remedy="use an engine without user namespace remapping",
                )
            )
    return findings


def _engine(profile: Literal["cpu", "cuda"]) -> list[Finding]:
    try:
        engine = connect(load(Path.cwd(), {}).docker_host)
    except AutoresearchError as error:
        return [Finding(name="docker", level="problem", fact=error.message, remedy=error.remedy)]
    info = engine.client.info()
    findings = [
        *_limits(info),
        Finding(name="docker", level="ok", fact=f"{engine.version} at {engine.url}, id {engine.daemon_id[:12]}"),
    ]
    root = Path(info.get("DockerRootDir", "/"))
    if root.exists():
        findings.append(_disk("disk of docker", root, MIN_FREE_GIB[profile]))
    if profile == "cuda":
        has_runtime = "nvidia" in info.get("Runtimes", {}) or bool(info.get("CDISpecDirs"))
        findings.append(
            Finding(
                name="gpu in containers",
                level="ok" if has_runtime else "problem",
                fact="nvidia runtime known to docker" if has_runtime else "docker knows no nvidia runtime",
                remedy="sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
            )
        )
    base = image.find_base(engine.client, profile)
    findings.append(
        Finding(
            name="base image",
            level="ok" if base else "note",
            fact=base or "not built yet",
            remedy="built at the first start, or now: autoresearch prepare",
        )
    )
    engine.client.close()
    return findings
