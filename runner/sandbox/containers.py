"""The one place that builds the arguments of a candidate's container.

Every container is created, inspected (`effective.py`), and only then started.

Not covered: kernel and driver bugs. `SECURITY.md` says what the sandbox promises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import docker
import structlog
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from runner.config import MEBI, Config
from runner.errors import EngineError
from runner.failpoints import Side, Step, around, reach
from runner.sandbox.engine import LABEL, QUICK_SECONDS, Engine, engine_errors
from runner.sandbox.inspection import check_effective, has_swap, refuse_mounts_below, removed_variables
from runner.sandbox.kernel_limits import Limits

log = structlog.get_logger()

PYTHON = "/opt/venv/bin/python"
CANDIDATE_UID = 10001  # not 65534: that uid may own a file system's reserved blocks
MAX_INODES = 65536
DISCARD_ATTEMPTS = 3


class OutputVolume(NamedTuple):
    """How a container sees the tmpfs volume of checkpoints."""

    name: str
    target: str
    writable: bool


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose container or volume it is; becomes labels."""

    controller: str  # id of the state folder
    campaign: str
    experiment: int

    def facts(self) -> dict[str, str]:
        """What the labels say, without their prefix."""
        return {
            "controller": self.controller,
            "campaign": self.campaign,
            "experiment": str(self.experiment),
        }

    def labels(self, kind: str) -> dict[str, str]:
        """Labels for one thing of ours."""
        return {LABEL + name: value for name, value in {**self.facts(), "kind": kind}.items()}


def choose_cores(config: Config) -> tuple[int, ...]:
    """The last cores of this machine: the controller and the engine stay on the first ones."""
    return tuple(sorted(os.sched_getaffinity(0))[-config.cpus :])


def spare_cores(config: Config) -> tuple[int, ...]:
    """Where containers import torch while a candidate is measured; empty when there is no such place.

    Candidates may have every core, and not every runtime can move a container (gVisor cannot).
    """
    if config.runtime is not None:
        return ()
    return tuple(sorted(os.sched_getaffinity(0) - set(choose_cores(config))))


def limits_of(config: Config, cores: tuple[int, ...] | None = None) -> Limits:
    """What the kernel has to keep of a container that candidates run in.

    Args:
        cores: where it runs; `choose_cores` when absent.
    """
    return Limits(memory_bytes=config.memory_bytes, pids=config.pids, cores=cores or choose_cores(config))


def create_container(
    engine: Engine,
    *,
    config: Config,
    image_id: str,
    phase: str,
    command: list[str],
    environment: Mapping[str, str],
    read_only: Mapping[str, Path],
    output_volume: OutputVolume | None,
    owner: Owner,
    interactive: bool,
    program: str = "container/supervisor.py",
    cores: tuple[int, ...] | None = None,
) -> str:
    """Create (not start) the container of one phase and check what the engine made of it.

    Args:
        command: arguments of PID 1.
        read_only: host folders by mount point.
        output_volume: where checkpoints are, if it has to do with any.
        interactive: keep stdin open and log nothing (claims are streamed to an attached reader).
        program: file of the locked evaluation that is PID 1.
        cores: where it runs; `choose_cores` when absent.

    Returns: the full container id.

    Raises:
        EngineError: the engine refused, or the container is not what was asked for.
    """
    api = engine.client.api
    threads = str(config.cpus)
    variables = {
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
    mounts = [
        Mount(target=target, source=str(source), type="bind", read_only=True)
        for target, source in read_only.items()
    ]
    refuse_mounts_below(read_only.values(), Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    if output_volume is not None:
        # no_copy: else the engine gives the volume the owner of the image's own /out.
        name, target, writable = output_volume
        mounts.append(Mount(target=target, source=name, type="volume", read_only=not writable, no_copy=True))
    wanted = api.create_host_config(
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID", "KILL"],  # of PID 1 alone; the candidate is another uid with none
        security_opt=[
            "no-new-privileges"
        ],  # the engine's default seccomp stays; locked_eval/container/syscall_filter.py comes on top
        mem_limit=config.memory_bytes,
        memswap_limit=config.memory_bytes,  # leaving it out would allow as much swap again
        pids_limit=config.pids,
        cpuset_cpus=",".join(str(core) for core in cores or choose_cores(config)),
        ipc_mode="private",
        shm_size=max(config.shm_bytes, 1),
        oom_score_adj=1000,  # a host without memory ends candidates first
        runtime=config.runtime,
        ulimits=[
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=4096, hard=4096),
            Ulimit(name="fsize", soft=largest_file(config), hard=largest_file(config)),
        ],
        # --tmpfs is noexec by default, which breaks torch.compile.
        tmpfs={
            "/tmp": f"rw,exec,nosuid,nodev,size={config.scratch_bytes},nr_inodes={MAX_INODES},mode=1777"  # noqa: S108
        },
        mounts=mounts,
        log_config=LogConfig(type="none")
        if interactive
        else LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        device_requests=[gpu_request(engine, config.gpu)] if config.gpu else None,
    )
    with engine_errors(f"creating the {phase} container"):
        image = api.inspect_image(image_id)
        reach(Step.CONTAINER_CREATED, Side.BEFORE)
        container = api.create_container(
            image=image_id,
            entrypoint=[PYTHON, "-I", "-S", f"/locked/locked_eval/{program}"],
            command=command,
            user="0:0",
            working_dir="/",
            environment=[
                *(f"{name}={value}" for name, value in variables.items()),
                *removed_variables(image["Config"].get("Env") or (), variables),
            ],
            labels=owner.labels(phase),
            stdin_open=interactive,
            host_config=wanted,
            network_disabled=True,
        )
        reach(Step.CONTAINER_CREATED, Side.AFTER)  # it is there, and we do not know its id yet
        container_id: str = container["Id"]
    try:
        with engine_errors(f"inspecting the {phase} container"):
            check_effective(wanted, variables, api.inspect_container(container_id))
            # A volume that is gone is made anew by the engine, on disk and without a limit.
            if output_volume is not None and not api.inspect_volume(output_volume.name).get("Options"):
                raise EngineError("somebody removed the output volume")
    except BaseException:
        discard(remove_container, engine.client, container_id)
        raise
    return container_id


def move_container(engine: Engine, container_id: str, limits: Limits) -> int:
    """Pin a running container to other cores, and say its memory again.

    With systemd and cgroup v2 a change that leaves memory and swap out takes the swap limit away.

    Not covered: what the kernel made of it; `LimitWatch` looks.

    Returns: the process that is its PID 1; 0 when it has ended.

    Raises:
        EngineError: the engine refused, or did not do it.
    """
    cores, memory = ",".join(str(core) for core in limits.cores), limits.memory_bytes
    with engine_errors("pinning a container"):
        engine.client.api.update_container(container_id, cpuset_cpus=cores, mem_limit=memory, memswap_limit=memory)
        inspected = engine.client.api.inspect_container(container_id)
        found, process = inspected["HostConfig"], int(inspected["State"]["Pid"])
        if found["CpusetCpus"] != cores:
            raise EngineError(
                f"a container stays on the cores {found['CpusetCpus']!r} instead of {cores!r}",
                "autoresearch doctor",
            )
        for name in ("Memory", "MemorySwap"):
            if found[name] != memory and not (name == "MemorySwap" and found[name] == -1 and not has_swap()):
                raise EngineError(
                    f"a container that was moved has {name} {found[name]} instead of {memory}",
                    "autoresearch doctor",
                )
    return process


def largest_file(config: Config) -> int:
    """Bytes that one file may have, holes included: a little more than a file system holds, which then says so."""
    return max(config.scratch_bytes, config.output_bytes) + MEBI


def gpu_request(engine: Engine, uuid: str) -> DeviceRequest:
    """One GPU by its UUID: by device injection (CDI) where the engine knows it, else by NVIDIA's hook."""
    name = f"nvidia.com/gpu={uuid}"
    if name in engine.cdi_devices:
        return DeviceRequest(driver="cdi", device_ids=[name])
    return DeviceRequest(device_ids=[uuid], capabilities=[["gpu"]])


def create_output_volume(engine: Engine, config: Config, owner: Owner) -> str:
    """A tmpfs volume for checkpoints, whose size and inode caps the kernel enforces; returns its name.

    It lives in memory, and only while a started container holds it.
    """
    options = (
        f"size={config.output_bytes},nr_inodes=4096,uid={CANDIDATE_UID},gid={CANDIDATE_UID},"
        "mode=0755,nosuid,nodev,noexec"
    )
    with engine_errors("creating the output volume"):
        reach(Step.VOLUME_CREATED, Side.BEFORE)
        volume = engine.client.api.create_volume(
            driver="local",
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": options},
            labels=owner.labels("output"),
        )
        reach(Step.VOLUME_CREATED, Side.AFTER)
        name: str = volume["Name"]
    return name


def discard(remove: Callable[[docker.DockerClient, str], None], client: docker.DockerClient, name: str) -> None:
    """Remove a thing of ours on the way out, without replacing what is on its way.

    A removal that fails must neither swallow an interrupt nor throw a finished score away;
    `remove_orphans` finds what stays, at the end of this start and at the beginning of the next.
    """
    began = time.monotonic()
    for left in reversed(range(DISCARD_ATTEMPTS)):
        try:
            return remove(client, name)
        except EngineError as error:
            if not left or time.monotonic() - began > QUICK_SECONDS:
                log.warning("cleanup_failed", thing=name, reason=error.message)
                return None
        time.sleep(0.5)
    return None


def remove_container(client: docker.DockerClient, container_id: str) -> None:
    """Kill and remove a container; one that is gone already is fine."""
    with engine_errors("removing a container"), around(Step.CONTAINER_REMOVED):
        try:
            client.api.remove_container(container_id, force=True, v=False)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if "already in progress" not in str(error):
                raise


def remove_volume(client: docker.DockerClient, name: str) -> None:
    """Remove a volume; one that is gone already is fine."""
    with engine_errors("removing a volume"), around(Step.VOLUME_REMOVED):
        try:
            client.api.remove_volume(name, force=True)
        except docker.errors.NotFound:
            return
