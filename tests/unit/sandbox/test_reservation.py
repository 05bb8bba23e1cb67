"""Cores and GPUs are reserved across processes and users, and freed however their holder ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner import config
from runner.errors import ConfigError, EngineError
from runner.sandbox import reservation
from runner.sandbox.doctor import examination
from runner.sandbox.host import Gpu
from runner.sandbox.reservation import Claimant, reserve, spare_cores

CORES, OTHER_USER = 4, 65534
HOLDER = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from runner.config import load
from runner.sandbox import reservation
folder, user, *settings = sys.argv[1:]
reservation.FOLDERS = (Path(folder),)
os.sched_getaffinity = lambda _: {0, 1, 2, 3}
engine = SimpleNamespace(client=SimpleNamespace(api=SimpleNamespace(containers=lambda **_: [])))
config = load(Path("/nowhere"), {"profile": "cpu", **dict(one.split("=") for one in settings)}, environ={})
claimant = reservation.Claimant(controller="other", campaign="hers", folder=Path("/home/her/clone"))
if int(user):
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
with reservation.reserve(engine, config, claimant) as reserved:
    print(reserved.cores, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(monkeypatch):
    """A folder that every user may write to, and a machine with four cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setattr(reservation, "FOLDERS", (Path(folder),))
        yield Path(folder)


@contextmanager
def holder(locks, *settings, user=0):
    """Another campaign, in a process of its own."""
    command = [sys.executable, "-c", HOLDER, str(locks), str(user), *settings]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout.readline().startswith("("), "it holds its cores"
        yield process
        process.kill()


def engine_with(*containers):
    """An engine on which these containers run."""
    return SimpleNamespace(client=SimpleNamespace(api=SimpleNamespace(containers=lambda **_: list(containers))))


def settings(**changed):
    return config.load(Path("/nowhere"), {"profile": "cpu", **changed}, environ={})


def reserved(changed=(), *containers):
    """What is reserved for our campaign."""
    claimant = Claimant(controller="ours", campaign="ours", folder=Path("/clone"))
    return reserve(engine_with(*containers), settings(**dict(changed)), claimant)


def test_two_campaigns_get_different_cores_and_spare_neither_s(locks):
    with reserved() as alone:
        assert alone.cores == (3,)
    with holder(locks), reserved({"cpus": 2}) as beside:
        assert beside.cores == (1, 2)
        assert spare_cores(beside) == (0,)


def test_a_refusal_names_the_other_campaign(locks):
    with holder(locks, "cpus=4") as process, pytest.raises(EngineError) as refused, reserved():
        pass
    assert refused.value.message.startswith(
        f"core 3 is reserved by campaign hers in /home/her/clone (process {process.pid}, user "
    )


def test_a_failed_choice_keeps_nothing(locks):
    with holder(locks), pytest.raises(EngineError, match="only 3 of 4 are free"), reserved({"cpus": 4}):
        pass
    with reserved({"cpus": 1}) as after:
        assert after.cores == (3,)


def test_kill_frees_the_cores(locks):
    with holder(locks, "cpus=4") as process:
        process.kill()
        process.wait()
        with reserved() as after:
            assert after.cores == (3,)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_users_see_each_other(locks):
    with holder(locks, user=OTHER_USER), reserved() as beside:
        assert beside.cores == (2,)
        assert "core-3" in str([path.name for path in locks.iterdir()])
    with reserved(), holder(locks, user=OTHER_USER) as process:
        assert process.poll() is None, "the files of one user are locks for the other"


def test_lock_files_are_for_everybody_whatever_the_umask(locks):
    before = os.umask(0o077)
    try:
        with reserved():
            assert {stat.S_IMODE(path.stat().st_mode) for path in locks.iterdir()} == {0o666}
    finally:
        os.umask(before)


@pytest.mark.parametrize("planted", ["symlink", "link", "fifo"])
def test_what_another_user_planted_is_neither_followed_nor_waited_for(locks, planted):
    victim, place = locks / "victim", locks / "autoresearch-core-3"
    victim.write_text("precious")
    if planted == "symlink":
        place.symlink_to(victim)
    elif planted == "link":
        place.hardlink_to(victim)
    else:
        os.mkfifo(place)
    with pytest.raises(EngineError, match=str(place)), reserved():
        pass
    assert victim.read_text() == "precious"


def test_containers_of_another_controller_are_witnesses(locks):
    def container(controller):
        label = {"controller": controller, "campaign": "hers", "cores": "2,3", "gpu": "GPU-1"}
        return {"Id": "c" * 64, "Labels": {"org.autoresearch." + name: value for name, value in label.items()}}

    with reserved({}, container("theirs")) as beside:
        assert beside.cores == (1,)
    with reserved({}, container("ours")) as own:
        assert own.cores == (3,)
    with pytest.raises(EngineError, match=r"campaign hers \(container cccccccccccc\)"):
        reserved({"cpus": 4}, container("theirs")).__enter__()


def test_the_first_free_gpu_is_taken_and_one_that_is_named_is_not_replaced(locks, monkeypatch):
    gpus = tuple(Gpu(uuid=f"GPU-{number}", name="H", memory_mib=1) for number in range(2))
    monkeypatch.setattr(reservation, "find_gpus", lambda: gpus)
    night = {"profile": "cuda", "cpus": 1}
    with reserved(night) as first, reserved(night) as second:
        assert (first.gpu, second.gpu) == ("GPU-0", "GPU-1")
        assert set(first.cores).isdisjoint(second.cores)
        with pytest.raises(EngineError, match="gpu GPU-0 is reserved by campaign ours"):
            reserved({**night, "gpu": "GPU-0"}).__enter__()


def test_the_doctor_probes_a_free_gpu_unless_one_is_named(locks, monkeypatch, tmp_path):
    gpus = tuple(Gpu(uuid=f"GPU-{number}", name="H", memory_mib=1) for number in range(2))
    for place in (reservation, examination.host):
        monkeypatch.setattr(place, "find_gpus", lambda: gpus)
    engine, asked, probed = engine_with(), [], []
    engine.client.info, engine.client.close = dict, lambda: None
    monkeypatch.setattr(examination, "connect", lambda _: engine)
    monkeypatch.setattr(examination, "version_findings", lambda *_: [])
    monkeypatch.setattr(examination.images, "find_base", lambda *_: "base")
    monkeypatch.setattr(examination.host, "engine_findings", lambda _, __, used, *___: asked.append(used) or [])
    monkeypatch.setattr(examination, "_probe", lambda _, used, *__: probed.append(used) or [])

    def doctor(**named):
        monkeypatch.setattr(examination, "load", lambda *_, **__: settings(profile="cuda", cpus=1, **named))
        examination.examine(tmp_path, probes=True, pause_daemon=False, on_progress=print)
        return probed.pop()

    with reserved({"profile": "cuda", "cpus": 1}) as first:
        assert first.gpu == "GPU-0"
        with reserve(engine, doctor(), Claimant(controller="d", campaign="d", folder=tmp_path)) as free:
            assert free.gpu == "GPU-1"
        assert asked.pop().gpu == "GPU-0", "what the engine injects is the same for each"
        assert doctor(gpu="1").gpu == "GPU-1"


@pytest.mark.parametrize("wrong", [{"cores": (9,)}, {"cores": (0, 1)}, {"cpus": 99}])
def test_cores_that_this_process_may_not_use_are_an_error_of_the_setting(locks, wrong):
    with pytest.raises(ConfigError, match=r"the setting (cores|cpus) is"), reserved(wrong):
        pass


def test_named_cores_are_the_ones(locks):
    with reserved({"cores": (1,)}) as named:
        assert named.cores == (1,)
