"""A GPU before a campaign begins: whether it can be used, the sizes that fit it, and the memory for candidates.

Everything is seen from the host, before an image is built or data is downloaded.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from runner.config import Config
from runner.errors import AutoresearchError, ConfigError
from runner.sandbox.host import DRIVER_SECONDS, Gpu
from runner.storage.repository import Repository
from runner.tiers import MIN_CAPABILITY, TIERS, tier_of

BUSY_SHARE = 0.1
"""Share of a card's memory that other programs may hold, such as a desktop."""
HOST_SHARE = 0.75
"""Share of the host's memory that candidates get at most where `memory_bytes` is not set."""
PART = 4
"""Checkpoints and scratch get at most one part in so many of a container's memory, where no more is set."""


def fit(
    config: Config,
    cards: Sequence[Gpu],
    *,
    sizes: Set[str],
    decided: Mapping[str, Any],
    note: Callable[[str], None],
) -> Config:
    """Choose tier and memory for the card of a campaign; for the smallest one where any of several may be used.

    Args:
        sizes: modules of the campaign's `workload/sizes/`; a tier without one is not chosen.
        decided: settings that people chose, or that the campaign began with.

    Raises:
        ConfigError: none of them can be used.
    """
    config = _within_memory(config, decided)
    memory = min(_memory_mib(card, config) for card in cards)
    card = min(cards, key=lambda one: _memory_mib(one, config))
    if config.tier in TIERS and config.tier not in sizes:
        known = ", ".join(sorted(sizes & TIERS.keys())) or "none"
        raise ConfigError(
            f"the setting 'tier' is {config.tier}, and workload/sizes/ has no such file",
            f"choose one of the tiers that it has ({known}), auto, or none",
        )
    if config.tier == "auto":
        fitting = tier_of(memory)
        if sizes & TIERS.keys():
            if fitting is None:
                raise ConfigError(
                    f"{card.name} has {memory / 1024:.1f} GiB, and sizes begin at {min(TIERS.values())} GB",
                    "use a larger card (gpu = UUID), or --profile cpu",
                )
            _refuse_old(card)
        tier = fitting if fitting in sizes else "none"
        config = config.model_copy(update={"tier": tier})
    if config.tier != "none":
        note(f"{card.name}, {memory / 1024:.0f} GiB: sizes {config.tier} (setting tier)")
    if len(cards) == 1:
        _refuse_busy(card)
    if "output_bytes" not in decided:
        room = min(memory * 2**20, config.memory_bytes // PART)
        config = config.model_copy(update={"output_bytes": max(room, config.output_bytes)})
    return config


def sizes_at_head(directory: Path) -> set[str]:
    """Modules of `workload/sizes/` in the commit where a new campaign would begin."""
    try:
        files = Repository(directory).read_workload("HEAD")
    except AutoresearchError:
        return set()  # the start of a campaign says what is wrong
    return {Path(path).stem for path in files if path.startswith("workload/sizes/")}


def host_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _within_memory(config: Config, decided: Mapping[str, Any]) -> Config:
    """Take less memory than the profile wants, where the machine has less."""
    allowed = int(HOST_SHARE * host_bytes())
    if "memory_bytes" in decided or config.memory_bytes <= allowed:
        return config
    smaller = {"memory_bytes": allowed}
    for name in ("output_bytes", "scratch_bytes"):
        if name not in decided:
            smaller[name] = min(getattr(config, name), allowed // PART)
    return config.model_copy(update=smaller)


def _memory_mib(card: Gpu, config: Config) -> int:
    """Memory of a card; where it shares the host's, what candidates leave of that."""
    if card.memory_mib is not None:
        return card.memory_mib
    return max(0, host_bytes() - config.memory_bytes) // 2**20


def _refuse_old(card: Gpu) -> None:
    """Refuse a card without bfloat16, in which our sizes compute."""
    answer = _ask(f"--id={card.uuid}", "--query-gpu=compute_cap")
    try:
        major, _, minor = answer[0].partition(".")
        capability = (int(major), int(minor))
    except (IndexError, ValueError):
        return  # not reported: torch will say so
    if capability < MIN_CAPABILITY:
        raise ConfigError(
            f"{card.name} has compute capability {answer[0]}, and does not compute in bfloat16",
            'use an Ampere or newer card, or set tier = "none" for a program of your own that needs no bfloat16',
        )


def _refuse_busy(card: Gpu) -> None:
    """Refuse a card on which other programs compute: scores rest on speed, and memory is scrubbed between runs."""
    held = 0
    programs = []
    for line in _ask(f"--id={card.uuid}", "--query-compute-apps=pid,used_memory"):
        pid, _, used = line.partition(",")
        if pid.strip().isdigit() and used.strip().isdigit():
            programs.append(pid.strip())
            held += int(used)
    if card.memory_mib is not None and held > BUSY_SHARE * card.memory_mib:
        raise ConfigError(
            f"{card.name} is in use: other programs hold {held / 1024:.1f} GiB (process {', '.join(programs)})",
            "end them, or choose another card: AUTORESEARCH_GPU=UUID (nvidia-smi -L lists them)",
        )


def _ask(*query: str) -> list[str]:
    """Lines of an answer of nvidia-smi; none when it fails, since older ones do not know every question."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *query, "--format=csv,noheader,nounits"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=DRIVER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
