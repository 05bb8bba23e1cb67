"""`autoresearch doctor` with real containers: no probe fires here, and each fires without its protection."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
from docker.api.container import ContainerApiMixin
from docker.types import LogConfig, Ulimit

from runner.sandbox import connect, containers
from runner.sandbox.containers import Sandbox
from runner.sandbox.doctor import ground as grounds
from runner.sandbox.doctor import probes
from runner.sandbox.doctor.finding import NAMES
from runner.sandbox.doctor.ground import open_ground
from runner.sandbox.engine import LABEL
from tests.support.private_engine import copy_image, private_engine

pytestmark = pytest.mark.docker

TMPFS = {"/tmp": "rw,exec,suid,dev,size=192m,mode=1777"}
"""Larger than any probe asks for, with devices and set-uid programs."""


@pytest.fixture
def sandbox(engine, cpu_config, locked_folder, owner):
    return Sandbox(engine=engine, config=cpu_config, locked=locked_folder, owner=owner)


@pytest.fixture
def ground(sandbox, torch_image, tmp_path):
    """The ground of the probes."""
    with open_ground(sandbox, torch_image, tmp_path / "probes") as opened:
        yield opened


@pytest.fixture
def engine_with(monkeypatch):
    """An engine that silently gives containers something else than requested."""

    def change(*removed, **changes):
        create = ContainerApiMixin.create_host_config

        def changed(self, *args, **kwargs):
            kept = {name: value for name, value in kwargs.items() if name not in removed}
            return create(self, *args, **{**kept, **changes})

        make = ContainerApiMixin.create_container

        def made(self, *args, network_disabled, **kwargs):
            return make(self, *args, network_disabled="network_mode" not in changes, **kwargs)

        monkeypatch.setattr(ContainerApiMixin, "create_container", made)
        monkeypatch.setattr(ContainerApiMixin, "create_host_config", changed)
        monkeypatch.setattr(containers, "check_effective", lambda *_: None)

    return change


@pytest.fixture
def evaluation_with(ground, tmp_path):
    """The ground with a locked evaluation in which texts are replaced, by file."""

    def change(changes):
        folder = tmp_path / "other"
        shutil.copytree(ground.sandbox.locked, folder)
        for name, replacements in changes.items():
            path = folder / "locked_eval" / name
            text = path.read_text()
            for old, new in replacements.items():
                assert old in text, f"{name} has no {old!r} any more"
                text = text.replace(old, new)
            path.write_text(text)
        return replace(ground, sandbox=replace(ground.sandbox, locked=folder))

    return change


def bad(findings):
    return {one.name: one.fact for one in findings if one.level == "problem"}


def test_nothing_is_found_here_and_nothing_is_left(sandbox, engine, torch_image, owner, tmp_path):
    said = []
    findings = probes.probe(
        sandbox,
        base_image=torch_image,
        scratch=tmp_path / "probes",
        torch_version=None,
        pause_daemon=False,
        on_progress=said.append,
    )
    assert bad(findings) == {}
    assert {one.name for one in findings} <= set(NAMES)
    assert len({one.name for one in findings}) == len(findings) == 25
    assert len(said) == 6
    assert list(tmp_path.iterdir()) == []
    label = {"label": f"{LABEL}controller={owner.controller}"}
    assert engine.client.api.containers(all=True, filters=label) == []
    assert engine.client.api.volumes(filters=label)["Volumes"] in ([], None)
    assert engine.client.api.images(filters=label) == []


def test_pid_1_ends_a_run_while_the_daemon_is_stopped(engine, sandbox, torch_image, tmp_path):
    """On an engine of its own: other tests use the shared one."""
    with private_engine() as alone:
        copy_image(engine.client, torch_image, alone)
        own = connect(alone.url)
        with (
            closing(own.client),
            open_ground(replace(sandbox, engine=own), torch_image, tmp_path / "probes") as ground,
        ):
            found = probes.watchdog(ground, pause_daemon=True)
    assert (found.level, "daemon stopped" in found.fact) == ("ok", True), found


def test_without_the_limits_of_the_engine_the_probes_fire(all_cores, ground, engine_with):
    engine_with(
        "memswap_limit",
        "security_opt",
        network_mode="host",
        read_only=False,
        mem_limit=ground.config.memory_bytes + (1 << 20),
        pids_limit=ground.config.pids + 1,
        cpuset_cpus=None,
        oom_score_adj=0,
        tmpfs=TMPFS,
        ulimits=[Ulimit(name="core", soft=0, hard=0)],
        devices=["/dev/kmsg:/dev/kmsg:rw"],
    )
    found = bad(probes.look(ground, "0.0.1"))
    assert found.keys() == {"limits", "network", "mounts", "read-only", "devices", "torch-inside"}, found
    for part in ("memory_bytes", "pids", "oom_score_adj", "open files", "size of a file"):
        assert part in found["limits"]
    assert ("cores" in found["limits"]) == (os.cpu_count() > ground.config.cpus)
    assert "/tmp without nosuid" in found["mounts"]
    assert "/ without ro" in found["mounts"]


def test_without_what_the_supervisor_and_the_filter_do_the_probes_fire(evaluation_with, engine_with):
    engine_with("security_opt", "cap_drop")
    ground = evaluation_with(
        {
            "container/supervisor.py": {
                "CANDIDATE_UID = 10001": "CANDIDATE_UID = 0",
                "env=environment,": "env={**environment, 'NVIDIA_VISIBLE_DEVICES': 'all'},",
            },
            "container/syscall_filter.py": {"def install() -> None:": "def install() -> None:\n    return\n"},
        }
    )
    found = bad(probes.look(ground, None))
    wanted = {"user", "capabilities", "privileges", "seccomp", "system-calls", "environment", "read-only"}
    assert found.keys() == wanted, found
    for part in ("AF_PACKET", "mknod", "kill PID 1", "a 32-bit call", "read /proc/1/environ"):
        assert part in found["system-calls"]


def test_without_any_filter_the_probe_fires(evaluation_with, engine_with):
    engine_with(security_opt=["seccomp=unconfined"])
    ground = evaluation_with(
        {"container/syscall_filter.py": {"def install() -> None:": "def install() -> None:\n    return\n"}}
    )
    found = bad(probes.look(ground, None))
    assert found.keys() == {"privileges", "seccomp", "system-calls"}, found
    assert "Seccomp: '0'" in found["seccomp"]
    for part in ("unshare user", "clone user", "io_uring_setup", "keyctl", "userfaultfd"):
        assert part in found["system-calls"]


def test_without_the_caps_the_probes_fire(evaluation_with, engine_with, monkeypatch):
    engine_with("memswap_limit", "ulimits", mem_limit=2 << 30, pids_limit=400, tmpfs=TMPFS, shm_size=128 << 20)
    ground = evaluation_with({"container/throttle.py": {"BURST_BYTES = 128 * 1024": "BURST_BYTES = 16 << 20"}})
    create = containers.create_output_volume

    def larger(engine, config, owner):
        return create(engine, config.model_copy(update={"output_bytes": 2 * config.output_bytes}), owner)

    monkeypatch.setattr(grounds, "create_output_volume", larger)
    found = bad(probes.bite(ground))
    assert found.keys() == {
        "pids-cap", "memory-cap", "output-cap", "scratch-cap", "shm-cap", "descriptors-cap", "file-cap", "log-cap",
    }, found  # fmt: skip


def test_without_rotation_of_the_log_the_probe_fires(ground, engine_with):
    engine_with(log_config=LogConfig(type="json-file", config={}))
    assert bad([probes.flood(ground)]).keys() == {"log-rotation"}


def test_without_a_deadline_of_pid_1_the_probe_fires(evaluation_with, monkeypatch):
    monkeypatch.setattr(probes, "HANG_SECONDS", 1.0)
    ground = evaluation_with(
        {
            "container/supervisor.py": {
                "self.started_at + self.limit_seconds": "self.started_at + self.limit_seconds + 1000"
            }
        }
    )
    found = probes.watchdog(ground, pause_daemon=False)
    assert bad([found]).keys() == {"watchdog"}
    assert "went on" in found.fact


def test_an_engine_that_drops_a_limit_is_a_problem_by_its_name(ground, torch_image, tmp_path):
    create = ContainerApiMixin.create_container

    def forgetful(self, *args, host_config, **kwargs):
        return create(self, *args, host_config={**host_config, "PidsLimit": None}, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContainerApiMixin, "create_container", forgetful)
        findings = probes.probe(
            ground.sandbox,
            base_image=torch_image,
            scratch=tmp_path / "probes",
            torch_version=None,
            pause_daemon=False,
            on_progress=lambda _: None,
        )
    assert bad(findings).keys() == {"probes"}
    assert "PidsLimit" in bad(findings)["probes"]
