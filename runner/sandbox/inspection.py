"""Compare a created container with the request.

Engines silently drop limits that the host does not support. So every setting of a created container is compared
with the request, and so are its environment, its mounts, and the settings that would open it and were not
requested.

Not covered: an engine that reports one thing and does another; `kernel_limits.py` reads the kernel's own files,
and the probes of `autoresearch doctor` test from inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runner.errors import EngineError
from runner.storage.filesystem import unescaped

FORBIDDEN_VARIABLES = re.compile(r"(LD_|NVIDIA_|PYTHON)")
"""Prefixes of variables that control the loader, the GPU runtime and the interpreter."""

_CLOSED: Mapping[str, tuple[object, ...]] = {
    "Privileged": (False,),
    "PidMode": ("",),
    "UTSMode": ("",),
    "UsernsMode": ("",),
    "Binds": (None, []),
    "VolumesFrom": (None, []),
    "Devices": (None, []),
    "DeviceCgroupRules": (None, []),
    "GroupAdd": (None, []),
    "OomKillDisable": (None, False),
    "Sysctls": (None, {}),
}
"""Settings that must have their defaults, unless they were requested."""
_HIDDEN = {"MaskedPaths": "/proc/kcore", "ReadonlyPaths": "/proc/sys"}
"""Lists that the engine fills itself and that must not be empty, with one path that each must contain."""


def check_effective(
    wanted: Mapping[str, Any], environment: Mapping[str, str], inspected: Mapping[str, Any]
) -> None:
    """Refuse a container that differs from the request.

    Args:
        wanted: the host configuration as it was sent to the engine.
        environment: all variables that PID 1 may see.
        inspected: the engine's description of the created container.

    Raises:
        EngineError: names every setting that differs.
    """
    effective = inspected["HostConfig"]
    differ = [
        f"{name}: {_normal(name, effective.get(name))!r} instead of {_normal(name, want)!r}"
        for name, want in wanted.items()
        if _normal(name, effective.get(name)) != _normal(name, want)
        and not (name == "MemorySwap" and effective.get(name) == -1 and not has_swap())
    ]
    differ += [
        f"{name}: {effective[name]!r}"
        for name, closed in _CLOSED.items()
        if name not in wanted and name in effective and effective[name] not in closed
    ]
    differ += [
        f"{name} is without {path}" for name, path in _HIDDEN.items() if path not in (effective.get(name) or ())
    ]
    differ += _strange_variables(inspected["Config"].get("Env") or (), environment)
    asked = {mount["Target"]: not mount.get("ReadOnly", False) for mount in wanted.get("Mounts") or ()}
    found = {mount["Destination"]: bool(mount["RW"]) for mount in inspected.get("Mounts") or ()}
    differ += [
        f"mount {target}: {_access(found.get(target))} instead of {_access(asked.get(target))}"
        for target in sorted({*asked, *found})
        if found.get(target) is not asked.get(target)
    ]
    if differ:
        swap = len(differ) == 1 and differ[0].startswith("MemorySwap")
        raise EngineError(
            f"the Docker engine did not apply the limits of the sandbox ({'; '.join(differ)})",
            "swapoff -a, or boot with swapaccount=1" if swap else "autoresearch doctor",
        )


def refuse_mounts_below(sources: Iterable[Path], mountinfo: str) -> None:
    """Refuse host folders with another file system below them: a read-only bind leaves that one writable.

    Args:
        sources: folders that containers see.
        mountinfo: text of /proc/self/mountinfo.

    Raises:
        EngineError: names the folder and what is mounted below it.
    """
    points = [Path(unescaped(line.split()[4])) for line in mountinfo.splitlines()]
    for source in sources:
        real = source.resolve()
        below = next((point for point in points if real in point.parents), None)
        if below is not None:
            raise EngineError(
                f"{below} is mounted below {real}, and a container could write to it", f"umount {below}"
            )


def removed_variables(image_environment: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Names of the image's own variables, which the engine removes when they are passed without a value."""
    names = {entry.partition("=")[0] for entry in image_environment}
    return sorted(names - environment.keys())


def _strange_variables(entries: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    found = {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}
    strange = [f"variable {name}" for name in found if FORBIDDEN_VARIABLES.match(name)]
    return strange + [
        f"variable {name}: {found.get(name)!r} instead of {environment.get(name)!r}"
        for name in sorted({*found, *environment})
        if found.get(name) != environment.get(name)
    ]


def _normal(name: str, value: Any) -> Any:
    """Normalize what engine versions write differently."""
    if name == "CapAdd":
        return sorted(str(capability).removeprefix("CAP_") for capability in value or ())
    if name == "SecurityOpt":
        return sorted(str(option).replace("=", ":").removesuffix(":true") for option in value or ())
    if name == "Ulimits":
        return sorted((limit["Name"], limit["Soft"], limit["Hard"]) for limit in value or ())
    if name == "Mounts":
        return sorted((mount["Target"], mount["Source"], bool(mount.get("ReadOnly"))) for mount in value or ())
    if name == "DeviceRequests":
        return [
            (one.get("Driver") or "", sorted(one.get("DeviceIDs") or ()), one.get("Capabilities") or [])
            for one in value or ()
        ]
    return value


def _access(writable: bool | None) -> str:
    return "absent" if writable is None else "writable" if writable else "read-only"


def has_swap() -> bool:
    """Whether this machine has swap now."""
    return "SwapTotal:              0 kB" not in Path("/proc/meminfo").read_text("ascii")
