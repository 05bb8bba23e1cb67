"""One trial with the real judge and audit: its steps in order, and the first failure ends it."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runner.config import load
from runner.errors import DiskFullError, EngineError
from runner.evaluation import audit, contention, evaluator, trial
from runner.evaluation.evaluator import Evaluator, Program, TrialRequest
from runner.records import AuditPolicy, Outcome, Phase, RunEnd
from tests.support.scripted_night import CONTEXT, VOCAB_SIZE, ScriptedSession, evaluation
from tests.support.silent_observer import SilentObserver
from tests.support.trials import run

EVERYTHING = AuditPolicy(audit=True, seal_below_bpb=float("inf"))
ROWS = evaluation()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(audit, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def place(tmp_path):
    """An evaluator without an engine."""
    config = load(Path("/nonexistent"), {"profile": "cpu", "max_disturbance": 1}, environ={})
    return Evaluator(
        config=config.model_copy(update={"vocab_size": VOCAB_SIZE, "context_length": CONTEXT}),
        engine=None, controller="c", mounts=SimpleNamespace(locked=None), rows=ROWS,
        redactor=SimpleNamespace(redact=lambda text: text.replace("secret", "[withheld]")),
        scratch=tmp_path / "audits", claims=tmp_path / "claims",
        base=SimpleNamespace(id=""), observer=SilentObserver(),
    )  # fmt: skip


@pytest.fixture
def trials(place, monkeypatch):
    """Run one trial; only its containers are scripted."""

    @contextmanager
    def started(session, runs, **request):
        monkeypatch.setattr(trial, "open_session", lambda *_, **__: nullcontext(session))
        asked = TrialRequest(program=Program(number=1, files={}, commit="c"), seed=7, **request)
        with trial.open_trial(place, asked, "image", runs) as running:
            yield running

    def go(policy=EVERYTHING, *, session=None, champion=None, **request):
        runs = []
        with started(session or ScriptedSession("BOOST = 0.5\n", ROWS), runs, **request) as running:
            made, sealed = running.claim(), None
            if made.outcome is Outcome.SCORED:
                made, sealed = running.examine(policy, champion)
        assert made.runs == tuple(runs)
        return made, sealed

    go.started = started
    return go


class Failing(ScriptedSession):
    """A session in which one call ends in another way.

    Args:
        named: the method; its result is that of `act`, which is called with the usual one.
    """

    def __init__(self, named, act):
        super().__init__("BOOST = 0.5\n", ROWS)
        usual = getattr(self, named)
        setattr(self, named, lambda *arguments, **named: act(lambda: usual(*arguments, **named)))


def raising(error):
    def act(_usual):
        raise error

    return act


def phases(made):
    return [one.phase for one in made.runs]


def test_a_trial_takes_its_steps_in_order(place, trials):
    made, sealed = trials()
    assert phases(made) == [Phase.TRAIN, Phase.SCORE, Phase.AUDIT, Phase.TEST]
    assert made.audited and made.sealed and made.val_bpb == made.runs[2].val_bpb >= made.claimed_bpb
    assert made.claims_sha256 == made.runs[1].claims_sha256 == made.runs[2].claims_sha256
    assert [path.stem for path in place.claims.iterdir()] == [made.claims_sha256]
    assert (sealed.score.seed, sealed.score.val_bpb) == (7, made.val_bpb)
    assert sealed.claims_sha256 != made.claims_sha256, "of other rows"
    assert all(one.opened_at and one.closed_at for one in made.runs)


def test_claims_come_before_their_audit_and_are_not_audited_then(trials):
    with trials.started(ScriptedSession("BOOST = 0.5\n", ROWS), runs := []) as running:
        made = running.claim()
        assert phases(made) == [Phase.TRAIN, Phase.SCORE] and len(runs) == 2
        assert made.val_bpb == made.claimed_bpb and not made.audited
        later, _ = running.examine(AuditPolicy(audit=True), None)
    assert later.claims_sha256 == made.claims_sha256 and later.audited


def test_claims_that_are_not_audited_count_as_claimed_and_are_never_sealed(place, trials):
    made, sealed = trials(AuditPolicy(audit=False, seal_below_bpb=float("inf")))
    assert phases(made) == [Phase.TRAIN, Phase.SCORE]
    assert made.outcome is Outcome.SCORED and made.val_bpb == made.claimed_bpb
    assert sealed is None and not place.claims.exists()


def test_an_audited_score_up_to_the_limit_is_sealed_and_one_above_it_is_not(trials):
    score = trials(AuditPolicy(audit=True))[0].val_bpb
    for above, is_sealed in ((1e-6, True), (0.0, True), (-1e-6, False)):
        made, sealed = trials(AuditPolicy(audit=True, seal_below_bpb=score + above))
        assert made.sealed == is_sealed == (sealed is not None) == (Phase.TEST in phases(made))
        assert made.val_bpb == score, "a seal changes no score"


def test_a_training_that_fails_is_not_scored(trials):
    made, _ = trials(session=ScriptedSession("BOOST = 'crash'\n", ROWS))
    assert (made.outcome, made.reason) == (Outcome.CRASH, "training exited with code 1")
    assert phases(made) == [Phase.TRAIN] and made.val_bpb is None and made.claims_sha256 is None


def test_the_log_of_a_training_is_cleaned_and_redacted(trials):
    def act(_usual):
        return run(Phase.TRAIN, 7, log_tail="a \x1b[31msecret\n")

    made, _ = trials(session=Failing("train", act))
    assert "[withheld]" in made.runs[0].log_tail
    assert "secret" not in made.runs[0].log_tail and "\x1b" not in made.runs[0].log_tail


def strict(place, monkeypatch, **changes):
    """Other settings for an evaluator."""
    monkeypatch.setitem(place.__dict__, "config", place.config.model_copy(update=changes))


def test_a_control_that_is_slower_than_its_program_is_contended(place, trials, monkeypatch):
    strict(place, monkeypatch, max_disturbance=0.05)

    def slow():
        return Failing("train", lambda _: run(Phase.TRAIN, 7, log_tail="step 9 loss 3.0 tokens/s 500"))

    made, _ = trials(session=slow(), usual_tokens_per_second=1000.0)
    assert (made.outcome, phases(made)) == (Outcome.CONTENDED, [Phase.TRAIN])
    assert made.reason == "the machine is slow: 500 tokens/s, 50% of this program's usual speed"
    assert trials(session=slow(), usual_tokens_per_second=1000.0, tolerate_contention=True)[0].audited
    assert trials(session=slow())[0].audited, "a candidate's own figure never has its trial repeated"


def test_a_training_whose_gpu_others_use_is_contended(place, trials, monkeypatch, tmp_path):
    """The process is that of this test, which is in none of our containers."""
    asked, tool = tmp_path / "asked", tmp_path / "nvidia-smi"
    tool.write_text(
        f"#!/bin/sh\necho >>{asked}\ncase $2 in *apps=pid) echo {os.getpid()};; *) echo 1980, 700, 0;; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for pause in ("FIRST_CLOCK_SECONDS", "CLOCK_SECONDS"):
        monkeypatch.setattr(contention, pause, 0.001)
    monkeypatch.setattr(evaluator, "container_ids", lambda *_: set())
    monkeypatch.setattr(Evaluator, "scrub", lambda *_: None)
    strict(place, monkeypatch, max_disturbance=0.25, gpu="GPU-1")

    class Busy(ScriptedSession):
        def train(self, seed, on_line, on_start, on_end, gives_up):
            on_start()
            while not asked.exists() or len(asked.read_text()) < 6:  # two readings are complete
                time.sleep(0.01)
            on_end()
            return run(Phase.TRAIN, seed)

    made, _ = trials(session=Busy("BOOST = 0.5\n", ROWS))
    assert made.outcome is Outcome.CONTENDED
    assert made.reason == "the GPU was disturbed for 100% of the training: 1 other program computes on it"
    assert made.training.clock_mhz == 1980


def test_claims_that_no_model_makes_are_invalid_and_have_their_hash(trials):
    claims = np.full(ROWS.val_targets.size, 0.5, "<f4").tobytes()  # probabilities above one
    made, _ = trials(session=Failing("score", lambda usual: (usual()[0], claims)))
    assert made.outcome is Outcome.INVALID and made.reason.startswith("no model can have made these claims: ")
    assert made.runs[1].claims_sha256 == hashlib.sha256(claims).hexdigest()
    assert made.val_bpb is None and made.runs[1].val_bpb is None


def test_a_scorer_without_an_answer_is_a_crash(trials):
    def act(_usual):
        return run(Phase.SCORE, 7, RunEnd.FAILED, exit_code=3), None

    made, _ = trials(session=Failing("score", act))
    assert (made.outcome, made.reason) == (Outcome.CRASH, "no checkpoint was published")


class Small(ScriptedSession):
    """A session that has memory for so many rows at once.

    Args:
        pid_one: whether PID 1 of the scorer lives on when the candidate is killed.
    """

    def __init__(self, room, *, pid_one=True):
        super().__init__("BOOST = 0.5\n", ROWS)
        self.room, self.asked, self.largest, self.keeps_checkpoint = room, [], [], pid_one

    def score(self, seed, batch_rows):
        self.asked.append(batch_rows)
        if batch_rows > self.room:
            return run(Phase.SCORE, 7, RunEnd.OUT_OF_MEMORY, exit_code=-9), None
        return super().score(seed, batch_rows)

    def auditor(self, rows, *, batch_rows, **limits):
        self.asked.append(batch_rows)
        self.largest.append(np.diff(np.load(rows / "edges.npy")).max())
        return super().auditor(rows, batch_rows=batch_rows, **limits)

    def score_test(self, seed, batch_rows, max_bytes):
        self.asked.append(batch_rows)
        return super().score_test(seed, batch_rows, max_bytes)


def test_scoring_without_room_for_a_batch_is_repeated_with_half_of_it_and_so_is_its_audit(trials):
    session = Small(room=10)
    made, _ = trials(session=session)
    assert session.asked == [64, 32, 16, 8, 8, 8, 8], "scored four times, then audited twice and sealed"
    assert session.largest[0] == 8, "the audit's batches have the shape of those that were scored"
    assert made.audited and made.sealed and made.claimed_bpb is not None
    assert [one.end for one in made.runs[1:5]] == [RunEnd.OUT_OF_MEMORY] * 3 + [RunEnd.FINISHED]


def test_scoring_without_room_for_a_row_is_a_crash(trials):
    session = Small(room=0)
    made, _ = trials(session=session)
    assert (made.outcome, made.reason) == (Outcome.CRASH, "scoring ran out of memory")
    assert session.asked == [64, 32, 16, 8, 4, 2, 1]


def test_scoring_is_not_repeated_without_the_checkpoint(trials):
    session = Small(room=10, pid_one=False)
    made, _ = trials(session=session)
    assert (made.outcome, made.reason) == (Outcome.CRASH, "scoring ran out of memory") and session.asked == [64]


def test_scoring_above_its_limit_is_a_crash_whatever_the_score(trials):
    made, _ = trials(score_limit_seconds=0.5)
    assert made.outcome is Outcome.CRASH and "scoring took 1.0 s" in made.reason
    assert made.val_bpb is None and made.claimed_bpb is not None


def test_claims_that_the_audit_refutes_are_invalid_and_never_sealed(place, trials):
    def act(usual):
        made, claims = usual()
        return made, (np.frombuffer(claims, "<f4") / 2).astype("<f4").tobytes()  # twice as sure as it is

    made, sealed = trials(session=Failing("score", act))
    assert made.outcome is Outcome.INVALID and made.reason.startswith("refused by the audit: ")
    assert made.audit.finding is not None and not made.audited and made.val_bpb is None
    assert phases(made)[-1] is Phase.AUDIT and sealed is None and not place.claims.exists()


@pytest.mark.parametrize(("named", "phase"), [("train", Phase.TRAIN), ("score", Phase.SCORE)])
def test_a_run_that_an_engine_ends_is_recorded_as_lost(trials, named, phase):
    session = Failing(named, raising(EngineError("a socket broke")))
    with trials.started(session, runs := []) as running, pytest.raises(EngineError):
        running.claim()
    assert (runs[-1].phase, runs[-1].end, runs[-1].exit_code) == (phase, RunEnd.LOST, None)
    assert runs[-1].opened_at is not None and runs[-1].closed_at is not None


def test_an_engine_that_fails_at_the_sealed_rows_takes_nothing_from_the_trial(trials):
    made, sealed = trials(session=Failing("score_test", raising(EngineError("a socket broke"))))
    assert made.outcome is Outcome.SCORED and made.audited
    assert not made.sealed and sealed is None
    assert made.runs[-1].phase is Phase.TEST and made.runs[-1].end is RunEnd.LOST


def test_a_full_disk_at_the_sealed_rows_is_an_error(trials):
    with pytest.raises(DiskFullError):
        trials(session=Failing("score_test", raising(DiskFullError("full"))))


def test_rows_of_an_audit_are_gone_when_it_has_ended(place, trials):
    trials()
    assert list(place.scratch.iterdir()) == []


def test_a_gpu_is_scrubbed_before_every_container_that_runs_candidate_code(place, trials, monkeypatch):
    scrubbed = []
    monkeypatch.setattr(Evaluator, "scrub", lambda _, number: scrubbed.append(number))
    trials()
    assert scrubbed == [1] * 5, "an audit has two containers"


@pytest.mark.parametrize(("asleep", "lost"), [(0.5, False), (60.0, True)])
def test_a_run_during_which_the_machine_was_suspended_is_lost_and_judges_nothing(
    trials, monkeypatch, asleep, lost
):
    clock, real = [0.0], time.clock_gettime
    monkeypatch.setattr(
        time, "clock_gettime", lambda which: real(which) + (clock[0] if which == time.CLOCK_BOOTTIME else 0)
    )

    def act(usual):
        clock[0] += asleep
        return usual()

    with trials.started(Failing("train", act), runs := []) as running:
        if lost:
            with pytest.raises(EngineError, match="suspended for 60 s in the phase train"):
                running.claim()
            assert [run.end for run in runs] == [RunEnd.LOST]
        else:
            assert running.claim().outcome is Outcome.SCORED
