"""The arguments of an untrusted container: its description, and the limits that every container has.

This is the only place that builds them. Not covered: kernel and driver bugs. `SECURITY.md` states what the sandbox
promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from runner.config import MEBI, Config
from runner.sandbox.engine import Engine
from runner.sandbox.kernel_limits import Limits

MAX_INODES = 65536


class OutputVolume(NamedTuple):
    """The tmpfs volume of checkpoints, as a container sees it."""

    name: str
    target: str
    writable: bool


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """Description of one container; its limits come from the configuration."""

    phase: str
    """Kind of container, for its label and for messages."""
    image_id: str
    command: Sequence[str] = ()
    """Arguments of PID 1."""
    environment: Mapping[str, str] = field(default_factory=dict)
    read_only: Mapping[str, Path] = field(default_factory=dict)
    """Host files and folders by mount point, besides `/locked`."""
    output_volume: OutputVolume | None = None
    interactive: bool = False
    """Keep stdin open and log nothing: claims are streamed to an attached reader."""
    program: str = "container/supervisor.py"
    """File of the locked evaluation that is PID 1."""
    cores: tuple[int, ...] | None = None
    """Cores of the host; `choose_cores` when absent."""


def container_variables(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """All environment variables of PID 1."""
    threads = str(config.cpus)
    return {
        **environment,
        "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
        "CUDA_CACHE_PATH": "/tmp/cuda",  # noqa: S108
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }


def host_config(
    engine: Engine, config: Config, spec: ContainerSpec, limits: Limits, read_only: Mapping[str, Path]
) -> dict[str, Any]:
    """Build the host configuration to send to the engine.

    Args:
        limits: limits that the kernel must keep, and the cores of the container.
        read_only: host files and folders by mount point, `/locked` included.
    """
    mounts = [
        Mount(target=target, source=str(source), type="bind", read_only=True)
        for target, source in read_only.items()
    ]
    if spec.output_volume is not None:
        # no_copy: else the engine gives the volume the owner of the image's own /out.
        name, target, writable = spec.output_volume
        mounts.append(Mount(target=target, source=name, type="volume", read_only=not writable, no_copy=True))
    file_bytes = largest_file(config)
    scratch = f"size={config.scratch_bytes},nr_inodes={MAX_INODES}"
    built: dict[str, Any] = engine.client.api.create_host_config(
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID", "KILL"],  # of PID 1 alone; the candidate is another uid with none
        # The engine's default seccomp profile stays; the filter of the locked evaluation comes on top of it.
        security_opt=["no-new-privileges"],
        mem_limit=limits.memory_bytes,
        memswap_limit=limits.memory_bytes,  # leaving it out would allow as much swap again
        pids_limit=limits.pids,
        cpuset_cpus=",".join(str(core) for core in limits.cores),
        ipc_mode="private",
        shm_size=max(config.shm_bytes, 1),
        oom_score_adj=1000,  # a host without memory ends candidates first
        runtime=config.runtime,
        ulimits=[
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=4096, hard=4096),
            Ulimit(name="fsize", soft=file_bytes, hard=file_bytes),
        ],
        # --tmpfs is noexec by default, which breaks torch.compile.
        tmpfs={"/tmp": f"rw,exec,nosuid,nodev,{scratch},mode=1777"},  # noqa: S108
        mounts=mounts,
        log_config=LogConfig(type="none")
        if spec.interactive
        else LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        device_requests=[gpu_request(engine, config.gpu)] if config.gpu else None,
    )
    return built


def largest_file(config: Config) -> int:
    """Size limit of one file in bytes, holes included: slightly more than a full file system holds."""
    return max(config.scratch_bytes, config.output_bytes) + MEBI


def gpu_request(engine: Engine, uuid: str) -> DeviceRequest:
    """Request one GPU by its UUID: by device injection (CDI) where the engine knows it, else by NVIDIA's hook."""
    name = f"nvidia.com/gpu={uuid}"
    if name in engine.cdi_devices:
        return DeviceRequest(driver="cdi", device_ids=[name])
    return DeviceRequest(device_ids=[uuid], capabilities=[["gpu"]])
