"""Findings about the host, acceptance, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from runner.cli import cli
from runner.config import load
from runner.errors import ConfigError, EngineError
from runner.sandbox import doctor
from runner.sandbox.doctor import host
from runner.sandbox.doctor.finding import NAMES, Finding, accepting, check_names
from runner.sandbox.engine import Engine
from runner.sandbox.host import Gpu
from runner.storage.filesystem import FileSystem

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
FINE = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "CPUSet": True,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "SystemTime": "2026-11-25T12:00:00.123456789Z",
    "DockerRootDir": "/",
    "Runtimes": {"runc": {}},
}
ENGINE = Engine(url="unix:///x", daemon_id="abc", version="28.2.2", client=None)
CPU = load(Path("/nonexistent"), {"profile": "cpu"}, environ={})
CUDA = load(Path("/nonexistent"), {"profile": "cuda", "gpu": "GPU-1"}, environ={})
USERNS = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}
ROOTLESS = {"CPUSet": False, "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}


def levels(findings):
    return {one.name: one.level for one in findings}


def test_a_good_engine_has_no_finding():
    found = host.engine_findings(ENGINE, FINE, CPU, NOW)
    assert levels(found)["docker"] == "ok"
    assert {one.level for one in found if one.name not in ("docker-disk", "docker-inodes")} == {"ok"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"MemoryLimit": False}, "docker-limits"),
        ({"PidsLimit": False}, "docker-limits"),
        ({"CPUSet": False}, "docker-limits"),
        ({"SecurityOptions": ["name=apparmor"]}, "docker-limits"),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, "docker-users"),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}, "docker-users"),
        ({"SystemTime": "2026-11-25T12:00:20Z"}, "docker-clock"),
        ({"SystemTime": "2026-11-24T12:00:00Z"}, "docker-clock"),
    ],
)
def test_what_an_engine_lacks_is_a_problem_with_reason_and_remedy(change, name):
    found = [one for one in host.engine_findings(ENGINE, FINE | change, CPU, NOW) if one.level == "problem"]
    assert name in {one.name for one in found}
    assert all(one.reason and one.remedy for one in found)


@pytest.mark.parametrize("time", ["2026-11-25T12:00:02Z", "2026-11-25T11:59:58.9Z"])
def test_a_second_between_question_and_answer_is_no_other_clock(time):
    assert levels(host.engine_findings(ENGINE, FINE | {"SystemTime": time}, CPU, NOW))["docker-clock"] == "ok"


@pytest.mark.parametrize("time", [None, "", "soon", "2026-11-25T14:00:00+02:00"])
def test_a_clock_that_an_engine_does_not_report_in_utc_is_not_judged(time):
    assert "docker-clock" not in levels(host.engine_findings(ENGINE, FINE | {"SystemTime": time}, CPU, NOW))


def engine_with(*devices):
    return replace(ENGINE, cdi_devices=frozenset(devices))


@pytest.mark.parametrize(
    ("engine", "runtimes", "level", "remedy"),
    [
        (engine_with("nvidia.com/gpu=GPU-1"), {}, "ok", None),
        (ENGINE, {"nvidia": {}}, "ok", None),
        (engine_with("nvidia.com/gpu=0", "nvidia.com/gpu=all"), {"nvidia": {}}, "ok", None),
        (engine_with("nvidia.com/gpu=0", "nvidia.com/gpu=all"), {}, "problem", "cdi generate"),
        (engine_with("nvidia.com/gpu=GPU-2"), {}, "problem", "cdi generate"),
        (engine_with("vendor.com/net=0"), {}, "problem", "runtime configure"),
        (ENGINE, {}, "problem", "runtime configure"),
    ],
)
def test_the_doctor_asks_for_the_gpu_as_the_night_does(engine, runtimes, level, remedy):
    (found,) = [
        one
        for one in host.engine_findings(engine, FINE | {"Runtimes": runtimes}, CUDA, NOW)
        if one.name == "gpu-in-containers"
    ]
    assert found.level == level
    assert remedy is None or remedy in found.remedy


def test_without_a_gpu_its_support_is_no_question():
    assert "gpu-in-containers" not in levels(host.engine_findings(ENGINE, FINE, CPU, NOW))


def test_a_rootless_engine_is_one_finding_and_not_its_consequences():
    (found,) = host.limit_findings(FINE | ROOTLESS)
    assert (found.name, found.level) == ("docker-users", "problem")


class Described:
    """A client of an engine that describes itself."""

    def __init__(self, info):
        self.described = info

    def info(self):
        return self.described


@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        (USERNS, "remaps users", "/etc/docker/daemon.json"),
        (ROOTLESS, "is rootless", "make engine"),
        ({"MemoryLimit": False}, "cannot limit memory", "cgroup"),
    ],
)
def test_a_start_refuses_an_engine_that_cannot_hold_candidates(change, message, remedy):
    engine = replace(ENGINE, client=Described(FINE | change))
    with pytest.raises(EngineError, match=message) as caught:
        doctor.refuse_unfit(engine, CPU)
    assert remedy in caught.value.remedy
    accept = {"docker-users": "a test", "docker-limits": "a test"}
    doctor.refuse_unfit(engine, CPU.model_copy(update={"accept": accept}))


def driver(folder, version):
    """A program that reports a driver's version."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho {version}\n")
    tool.chmod(0o755)


def test_a_driver_that_is_too_old_is_refused_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine = replace(ENGINE, client=Described(FINE))
    doctor.refuse_unfit(engine, CUDA)  # no driver at all: images and data may be prepared beforehand
    driver(tmp_path, "535.183.01")
    with pytest.raises(EngineError, match=r"NVIDIA driver 535\.183\.01 is older than 580\.0"):
        doctor.refuse_unfit(engine, CUDA)
    doctor.refuse_unfit(engine, CPU)
    driver(tmp_path, "580.95.05")
    doctor.refuse_unfit(engine, CUDA)


def test_a_folder_of_the_engine_that_this_user_may_not_see_is_not_examined(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    real = os.geteuid()
    os.seteuid(12345)
    try:
        found = host.engine_findings(ENGINE, FINE | {"DockerRootDir": str(closed / "data")}, CPU, NOW)
    finally:
        os.seteuid(real)
    assert "docker-disk" not in levels(found)


def test_the_clock_is_judged_by_its_time_and_its_synchronization():
    assert host.clock_finding(NOW, 0).level == "ok"
    assert host.clock_finding(NOW, 5).level == "note"
    assert host.clock_finding(0.0, 0).level == "problem"


@pytest.mark.parametrize(("kind", "level"), [("ext4", "ok"), ("nfs4", "note")])
def test_a_file_system_that_other_machines_may_use_is_a_note(kind, level):
    finding = host.file_system_finding(FileSystem(kind=kind, source="server:/home"))
    assert (finding.level, f"{kind} (server:/home)" in finding.fact) == (level, True)
    assert host.clock_state() in range(6)


CARDS = tuple(Gpu(uuid=f"GPU-{number}", name="H100", memory_mib=81559) for number in (0, 1))


@pytest.mark.parametrize(
    ("gpu", "gpus", "level", "chosen"),
    [
        (None, CARDS, "ok", "GPU-0"),
        ("GPU-1", CARDS, "ok", "GPU-1"),
        ("1", CARDS, "ok", "GPU-1"),
        ("GPU-7", CARDS, "problem", "GPU-7"),
        (None, (), "problem", None),
    ],
)
def test_the_cuda_profile_needs_its_gpu(gpu, gpus, level, chosen):
    config = load(Path("/nonexistent"), {"profile": "cuda", "gpu": gpu}, environ={})
    config, found = host.choose_gpu(config, gpus)
    assert (found.level, config.gpu) == (level, chosen)


def test_the_cpu_profile_uses_no_gpu():
    config = load(Path("/nonexistent"), {"profile": "cpu", "gpu": "GPU-1"}, environ={})
    for gpus in ((), CARDS):
        one, found = host.choose_gpu(config, gpus)
        assert (one.gpu, found.level) == (None, "ok")


def test_a_driver_that_does_not_answer_is_a_problem(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    gpus, found = host.seen_gpus()
    assert (gpus, found.level) == ((), "problem")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert host.seen_gpus() == ((), None)


class Disk:
    """Free space and inodes of a file system."""

    def __init__(self, free_gib, files, free_files):
        self.free = free_gib * 2**30
        self.f_files, self.f_favail = files, free_files


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (Disk(100, 10**7, 10**6), {"disk": "ok", "inodes": "ok"}),
        (Disk(5, 10**7, 10**6), {"disk": "problem", "inodes": "ok"}),
        (Disk(100, 10**7, 1000), {"disk": "ok", "inodes": "problem"}),
        (Disk(100, 0, 0), {"disk": "ok"}),  # btrfs: no limit on inodes
    ],
)
def test_free_space_and_inodes_are_separate_findings(disk, expected, monkeypatch):
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: disk)
    monkeypatch.setattr(host.os, "statvfs", lambda _: disk)
    assert levels(host.disk_findings("", Path("/"), "cpu")) == expected


PROBLEM = Finding(name="runc-version", level="problem", fact="old", reason="flaws", remedy="update")
FINE_ONE = Finding(name="git", level="ok", fact="fine")
NOTE = Finding(name="clock", level="note", fact="unkept")


def test_an_accepted_problem_shows_its_reason_and_nothing_else_changes():
    accept = {"runc-version": "fixed by Debian", "git": "for nothing", "clock": "a laptop"}
    problem, fine, note = accepting([PROBLEM, FINE_ONE, NOTE], accept)
    assert (problem.level, problem.accepted) == ("accepted", "fixed by Debian")
    assert (problem.fact, problem.reason, problem.remedy) == ("old", "flaws", "update")
    assert (fine, note) == (FINE_ONE, NOTE)


def test_a_problem_that_is_not_accepted_stays_one():
    assert accepting([PROBLEM], {"containerd-version": "fixed"}) == [PROBLEM]


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match=r"'runc-versions'.*did you mean 'runc-version'") as caught:
        check_names({"runc-versions": "typo"})
    assert "engine-version" in caught.value.remedy
    check_names(dict.fromkeys(NAMES, "reason"))


def test_reasons_come_from_file_and_environment_and_are_never_empty(tmp_path):
    (tmp_path / "autoresearch.toml").write_text('[accept]\nrunc-version = "fixed by Debian"\n')
    assert load(tmp_path, {}, environ={}).accept == {"runc-version": "fixed by Debian"}
    environ = {"AUTORESEARCH_ACCEPT": '{"clock": "a laptop"}'}
    assert load(tmp_path, {}, environ=environ).accept == {"clock": "a laptop"}
    for reason in ('""', '"  "', "true"):
        (tmp_path / "autoresearch.toml").write_text(f"[accept]\nrunc-version = {reason}\n")
        with pytest.raises(ConfigError, match="accept"):
            load(tmp_path, {}, environ={})


class FakeClient:
    """A client of an old engine with a current runc."""

    def version(self):
        names = {"Engine": "20.10.24", "containerd": "1.6.20", "runc": "1.3.3"}
        return {"Components": [{"Name": name, "Version": version} for name, version in names.items()]}


@pytest.mark.parametrize(
    ("accept", "said", "open_ones"),
    [
        (
            {},
            "2 findings on versions (engine-version, containerd-version)",
            ["engine-version", "containerd-version"],
        ),
        (
            {"engine-version": "no cache is used"},
            "1 finding on versions (containerd-version)",
            ["containerd-version"],
        ),
        ({"engine-version": "why", "containerd-version": "why"}, None, []),
    ],
)
def test_a_start_reports_and_logs_open_findings_and_goes_on(accept, said, open_ones):
    config = load(Path("/nonexistent"), {"accept": accept}, environ={})
    engine = Engine(url="unix:///x", daemon_id="x", version="x", client=FakeClient())
    notes = []
    with capture_logs() as events:
        doctor.announce(engine, config, notes.append)
    assert [note.partition(":")[0] for note in notes] == ([said] if said else [])
    assert all("autoresearch doctor --fast" in note for note in notes)
    (event,) = events
    assert (event["event"], event["open"], event["accepted"]) == ("versions_examined", open_ones, accept)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository with settings of its own, and no engine."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    return tmp_path


def run(*arguments):
    result = CliRunner().invoke(cli, ["doctor", *arguments])
    return result, [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_every_problem_accepted_is_exit_code_0(repository):
    result, findings = run("--json")
    problems = [one["name"] for one in findings if one["level"] == "problem"]
    assert "docker" in problems
    assert result.exit_code == 1
    lines = [f'{name} = "known, {name}"' for name in problems]
    (repository / "autoresearch.toml").write_text("[accept]\n" + "\n".join(lines))
    result, findings = run("--json")
    assert result.exit_code == 0
    accepted = {one["name"]: one["accepted"] for one in findings if one["level"] == "accepted"}
    assert accepted == {name: f"known, {name}" for name in problems}


def test_every_finding_has_a_known_name_and_every_bad_one_says_what_to_do(repository):
    _, findings = run("--json")
    assert {one["name"] for one in findings} <= set(NAMES)
    assert all(one.keys() == {"name", "level", "fact", "reason", "remedy", "accepted"} for one in findings)
    assert all(one["remedy"] for one in findings if one["level"] == "problem")


def test_people_read_the_reason_and_the_remedy(repository):
    (repository / "autoresearch.toml").write_text('[accept]\ndocker = "none on this machine"\n')
    result, _ = run()
    assert "≈ docker: no Docker engine" in result.stdout
    assert "accepted: none on this machine" in result.stdout


def test_wrong_settings_are_a_finding_and_the_rest_is_examined(repository):
    (repository / "autoresearch.toml").write_text("pids = 1\n")
    result, findings = run("--json")
    found = {one["name"]: one for one in findings}
    assert result.exit_code == 1
    assert found["settings"]["level"] == "problem"
    assert "pids" in found["settings"]["fact"]
    assert {"git", "kernel-version"} <= found.keys()


def test_outside_a_repository_nothing_is_made(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    result, findings = run("--json")
    found = {one["name"]: one for one in findings}
    assert result.exit_code == 1
    assert (found["git"]["level"], found["probes"]["level"]) == ("problem", "note")
    assert list(tmp_path.iterdir()) == []


def test_an_acceptance_of_nothing_is_a_wrong_setting(repository):
    (repository / "autoresearch.toml").write_text('[accept]\nrunc = "typo"\n')
    result, findings = run("--json")
    assert isinstance(result.exception, ConfigError)
    assert findings == []
