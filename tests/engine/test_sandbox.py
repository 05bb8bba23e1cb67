"""Candidates in real containers: each ends as it should, on time, and leaves nothing behind.

Those that mean harm are in `tests/hostile/`.
"""

from __future__ import annotations

import errno
import json
import os
import time

import numpy as np
import pytest

from runner.errors import EngineError
from runner.records import Phase, RunEnd
from runner.sandbox import remove_orphans
from runner.sandbox.containers import move_container
from runner.sandbox.core_meter import STRETCH
from runner.sandbox.engine import LABEL
from runner.sandbox.kernel_limits import deviations, limit_files

pytestmark = pytest.mark.docker

ROWS, CONTEXT = 10, 16  # of the tiny data set
DEADLINE = 3.0  # train_seconds of the test configuration
LATE = 2.0  # the most that an end may be later than the deadline


def timed_training(opened):
    """Train and return the run with the seconds since its clock started, as the host saw them."""
    began = []
    run = opened.train(seed=1, on_start=lambda: began or began.append(time.monotonic()))
    return run, time.monotonic() - began[0]


def test_a_candidate_that_returns_is_finished_and_its_claims_come_back(session):
    with session({}) as opened:
        run, _ = timed_training(opened)
        assert run.end is RunEnd.FINISHED
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert scored.end is RunEnd.FINISHED
    values = np.frombuffer(claims, "<f4")
    assert values.shape == (160,)
    np.testing.assert_allclose(values, -np.log(64), rtol=1e-6)


def test_a_candidate_killed_at_the_deadline_with_a_checkpoint_can_be_scored(session):
    train = """
from workload.checkpoint import publish
publish(lambda path: path.write_bytes(b"weights"))
while True: pass
"""
    with session({"train.py": train}) as opened:
        run, seconds = timed_training(opened)
        assert run.end is RunEnd.DEADLINE
        assert DEADLINE - 0.5 <= seconds <= DEADLINE + LATE
        assert run.wall_seconds == pytest.approx(DEADLINE, abs=0.5)
        assert run.cpu_seconds > 0.1, "a loaded machine may give less than 3 seconds, but not none"
        scored, claims = opened.score(seed=1, batch_rows=64)
        assert scored.end is RunEnd.FINISHED
        assert len(claims) == 640


def test_the_environment_of_a_candidate_is_what_the_contract_says(session):
    train = """
import os, json
print(json.dumps({k: v for k, v in os.environ.items()}, sort_keys=True))
print(os.getuid(), os.getgid(), os.getgroups())
print([line for line in open('/proc/self/status') if line[:3] in ('Cap', 'NoN')])
print(sorted(os.listdir('/sys/class/net')))
"""
    with session({"train.py": train}) as opened:
        run = opened.train(seed=7)
    lines = run.log_tail.splitlines()
    environment = json.loads(lines[0])
    assert environment["SEED"] == "7"
    assert environment["DATA_DIR"] == "/data"
    assert environment["OUT_DIR"] == "/out"
    assert float(environment["DEADLINE_SECONDS"]) == DEADLINE
    assert environment["PROFILE"] == "cpu"
    assert lines[1] == "10001 10001 []"
    assert "CapEff:\\t0000000000000000" in lines[2]
    assert "CapPrm:\\t0000000000000000" in lines[2]
    assert "NoNewPrivs:\\t1" in lines[2]
    assert lines[3] == "['lo']"


def test_a_candidate_that_raises_has_failed_and_its_traceback_is_kept(session):
    with session({"train.py": "raise ValueError('no such luck')"}) as opened:
        run = opened.train(seed=1)
    assert run.end is RunEnd.FAILED
    assert run.exit_code == 1
    assert "ValueError: no such luck" in run.log_tail


def test_without_a_checkpoint_the_scorer_says_so(session):
    with session({"train.py": "print('val_bpb: 0.0')"}) as opened:
        run = opened.train(seed=1)
        assert run.end is RunEnd.FINISHED
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert scored.end is RunEnd.FAILED
    assert scored.exit_code == 3
    assert claims is None


def test_what_a_candidate_prints_while_scoring_does_not_reach_the_claims(session):
    model = (
        "print('loading')\n"
        + """
import os, sys, torch
class Loud(torch.nn.Module):
    def forward(self, tokens):
        print('val_bpb: 0.0'); sys.stderr.write('noise')
        return torch.zeros(*tokens.shape, 64)
def load(path, device):
    return Loud()
"""
    )
    with session({"model.py": model}) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert scored.end is RunEnd.FINISHED
    assert len(claims) == 640


def test_a_scorer_that_writes_without_end_is_cut_and_has_no_claims(session):
    model = """
import os
def load(path, device):
    for fd in range(3, 64):
        try:
            while True: os.write(fd, b'x' * 65536)
        except OSError: pass
"""
    with session({"model.py": model}, score_seconds=3.0) as opened:
        opened.train(seed=1)
        began = time.monotonic()
        _, claims = opened.score(seed=1, batch_rows=64)
        # What reads its flood works on its core here, and counts as another program.
        assert time.monotonic() - began < STRETCH * 3.0 + LATE + 2
    assert claims is None


def test_a_scorer_that_never_returns_is_killed(session):
    with session({"model.py": "def load(path, device):\n    while True: pass"}, score_seconds=2.0) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert scored.end is RunEnd.DEADLINE
    assert claims is None


def test_more_claims_than_there_are_targets_are_no_claims(session):
    model = """
import os
def load(path, device):
    for fd in range(3, 64):
        try: os.write(fd, b'x' * 5000)
        except OSError: pass
    os._exit(0)
"""
    with session({"model.py": model}) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert scored.end is RunEnd.FINISHED
    assert claims is None


def test_a_candidate_that_leaves_while_scoring_has_failed(session):
    with session({"model.py": "def load(path, device):\n    raise SystemExit(0)"}) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1, batch_rows=64)
    assert (scored.end, scored.exit_code, claims) == (RunEnd.FAILED, 4, None)


def write_rows(folder, positions, batch_rows=64):
    """An audit's rows: zeros, cut into batches."""
    num_rows = len(positions)
    np.save(folder / "inputs.npy", np.zeros((num_rows, 16), np.uint16))
    np.save(folder / "positions.npy", np.array(positions, np.int32))
    np.save(folder / "edges.npy", np.array([*range(0, num_rows, batch_rows), num_rows], np.int64))
    folder.chmod(0o755)
    return folder


def test_the_same_checkpoint_is_scored_audited_and_tested_by_processes_that_never_meet(session, engine, tmp_path):
    model = """
import os, time, torch
if os.fork() == 0:
    while True: time.sleep(0.1)  # would like to see the next container
class Counting(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value
    def forward(self, tokens):
        return (torch.arange(64) == 7).float().expand(*tokens.shape, -1) * self.value
def load(path, device):
    return Counting(float(path.read_text()))
"""
    train = """
from workload.checkpoint import publish
publish(lambda path: path.write_text("2.5"))
"""
    rows = write_rows(tmp_path, [3, -1, 15, 0])

    def auditor(opened, max_bytes):
        return opened.auditor(rows, batch_rows=64, limit_seconds=20, max_bytes=max_bytes)

    with session({"model.py": model, "train.py": train}) as opened:
        opened.train(seed=1)
        scored, _ = opened.score(seed=1, batch_rows=64)
        processes = engine.client.api.top(opened.scorer.container_id)["Processes"]
        assert len(processes) == 1, "only PID 1 lingers"
        with auditor(opened, 3 * 64 * 4) as first, auditor(opened, 9) as second:
            audited, answer = first.go(seed=1)
            _, too_long = second.go(seed=1)
        tested, claims = opened.score_test(seed=1, batch_rows=64, max_bytes=ROWS * CONTEXT * 4)
    assert {run.end for run in (scored, audited, tested)} == {RunEnd.FINISHED}
    assert [run.phase for run in (scored, audited, tested)] == [Phase.SCORE, Phase.AUDIT, Phase.TEST]
    assert too_long is None
    logits = np.frombuffer(answer, "<f4").reshape(3, 64)
    np.testing.assert_array_equal(logits, np.tile(np.where(np.arange(64) == 7, 2.5, 0), (3, 1)))
    assert len(claims) == ROWS * CONTEXT * 4


def test_an_answer_of_many_megabytes_comes_whole(session, tmp_path):
    rows = write_rows(tmp_path, [5] * 60_000, batch_rows=2000)
    with session({}) as opened:
        opened.train(seed=1)
        opened.score(seed=1, batch_rows=64)
        with opened.auditor(rows, batch_rows=64, limit_seconds=60, max_bytes=60_000 * 64 * 4) as waiting:
            audited, answer = waiting.go(seed=1)
    assert audited.end is RunEnd.FINISHED
    assert answer == bytes(60_000 * 64 * 4)


def test_after_a_scoring_that_failed_nothing_lingers(session, engine):
    with session({"model.py": "def load(path, device):\n    raise SystemExit(0)"}) as opened:
        opened.train(seed=1)
        began = time.monotonic()
        opened.score(seed=1, batch_rows=64)
        state = engine.client.api.wait(opened.scorer.container_id, timeout=10)
        assert state["StatusCode"] != 0
        assert time.monotonic() - began < 15


def test_the_kernel_keeps_the_limits_of_a_container_that_is_moved(session, engine, cpu_config, all_cores):
    with session({}) as opened:
        opened.scorer.await_ready()
        container, limits = opened.scorer.container_id, opened.scorer.limits
        process = move_container(engine, container, limits)
        files = limit_files(process, container)
        if not files:
            pytest.skip("the control group of a container cannot be read from here")
        assert {name.partition(".")[0] for name in files} >= {"memory", "pids", "cpuset"}
        assert deviations(files, limits, swap=True) == []


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"Memory": 3 << 30, "MemorySwap": 3 << 30}, "memory."),
        ({"PidsLimit": 4000}, "pids.max"),
        ({"CpusetCpus": f"0-{os.cpu_count() - 1}"}, "cpuset."),
    ],
    ids=["memory", "processes", "cores"],
)
def test_a_training_whose_limits_are_changed_is_lost(session, engine, owner, changes, file):
    """Another program gives it more while it runs, as `docker update` does."""
    api = engine.client.api

    def change():
        labels = [f"{LABEL}controller={owner.controller}", f"{LABEL}kind=train"]
        (found,) = api.containers(filters={"label": labels})
        answer = api.post(f"{api.base_url}/v{api.api_version}/containers/{found['Id']}/update", json=changes)
        answer.raise_for_status()

    with (
        session({"train.py": "while True: pass"}) as opened,
        pytest.raises(EngineError, match=rf"{file}\S* of the train container was changed from .* while it ran"),
    ):
        if not limit_files(
            api.inspect_container(opened.scorer.container_id)["State"]["Pid"], opened.scorer.container_id
        ):
            pytest.skip("the control group of a container cannot be read from here")
        opened.train(seed=1, on_start=change)


ATTEMPTS = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
room = ctypes.create_string_buffer(8192)
page = ctypes.addressof(room) + 4095 & ~4095
vector = (ctypes.c_uint64 * 2)(page, 1)
iovec = ctypes.addressof(vector)
def call(x86_64, aarch64, *arguments):  # -> its errno, 0 when it succeeded
    number, arguments = x86_64 if X86 else aarch64, (*arguments, 0, 0, 0, 0, 0)[:6]
    failed = libc.syscall(*map(ctypes.c_long, (number, *arguments))) == -1
    return ctypes.get_errno() if failed else 0
def attempts():
    fd = os.open("/locked/locked_eval/judging/judge.py", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return [
        call(72, 25, fd, 1036, page),             # F_SET_RW_HINT
        call(16, 29, fd, 0x6612),                 # EXT4_IOC_PRECACHE_EXTENTS
        call(28, 233, page, 4096, 21),            # MADV_PAGEOUT
        call(27, 232, page, 4096, page),          # mincore
        call(327, 286, fd, iovec, 1, 0, 0, 8),    # preadv2 with RWF_NOWAIT
        call(206, 0, 1, page),                    # io_setup
        call(250, 219, 0, -4, 1),                 # the keyring of the user
        call(41, 198, 38, 5, 0),                  # AF_ALG
        call(41, 198, 2, 1, 132),                 # SCTP
        call(327, 286, fd, iovec, 1, 0, 0, 0),    # an honest preadv2
        call(28, 233, page, 4096, 4),             # MADV_DONTNEED
    ]
"""


def test_calls_that_leave_marks_or_look_for_them_are_denied_in_every_phase(session, tmp_path):
    model = """
import torch
class Uniform(torch.nn.Module):
    def forward(self, tokens):
        return torch.zeros(*tokens.shape, 64)
def load(path, device):
    assert repr(attempts()) == path.read_text()
    return Uniform()
"""
    train = """
from workload.checkpoint import publish
from workload.model import attempts
print(attempts())
publish(lambda path: path.write_text(repr(attempts())))
"""
    rows = write_rows(tmp_path, [3, -1, 15, 0])
    with session({"model.py": ATTEMPTS + model, "train.py": train}) as opened:
        trained = opened.train(seed=1)
        scored, _ = opened.score(seed=1, batch_rows=64)
        with opened.auditor(rows, batch_rows=64, max_bytes=3 * 64 * 4, limit_seconds=20) as waiting:
            audited, _ = waiting.go(seed=1)
    denied = [errno.EINVAL, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSYS]
    denied += [errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT]
    assert json.loads(trained.log_tail) == [*denied, 0, 0]
    assert [run.end for run in (trained, scored, audited)] == [RunEnd.FINISHED] * 3, "`load` found the same"


def test_time_that_children_burn_is_counted_whoever_reaps_them(session):
    train = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
reading, writing = os.pipe()
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os._exit(0)
os.close(writing)
os.read(reading, 1)
"""
    with session({"train.py": train}, train_seconds=60.0) as opened:
        run = opened.train(seed=1)
    assert run.end is RunEnd.FINISHED
    assert run.cpu_seconds > 0.25


def test_what_was_printed_without_a_flush_is_kept_after_the_kill(session):
    with session({"train.py": "print('almost lost')\nwhile True: pass"}) as opened:
        run = opened.train(seed=1)
    assert run.end is RunEnd.DEADLINE
    assert "almost lost" in run.log_tail


def test_a_scorer_that_does_not_come_up_is_reported_at_once(session, monkeypatch):
    monkeypatch.setattr("runner.sandbox.containers.PYTHON", "/bin/false")
    began = time.monotonic()
    with (
        pytest.raises(EngineError, match=r"score container did not .* exit code 1"),
        session({}) as opened,
    ):
        monkeypatch.undo()
        opened.train(seed=1)
    assert time.monotonic() - began < 30, "not the whole time that a start may take"


def test_a_request_that_is_interrupted_keeps_its_interrupt(session, monkeypatch):
    """The engine may fail in the clean-up as well; that must not turn a Ctrl-C into a retry."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def broken(*_, **__):
        raise EngineError("volume in use")

    with session({}) as opened, monkeypatch.context() as patch:
        patch.setattr("runner.sandbox.training.wait", interrupted)
        patch.setattr("runner.sandbox.containers.remove_container", broken)
        with pytest.raises(KeyboardInterrupt):
            opened.train(seed=1)
        remove_orphans(opened.sandbox.engine, opened.sandbox.owner.controller)
