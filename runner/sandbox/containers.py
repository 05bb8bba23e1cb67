"""Untrusted containers and their output volumes: created, moved to other cores, and removed.

Every container is created, inspected (`inspection.py`), and only then started. Its arguments are built in
`container_spec.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_fixed

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Side, Step, around, reach
from runner.sandbox.container_spec import ContainerSpec, container_variables, host_config
from runner.sandbox.engine import LABEL, QUICK_SECONDS, Engine, engine_errors
from runner.sandbox.inspection import check_effective, has_swap, refuse_mounts_below, removed_variables
from runner.sandbox.kernel_limits import Limits
from runner.sandbox.reservation import choose_cores
from runner.sandbox.reservation import labels as reserved_labels

log = structlog.get_logger()

PYTHON = "/opt/venv/bin/python"
CANDIDATE_UID = 10001  # not 65534: that uid may own a file system's reserved blocks
DISCARD_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Owner of a container or volume; becomes its labels."""

    controller: str  # id of the state folder
    campaign: str
    experiment: int

    def facts(self) -> dict[str, str]:
        """Label values by name, without the prefix."""
        return {
            "controller": self.controller,
            "campaign": self.campaign,
            "experiment": str(self.experiment),
        }

    def labels(self, kind: str) -> dict[str, str]:
        """Labels for one thing of ours."""
        return {LABEL + name: value for name, value in {**self.facts(), "kind": kind}.items()}


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Common settings of all containers of one candidate."""

    engine: Engine
    config: Config
    locked: Path  # host folder that holds `locked_eval/`; mounted at `/locked`
    owner: Owner


def limits_of(config: Config, cores: tuple[int, ...] | None = None) -> Limits:
    """Limits that the kernel must keep for a container of a candidate.

    Args:
        cores: cores of the container; `choose_cores` when absent.
    """
    return Limits(memory_bytes=config.memory_bytes, pids=config.pids, cores=cores or choose_cores(config))


def create_container(sandbox: Sandbox, spec: ContainerSpec) -> str:
    """Create (not start) a container, and check what the engine made of it.

    Returns: the full container id.

    Raises:
        EngineError: the engine refused, or the container differs from the request.
    """
    api = sandbox.engine.client.api
    variables = container_variables(sandbox.config, spec.environment)
    read_only = {"/locked": sandbox.locked, **spec.read_only}
    refuse_mounts_below(read_only.values(), Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    limits = limits_of(sandbox.config, spec.cores)
    wanted = host_config(sandbox.engine, sandbox.config, spec, limits, read_only)
    with engine_errors(f"creating the {spec.phase} container"):
        image = api.inspect_image(spec.image_id)
        reach(Step.CONTAINER_CREATED, Side.BEFORE)
        container = api.create_container(
            image=spec.image_id,
            entrypoint=[PYTHON, "-I", "-S", f"/locked/locked_eval/{spec.program}"],
            command=list(spec.command),
            user="0:0",
            working_dir="/",
            environment=[
                *(f"{name}={value}" for name, value in variables.items()),
                *removed_variables(image["Config"].get("Env") or (), variables),
            ],
            labels={**sandbox.owner.labels(spec.phase), **reserved_labels(sandbox.config)},
            stdin_open=spec.interactive,
            host_config=wanted,
            network_disabled=True,
        )
        reach(Step.CONTAINER_CREATED, Side.AFTER)  # it is there, and we do not know its id yet
        container_id: str = container["Id"]
    try:
        with engine_errors(f"inspecting the {spec.phase} container"):
            check_effective(wanted, variables, api.inspect_container(container_id))
            # The engine re-creates a volume that is gone, on disk and without a limit.
            if spec.output_volume is not None and not api.inspect_volume(spec.output_volume.name).get("Options"):
                raise EngineError("the output volume was removed by another program")
    except BaseException:
        discard(remove_container, sandbox.engine.client, container_id)
        raise
    return container_id


@contextmanager
def open_container(sandbox: Sandbox, spec: ContainerSpec) -> Iterator[str]:
    """Create a container, yield its id, and remove it in any case.

    Raises:
        EngineError: as `create_container`.
    """
    container_id = create_container(sandbox, spec)
    try:
        yield container_id
    finally:
        discard(remove_container, sandbox.engine.client, container_id)


def move_container(engine: Engine, container_id: str, limits: Limits) -> int:
    """Pin a running container to other cores, and set its memory limits again.

    With systemd and cgroup v2, an update that leaves out memory and swap removes the swap limit.

    Not covered: what the kernel makes of it, which `LimitWatch` checks.

    Returns: the process id of its PID 1 on the host; 0 when it has ended.

    Raises:
        EngineError: the engine refused the update or ignored it.
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


def create_output_volume(engine: Engine, config: Config, owner: Owner) -> str:
    """Create a tmpfs volume for checkpoints with size and inode limits that the kernel enforces; returns its name.

    Its contents live in memory, and only while a started container holds it.
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
    """Remove a container or volume during cleanup, without replacing an exception that is under way.

    A failed removal must neither swallow an interrupt nor discard a finished score. `remove_orphans` removes what
    is left, at the end of this start and at the beginning of the next.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(EngineError),
        stop=stop_after_attempt(DISCARD_ATTEMPTS) | stop_after_delay(QUICK_SECONDS),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    try:
        attempts(remove, client, name)
    except EngineError as error:
        log.warning("cleanup_failed", thing=name, reason=error.message)


def remove_container(client: docker.DockerClient, container_id: str) -> None:
    """Kill and remove a container; does nothing when it is gone already."""
    with engine_errors("removing a container"), around(Step.CONTAINER_REMOVED):
        try:
            client.api.remove_container(container_id, force=True, v=False)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if "already in progress" not in str(error):
                raise


def remove_volume(client: docker.DockerClient, name: str) -> None:
    """Remove a volume; does nothing when it is gone already."""
    with engine_errors("removing a volume"), around(Step.VOLUME_REMOVED):
        try:
            client.api.remove_volume(name, force=True)
        except docker.errors.NotFound:
            return
