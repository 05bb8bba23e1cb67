"""The state of a GPU while a candidate trains on it, as the driver's own tool reports it.

Nothing here fails a measurement: figures that the driver does not give, or cannot give in time, are unknown.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from runner.errors import EngineError
from runner.sandbox.engine import LABEL, Engine, engine_errors

QUERY_SECONDS = 10.0
"""Time limit for one question to the driver."""
SLOWDOWNS = {
    0x08: "a hardware slowdown",
    0x20: "its temperature",
    0x40: "its temperature",
    0x80: "the power supply",
}
"""Bits of the driver's reasons for a low clock that normal work does not cause. Its power cap (0x04) is not among
them: a fully used card runs at its power limit."""
_CONTAINER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """One reading; None: not reported."""

    clock_mhz: float | None
    power_limit_watts: float | None
    slowdown: str | None  # what holds its clock down, besides its power limit
    others: int  # processes that compute on it and are in none of our containers


def container_ids(engine: Engine, controller: str) -> set[str]:
    """Ids of a controller's running containers. For another thread than that of the measurement.

    Raises:
        EngineError: the engine failed.
    """
    with engine_errors("listing containers"), closing(engine.quick_client()) as client:
        return {one["Id"] for one in client.api.containers(filters={"label": f"{LABEL}controller={controller}"})}


def read_gpu(uuid: str, own_containers: Callable[[], Collection[str]]) -> GpuState:
    """Ask the driver about a GPU.

    Args:
        own_containers: ids of the containers that may compute on it; asked only where something does.
    """
    fields = "clocks.sm,power.limit,clocks_event_reasons.active"
    clock, limit, reasons = (*_ask(uuid, f"--query-gpu={fields}"), ["", "", ""])[0]
    pids = [row[0] for row in _ask(uuid, "--query-compute-apps=pid") if row[0].isdecimal()]
    return GpuState(
        clock_mhz=_number(clock),
        power_limit_watts=_number(limit),
        slowdown=_slowdown(reasons),
        others=_num_others(pids, own_containers) if pids else 0,
    )


def _ask(uuid: str, query: str) -> list[list[str]]:
    """Rows of the driver's answer; none where it has none."""
    command = ["nvidia-smi", f"--id={uuid}", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=QUERY_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in answer.splitlines() if line.strip()]
    num_columns = query.count(",") + 1
    return [row for row in rows if len(row) == num_columns]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _slowdown(reasons: str) -> str | None:
    try:
        bits = int(reasons, 16)
    except ValueError:
        return None
    return next((words for bit, words in SLOWDOWNS.items() if bits & bit), None)


def _num_others(pids: Collection[str], own_containers: Callable[[], Collection[str]]) -> int:
    """Processes that are in no container of ours; one that cannot be seen from here is not counted."""
    found = [container for pid in pids if (container := _container_of(pid)) is not None]
    try:
        own = set(own_containers()) if any(found) else set()
    except EngineError:
        return 0  # unknown
    return sum(container not in own for container in found)


def _container_of(pid: str) -> str | None:
    """The id of a process's container; empty for one in none, None for one that is gone or hidden."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
    except OSError:
        return None
    inside = _CONTAINER.search(text)
    return inside[0] if inside else ""
