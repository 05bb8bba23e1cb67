"""Candidates in real containers: each ends as it should, on time, and leaves nothing behind."""

from __future__ import annotations

import errno
import time

import numpy as np
import pytest

from runner.errors import EngineError
from runner.records import RunEnd
from runner.sandbox import remove_orphans

pytestmark = pytest.mark.docker

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
        scored, claims = opened.score(seed=1)
    assert scored.end is RunEnd.FINISHED
    values = np.frombuffer(claims, "<f4")
    assert values.shape == (160,)
    np.testing.assert_allclose(values, -np.log(64), rtol=1e-6)


def test_a_candidate_killed_at_the_deadline_with_a_checkpoint_can_be_scored(session):
    train = """
from locked_eval.handoff import publish
publish(lambda path: path.write_bytes(b"weights"))
while True: pass
"""
    with session({"train.py": train}) as opened:
        run, seconds = timed_training(opened)
        assert run.end is RunEnd.DEADLINE
        assert DEADLINE - 0.5 <= seconds <= DEADLINE + LATE
        assert run.wall_seconds == pytest.approx(DEADLINE, abs=0.5)
        assert run.cpu_seconds > 1.0
        scored, claims = opened.score(seed=1)
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
    import json

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
        scored, claims = opened.score(seed=1)
    assert scored.end is RunEnd.FAILED
    assert scored.exit_code == 3
    assert claims is None


HOSTILE = {
    "never returns": "import time\nwhile True: time.sleep(1)",
    "ignores every signal": """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(1)
""",
    "forks without end": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "leaves daemons that hold its output": """
import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(0.1)
        os._exit(0)
while True: time.sleep(1)
""",
    "attacks PID 1": """
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try: failed = act() == -1
    except OSError: failed = True
    print('denied' if failed else 'SUCCEEDED', name, flush=True)
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGUSR1):
    attempt(f'signal {number}', lambda: os.kill(1, number))
attempt('ptrace', lambda: libc.ptrace(16, 1, 0, 0))
attempt('memory', lambda: open('/proc/1/mem', 'r+b'))
attempt('files', lambda: os.listdir('/proc/1/fd'))
attempt('environment', lambda: open('/proc/1/environ').read())
attempt('affinity', lambda: os.sched_setaffinity(1, {0, 1}))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
attempt('slack', lambda: os.write(os.open('/proc/1/timerslack_ns', os.O_WRONLY), b'999999999999'))
while True: time.sleep(1)
""",
    "prints without end": "while True: print('x' * 1000)",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_training_ends_within_two_seconds_of_its_deadline(session, code):
    with session({"train.py": code}) as opened:
        run, seconds = timed_training(opened)
        assert run.end is RunEnd.DEADLINE
        assert seconds <= DEADLINE + LATE
        assert "SUCCEEDED" not in run.log_tail
        assert ("denied signal 9" in run.log_tail) == ("attempt(" in code)
        scored, claims = opened.score(seed=1)
    assert scored.exit_code == 3, "nothing was published"
    assert claims is None


def test_a_full_output_volume_is_the_candidates_failure(session):
    train = """
with open('/out/checkpoint', 'wb') as file:
    while True: file.write(b'x' * 1048576)
"""
    with session({"train.py": train}) as opened:
        run, _ = timed_training(opened)
    assert run.end is RunEnd.FAILED
    assert "No space left on device" in run.log_tail


def test_a_full_scratch_is_the_candidates_failure(session):
    train = """
with open('/tmp/fill', 'wb') as file:
    while True: file.write(b'x' * 1048576)
"""
    with session({"train.py": train}) as opened:
        run, _ = timed_training(opened)
    assert run.end is RunEnd.FAILED
    assert "No space left on device" in run.log_tail


def test_memory_without_end_is_out_of_memory(session):
    train = "blocks = []\nwhile True: blocks.append(bytearray(50_000_000))"
    with session({"train.py": train}, memory_bytes=700 * 2**20, train_seconds=20.0) as opened:
        run, _ = timed_training(opened)
    assert run.end in (RunEnd.OUT_OF_MEMORY, RunEnd.FAILED)
    assert run.exit_code == -9 or "MemoryError" in run.log_tail


def test_locked_mounts_and_the_root_are_read_only(session):
    train = """
for path in ('/locked/x', '/data/x', '/x', '/candidate/x', '/etc/x', '/opt/venv/x'):
    try: open(path, 'w')
    except OSError as error: print(path, error.errno)
    else: print(path, 'WRITTEN')
"""
    with session({"train.py": train}) as opened:
        run = opened.train(seed=1)
    # EROFS: a read-only mount says so before anybody asks who owns the folder.
    assert [line.split()[1] for line in run.log_tail.splitlines()] == [str(errno.EROFS)] * 6


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
        scored, claims = opened.score(seed=1)
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
        _, claims = opened.score(seed=1)
        assert time.monotonic() - began < 3.0 + LATE + 2
    assert claims is None


def test_a_scorer_that_never_returns_is_killed(session):
    with session({"model.py": "def load(path, device):\n    while True: pass"}, score_seconds=2.0) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1)
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
        scored, claims = opened.score(seed=1)
    assert scored.end is RunEnd.FINISHED
    assert claims is None


def test_a_candidate_that_leaves_while_scoring_has_failed(session):
    with session({"model.py": "def load(path, device):\n    raise SystemExit(0)"}) as opened:
        opened.train(seed=1)
        scored, claims = opened.score(seed=1)
    assert (scored.end, scored.exit_code, claims) == (RunEnd.FAILED, 4, None)


def test_time_that_children_burn_is_counted_whoever_reaps_them(session):
    train = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.monotonic() + 2
if os.fork() == 0:
    while time.monotonic() < end: pass
    os._exit(0)
time.sleep(2.2)
"""
    with session({"train.py": train}, train_seconds=20.0) as opened:
        run = opened.train(seed=1)
    assert run.end is RunEnd.FINISHED
    assert run.cpu_seconds > 0.8, "a loaded machine may give less than the 2 seconds, but not none"


def test_what_was_printed_without_a_flush_is_kept_after_the_kill(session):
    with session({"train.py": "print('almost lost')\nwhile True: pass"}) as opened:
        run = opened.train(seed=1)
    assert run.end is RunEnd.DEADLINE
    assert "almost lost" in run.log_tail


def test_a_scorer_that_does_not_come_up_is_told_at_once(session, monkeypatch):
    monkeypatch.setattr("runner.sandbox.limits.PYTHON", "/bin/false")
    began = time.monotonic()
    with pytest.raises(EngineError, match="exit code 1"), session({}):
        pass
    assert time.monotonic() - began < 30, "not the whole time that a start may take"


def test_a_request_that_is_interrupted_keeps_its_interrupt(session, monkeypatch):
    """The engine may fail in the clean-up as well; that must not turn a Ctrl-C into a retry."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def broken(*_, **__):
        raise EngineError("volume in use")

    with session({}) as opened, monkeypatch.context() as patch:
        patch.setattr("runner.sandbox.session._wait", interrupted)
        patch.setattr("runner.sandbox.session.remove_container", broken)
        with pytest.raises(KeyboardInterrupt):
            opened.train(seed=1)
        remove_orphans(opened.engine, opened.owner.controller)
