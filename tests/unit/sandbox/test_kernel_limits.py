"""The kernel's limits of a container, read from imitations of its files."""

from __future__ import annotations

import os
from types import SimpleNamespace

import docker
import pytest

from runner.errors import EngineError
from runner.sandbox import kernel_limits, supervision
from runner.sandbox.containers import move_container
from runner.sandbox.doctor import judgement
from runner.sandbox.engine import Engine
from runner.sandbox.kernel_limits import Deviation, Limits, LimitWatch, deviations, limit_files
from runner.sandbox.supervision import Clock, wait

ID = "ab12" * 16
PID = 4321
LIMITS = Limits(memory_bytes=(100 << 20) + 1, pids=64, cores=(2, 3, 5))
MEMORY = str(100 << 20)  # in whole pages
V2 = {
    "memory.max": MEMORY,
    "memory.swap.max": "0",
    "pids.max": "64",
    "cpuset.cpus": "2-3,5",
    "cpuset.cpus.effective": "2-3,5",
    "cgroup.events": "populated 1\nfrozen 0",
}
V1 = {
    "memory/{}/memory.limit_in_bytes": MEMORY,
    "memory/{}/memory.memsw.limit_in_bytes": MEMORY,
    "pids/{}/pids.max": "64",
    "cpuset/{}/cpuset.cpus": "2-3,5",
    "cpuset/{}/cpuset.effective_cpus": "2-3,5",
    "freezer/{}/freezer.state": "THAWED",
}
LINES_V1 = (
    "9:name=systemd:/{0}\n7:freezer:/{0}\n5:cpuset:/{0}\n4:memory:/{0}\n2:pids:/{0}\n1:cpu,cpuacct:/{0}\n0::/{0}\n"
)
SYSTEMD = f"system.slice/docker-{ID}.scope"
CGROUPFS = f"docker/{ID}"
PRIVATE = f"user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"


class Host:
    """A machine's /proc and /sys/fs/cgroup."""

    def __init__(self, root):
        self.proc, self.cgroup = root / "proc", root / "cgroup"

    def process(self, text, process=PID):
        folder = self.proc / str(process)
        folder.mkdir(parents=True)
        (folder / "cgroup").write_text(text)

    def write(self, files, group):
        for name, text in files.items():
            path = self.cgroup / name.format(group)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    def v2(self, group=SYSTEMD, **changes):
        self.process(f"0::/{group}\n")
        self.write({f"{{}}/{name}": text for name, text in (V2 | changes).items()}, group)

    def v1(self, group=CGROUPFS):
        self.process(LINES_V1.format(group))
        self.write(V1, group)

    def files(self):
        return limit_files(PID, ID, proc=self.proc, cgroup=self.cgroup)

    def deviations(self, swap=True):
        return deviations(self.files(), LIMITS, swap=swap)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize("group", [SYSTEMD, CGROUPFS, PRIVATE])
def test_limits_that_are_kept_are_found_and_say_nothing(host, group):
    host.v2(group)
    assert host.files().keys() == V2.keys()
    assert host.deviations() == []


@pytest.mark.parametrize("group", [SYSTEMD, CGROUPFS])
def test_version_1_has_a_folder_for_each_controller(host, group):
    host.v1(group)
    assert len(host.files()) == len(V1)
    assert host.deviations() == []
    host.write({"memory/{}/memory.memsw.limit_in_bytes": "9223372036854771712"}, group)
    assert host.deviations() == [Deviation("memory.memsw.limit_in_bytes", MEMORY, "9223372036854771712")]


def test_controllers_that_are_mounted_together_are_found(host):
    host.process(f"3:cpuset,pids:/{CGROUPFS}\n")
    host.write({"cpuset,pids/{}/pids.max": "max"}, CGROUPFS)
    assert host.deviations() == [Deviation("pids.max", "64", "max")]


@pytest.mark.parametrize(
    ("name", "found", "wanted"),
    [
        ("memory.max", "max", MEMORY),
        ("memory.swap.max", "max", "0"),
        ("pids.max", "max", "64"),
        ("cpuset.cpus", "0-5", "2,3,5"),
        ("cpuset.cpus.effective", "2-3", "2,3,5"),
    ],
)
def test_a_limit_that_is_not_kept_is_named(host, name, found, wanted):
    host.v2(**{name: found})
    assert host.deviations() == [Deviation(name, wanted, found)]


def test_a_container_that_is_frozen_is_paused_whatever_the_engine_knows(host):
    host.v2()
    watch = LimitWatch(ID, "train", LIMITS, _files=host.files())
    watch.check_now()
    host.write({"{}/cgroup.events": "populated 1\nfrozen 1"}, SYSTEMD)
    with pytest.raises(EngineError, match="paused by another program"):
        watch.check_now()


def test_without_swap_its_limit_does_not_matter(host):
    host.v2(**{"memory.swap.max": "max"})
    assert host.deviations(swap=False) == []


def test_a_kernel_that_does_not_count_swap_has_no_file_for_it(host):
    host.v1()
    (host.cgroup / "memory" / CGROUPFS / "memory.memsw.limit_in_bytes").unlink()
    assert len(host.files()) == len(V1) - 1
    assert host.deviations() == []


def test_groups_that_were_made_inside_a_container_do_not_count(host):
    host.v2()
    host.write({"{}/memory.max": "max"}, f"{SYSTEMD}/init")
    (host.proc / str(PID) / "cgroup").write_text(f"0::/{SYSTEMD}/init\n")
    assert host.deviations() == []
    assert len(host.files()) == len(V2)


@pytest.mark.parametrize("text", [f"0::/../docker-{ID}.scope\n", "0::/\n", "0::/system.slice/ssh.service\n", ""])
def test_a_control_group_that_is_not_visible_from_here_is_not_judged(host, text):
    """From a private namespace, of another process with this number, of no process."""
    host.process(text)
    host.write({"{}/memory.max": "max", "memory.max": "max"}, f"docker-{ID}.scope")
    assert host.files() == {}
    assert limit_files(PID + 1, ID, proc=host.proc, cgroup=host.cgroup) == {}


def test_files_that_may_not_be_read_are_not_judged(host):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    host.v2(**{"memory.max": "max"})
    (host.cgroup / SYSTEMD / "memory.max").chmod(0)
    assert host.deviations() == []


@pytest.fixture
def watch(host, monkeypatch):
    """A watch on this machine, with swap."""
    monkeypatch.setattr(kernel_limits, "has_swap", lambda: True)
    monkeypatch.setattr(
        kernel_limits, "limit_files", lambda pid, name: limit_files(pid, name, proc=host.proc, cgroup=host.cgroup)
    )
    return LimitWatch(ID, "train", LIMITS)


def test_a_limit_that_changed_while_it_ran_is_reported_with_its_usual_causes(host, watch):
    host.v2()
    watch.check(PID)
    host.write({"{}/memory.swap.max": "max"}, SYSTEMD)
    with pytest.raises(EngineError) as caught:
        watch.check(PID)
    assert caught.value.message == (
        "the kernel's limit memory.swap.max of the train container was changed from 0 to max while it ran; "
        "systemctl daemon-reload and docker update do this"
    )
    assert caught.value.remedy


def test_a_limit_that_never_held_is_not_reported_as_changed(host, watch):
    host.v2(**{"memory.swap.max": "max"})
    with pytest.raises(EngineError, match=r"memory\.swap\.max of the train container is max instead of 0"):
        watch.check(PID)


def test_a_container_that_has_ended_is_not_judged(host, watch):
    host.v2()
    watch.check(PID)
    for path in (host.cgroup / SYSTEMD).iterdir():
        path.unlink()
    watch.check(PID)
    watch.check(0)
    watch.check_now()


class Api:
    """What moving and waiting ask of an engine."""

    def __init__(self, on_inspect=lambda: None, **found):
        self.found = {
            "CpusetCpus": "2,3,5",
            "Memory": LIMITS.memory_bytes,
            "MemorySwap": LIMITS.memory_bytes,
            **found,
        }
        self.on_inspect = on_inspect
        self.sent = {}

    def update_container(self, container_id, **changes):
        self.sent[container_id] = changes

    def inspect_container(self, container_id):
        self.on_inspect()
        return {"HostConfig": self.found, "State": {"Pid": PID, "Status": "running", "Paused": False}}

    def kill(self, container_id):
        raise docker.errors.NotFound("gone")


def engine(api):
    client = SimpleNamespace(api=api, close=lambda: None)
    return Engine(url="unix:///x", daemon_id="x", version="x", client=client)


def test_a_move_sets_memory_and_swap_again():
    api = Api()
    assert move_container(engine(api), ID, LIMITS) == PID
    memory = LIMITS.memory_bytes
    assert api.sent == {ID: {"cpuset_cpus": "2,3,5", "mem_limit": memory, "memswap_limit": memory}}


@pytest.mark.parametrize(("name", "found"), [("CpusetCpus", "0"), ("Memory", 0), ("MemorySwap", 1 << 40)])
def test_a_move_that_the_engine_did_not_make_is_refused(name, found):
    with pytest.raises(EngineError, match=str(found)):
        move_container(engine(Api(**{name: found})), ID, LIMITS)


def test_waiting_ends_when_a_limit_is_changed_and_the_candidate_is_not_judged(host, watch, monkeypatch):
    """A candidate that fills the swap it should not have would run on, or die, by the host's fault."""
    host.v2()
    turns = []

    def change():
        turns.append(1)
        if len(turns) == 3:
            host.write({"{}/memory.swap.max": "max"}, SYSTEMD)

    api = Api(change)
    one = engine(api)
    monkeypatch.setattr(Engine, "quick_client", lambda self: self.client)
    monkeypatch.setattr(supervision, "POLL_SECONDS", 0.01)
    started = supervision.Reports().started
    started.set()
    with pytest.raises(EngineError, match=r"memory\.swap\.max of the train container was changed from 0 to max"):
        wait(one, ID, Clock(started=started, startup_seconds=60, limit_seconds=60), watch=watch)
    assert len(turns) == 3


def test_the_doctor_reports_a_limit_that_does_not_survive_a_move():
    lost = judgement.judge_move([Deviation("memory.swap.max", "0", "max")], V2, moved=True)
    assert (lost.level, lost.name) == ("problem", "limits-after-move")
    assert lost.fact == "memory.swap.max is max instead of 0 after a move to other cores"
    assert "cgroupdriver=cgroupfs" in lost.remedy
    cores = judgement.judge_move([Deviation("cpuset.cpus", "1", "0-3")], V2, moved=True)
    assert "swapoff" not in cores.remedy
    assert judgement.judge_move([], V2, moved=True).level == "ok"
    assert "none is moved" in judgement.judge_move([], V2, moved=False).fact
    assert judgement.judge_move([], {}, moved=True).level == "note"
