"""A created container is compared with the request: everything that differs is named."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from docker.types import DeviceRequest

from runner.errors import EngineError
from runner.sandbox import container_spec, containers
from runner.sandbox.container_spec import ContainerSpec, OutputVolume
from runner.sandbox.containers import Sandbox, create_container, create_output_volume, remove_container
from runner.sandbox.engine import Engine
from runner.sandbox.inspection import check_effective, refuse_mounts_below

pytestmark = pytest.mark.docker


@pytest.fixture
def sandbox(engine, cpu_config, mounts, owner):
    return Sandbox(engine=engine, config=cpu_config, locked=mounts.locked, owner=owner)


@pytest.fixture
def created(sandbox, engine, base_image, cpu_config, owner, monkeypatch):
    """Arguments of a real check, which passed, of a real container."""
    seen = {}

    def remember(wanted, environment, inspected):
        seen.update(wanted=wanted, environment=environment, inspected=inspected)
        check_effective(wanted, environment, inspected)

    monkeypatch.setattr(containers, "check_effective", remember)
    volume = create_output_volume(engine, cpu_config, owner)
    spec = ContainerSpec(
        phase="train",
        image_id=base_image,
        command=["train"],
        environment={"SEED": "1"},
        output_volume=OutputVolume(volume, "/out", writable=True),
    )
    container = create_container(sandbox, spec)
    yield seen
    remove_container(engine.client, container)
    engine.client.api.remove_volume(volume)


def changed(seen, *path, to):
    """The same with one value of the inspection changed."""
    inspected = copy.deepcopy(seen["inspected"])
    place = inspected
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return inspected


DROPPED = {
    "network": ("NetworkMode", "bridge"),
    "root": ("ReadonlyRootfs", False),
    "dropped capabilities": ("CapDrop", None),
    "added capabilities": ("CapAdd", ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_ADMIN"]),
    "privileges": ("SecurityOpt", None),
    "seccomp": ("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
    "memory": ("Memory", 0),
    "swap": ("MemorySwap", 1 << 40),
    "processes": ("PidsLimit", None),
    "cores": ("CpusetCpus", ""),
    "IPC": ("IpcMode", "shareable"),
    "shared memory": ("ShmSize", 1 << 40),
    "victim of a host without memory": ("OomScoreAdj", 0),
    "file size": ("Ulimits", [{"Name": "core", "Soft": 0, "Hard": 0}]),
    "scratch": ("Tmpfs", {"/tmp": "rw,exec"}),
    "log": ("LogConfig", {"Type": "json-file", "Config": {}}),
    "privileged": ("Privileged", True),
    "processes of the host": ("PidMode", "host"),
    "users of the host": ("UsernsMode", "host"),
    "a device": ("Devices", [{"PathOnHost": "/dev/kmsg"}]),
    "a bind": ("Binds", ["/:/host"]),
    "a kernel parameter": ("Sysctls", {"kernel.msgmax": "1"}),
    "hidden paths": ("MaskedPaths", []),
    "read-only paths": ("ReadonlyPaths", None),
}


@pytest.mark.parametrize(("name", "value"), DROPPED.values(), ids=DROPPED.keys())
def test_a_limit_that_the_engine_dropped_is_refused_by_name(created, name, value):
    assert created["inspected"]["HostConfig"].get(name) != value, "the real engine keeps it"
    with pytest.raises(EngineError, match=name):
        check_effective(created["wanted"], created["environment"], changed(created, "HostConfig", name, to=value))


def test_a_variable_that_steers_the_loader_is_refused(created):
    for entry in ("LD_PRELOAD=/tmp/x.so", "NVIDIA_VISIBLE_DEVICES=all", "PYTHONPATH=/tmp", "SEED=2", "OTHER=1"):
        env = [*created["inspected"]["Config"]["Env"], entry]
        with pytest.raises(EngineError, match="variable " + entry.partition("=")[0]):
            check_effective(created["wanted"], created["environment"], changed(created, "Config", "Env", to=env))


def test_a_mount_that_became_writable_vanished_or_was_added_is_refused(created):
    mounts = created["inspected"]["Mounts"]
    cases = {
        "mount /locked: writable": [{**one, "RW": True} for one in mounts],
        "mount /locked: absent": [one for one in mounts if one["Destination"] != "/locked"],
        "mount /host: writable": [*mounts, {"Destination": "/host", "RW": True}],
    }
    for message, found in cases.items():
        with pytest.raises(EngineError, match=message):
            check_effective(created["wanted"], created["environment"], changed(created, "Mounts", to=found))


def test_the_names_of_newer_engines_mean_the_same(created):
    inspected = changed(created, "HostConfig", "CapAdd", to=["CAP_KILL", "CAP_SETGID", "CAP_SETUID"])
    inspected["HostConfig"]["SecurityOpt"] = ["no-new-privileges:true"]
    check_effective(created["wanted"], created["environment"], inspected)


def variables_of(pid):
    """Names of the variables that a process began with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry.partition(b"=")[0].decode() for entry in entries if entry}


def test_variables_of_the_image_are_taken_away(sandbox, engine, base_image, owner, created):
    """The image of a registry brings PYTHON_VERSION along; an evil one brings LD_PRELOAD."""
    temporary = engine.client.api.create_container(base_image, ["true"], labels=owner.labels("image"))["Id"]
    changes = ["ENV LD_PRELOAD=/evil.so PYTHON_VERSION=3 NVIDIA_VISIBLE_DEVICES=all"]
    image_id = engine.client.api.commit(temporary, changes="\n".join(changes))["Id"]
    remove_container(engine.client, temporary)
    assert "LD_PRELOAD=/evil.so" in engine.client.api.inspect_image(image_id)["Config"]["Env"]
    container = ""
    try:
        spec = ContainerSpec(
            phase="train",
            image_id=image_id,
            command=["train", "--startup", "60", "--limit", "60"],
            environment={"SEED": "1"},
        )
        container = create_container(sandbox, spec)
        if os.geteuid() != 0:
            pytest.skip("only root can look into PID 1")
        engine.client.api.start(container)
        pid = engine.client.api.inspect_container(container)["State"]["Pid"]
        names = variables_of(pid)
        while "_LIBCONTAINER_INITPIPE" in names:  # the runtime has not yet become PID 1's program
            time.sleep(0.01)
            names = variables_of(pid)
    finally:
        remove_container(engine.client, container)
        engine.client.api.remove_image(image_id, force=True)
    assert names == created["environment"].keys() | {"HOSTNAME"}


def test_a_mount_below_a_read_only_folder_is_refused(tmp_path):
    line = "36 35 98:0 / {} rw,noatime - tmpfs tmpfs rw\n"
    with pytest.raises(EngineError, match="is mounted below"):
        refuse_mounts_below([tmp_path], line.format(tmp_path / "sub"))
    with pytest.raises(EngineError, match="with a blank"):
        refuse_mounts_below([tmp_path], line.format(str(tmp_path / "with a blank").replace(" ", "\\040")))
    refuse_mounts_below([tmp_path], line.format(tmp_path) + line.format(tmp_path.parent / "other"))


def test_a_gpu_is_asked_for_by_its_uuid_in_the_way_that_the_engine_knows():
    def engine(*devices):
        return Engine(url="", daemon_id="", version="", client=None, cdi_devices=frozenset(devices))

    plain = DeviceRequest(device_ids=["GPU-1"], capabilities=[["gpu"]])
    assert container_spec.gpu_request(engine(), "GPU-1") == plain
    assert container_spec.gpu_request(engine("nvidia.com/gpu=GPU-2", "nvidia.com/gpu=all"), "GPU-1") == plain
    assert container_spec.gpu_request(engine("nvidia.com/gpu=GPU-1"), "GPU-1") == DeviceRequest(
        driver="cdi", device_ids=["nvidia.com/gpu=GPU-1"]
    )


def test_a_runtime_that_the_engine_does_not_know_is_refused(sandbox, base_image, cpu_config):
    config = cpu_config.model_copy(update={"runtime": "no-such-runtime"})
    with pytest.raises(EngineError, match="no-such-runtime"):
        create_container(replace(sandbox, config=config), ContainerSpec(phase="train", image_id=base_image))
