"""No answer is paid for twice: real processes are killed in the middle of conversations with a loopback server.

Everything is real but the engine, which no proposal needs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace

import fake_anthropic as fake
import numpy as np
import pytest
from fake_anthropic import FakeAnthropic, Usage
from silent_observer import SilentObserver

from runner import campaign
from runner.config import load
from runner.contamination import SealedText
from runner.errors import ProposerError
from runner.journal import LedgerJournal
from runner.laboratory import Laboratory
from runner.ledger import Ledger
from runner.proposers import messages
from runner.proposers.anthropic import AnthropicProposer
from runner.proposers.messages import ATTEMPTS
from runner.records import NoProposal, Proposal, Verdict
from runner.repo import Repository

GOOD = fake.submit(
    [{"path": "workload/train.py", "action": "replace", "old": "RATE = 0.02", "new": "RATE = 0.04"}]
)
AMBIGUOUS = fake.submit([{"path": "workload/train.py", "action": "replace", "old": " = ", "new": "="}])
PROSE = fake.say("I would raise the rate.")
BROKE = fake.error(402, "billing_error")
AWAY = [fake.error(529, "overloaded_error")] * ATTEMPTS
ANSWER_USD = (1000 * 4 + 200 * 20) / 1e6
"""1,000 tokens in at $4 and 200 out at $20 a million: every scripted answer."""
GIVE_UP_SECONDS = 60
LONG = 30_000
"""Characters of an answer whose arrival is announced."""


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("ANTHROPIC_") or name.lower() in ("http_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def root(tmp_path):
    """A user's repository whose campaign has its baseline."""
    root = tmp_path / "repository"
    (root / "workload").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "model.py": "WIDTH = 64\n",
        "train.py": "RATE = 0.02\nSTEPS = 5\n",
    }.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
        ["branch", "autoresearch/t"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    with laboratory(root) as lab:
        base = lab.repository.resolve("HEAD")
        lab.ledger.create_campaign(tag="t", base_commit=base, conditions={})
        baseline = Proposal(hypothesis="baseline", edits=(), proposer="baseline")
        lab.ledger.open_experiment("t", baseline, diff="", champion=None)
        lab.ledger.close_experiment("t", 0, verdict=Verdict.KEEP, reason="baseline", val_bpb=2.0, sigma_bpb=0.01)
        lab.ledger.set_kept("t", 0, base)
    return root


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    """Proposals need none."""
    monkeypatch.setattr(campaign, "await_engine", lambda *_, **__: None)


@contextmanager
def laboratory(root, **settings):
    """All that a proposal needs of a laboratory."""
    config = load(root, {"tag": "t", "profile": "cpu", "proposer": "anthropic", **settings}, environ={})
    nothing = SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        yield Laboratory(
            config=config, engine=None, repository=Repository(root), ledger=ledger, observer=SilentObserver(),
            mounts=None, evaluation=None,
            sealed_text=nothing, redactor=None, scratch=root, claims=root, base_image="",
            conditions={},
        )  # fmt: skip


@pytest.fixture
def serve(monkeypatch):
    """Start the scripted API."""

    @contextmanager
    def start(*script):
        with FakeAnthropic(script) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
            yield server

    return start


def propose(lab, budget_usd=0.0):
    """Ask for the next experiment, as the night does; gives its number, or why there is none."""
    opened = lab.ledger.campaign("t")
    proposer = AnthropicProposer(lab.config, sleep=lambda _: None)
    return campaign._propose(lab, proposer, opened, lab.ledger.experiments("t"), budget_usd)


def spent_on(lab):
    """USD of every booking with the experiment that it belongs to, in order."""
    return [tuple(row) for row in lab.ledger._read("SELECT experiment, cost_usd FROM usage ORDER BY id")]


def _propose_in_process(root, pause_at, pipe):
    """What the killed processes run.

    Args:
        pause_at: stand still once this many answers are written, or (0) before the experiment is opened.
        pipe: tells when it stands still, when a long answer has arrived, and what a person is told.
    """

    def pause(*_, **__):
        pipe.send("paused")
        signal.pause()

    class Pausing(LedgerJournal):
        def close_answer(self, booking, usage, body):
            super().close_answer(booking, usage, body)
            if len(self.bookings) == pause_at:
                pause()

    def counted(delta):
        arrived.append(length(delta))
        if sum(arrived) >= LONG and sum(arrived[:-1]) < LONG:
            pipe.send("arrived")
        return arrived[-1]

    arrived, length = [], messages._length
    messages._length = counted
    campaign.LedgerJournal = Pausing
    if pause_at == 0:
        Ledger.open_experiment = pause
    with laboratory(root) as lab, campaign.StopSwitch().installed(pipe.send):
        try:
            propose(lab)
        except KeyboardInterrupt:
            pipe.send("interrupted")


@contextmanager
def process(root, pause_at=None):
    """Propose in another process: its id, and what it says."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_propose_in_process, args=(root, pause_at, theirs))
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        child.kill()
        child.join()
        child.close()
        ours.close()


def hear(pipe):
    assert pipe.poll(GIVE_UP_SECONDS), "the process said nothing"
    return pipe.recv()


def killed(root, pause_at):
    """Let a process come to a point and kill it there."""
    with process(root, pause_at) as (child, pipe):
        assert hear(pipe) == "paused"
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL


def until_booked(root, bookings):
    """Wait until the ledger holds so many bookings."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    with laboratory(root) as lab:
        while len(spent_on(lab)) < bookings:
            assert time.monotonic() < give_up
            time.sleep(0.02)


def test_a_conversation_that_is_killed_after_each_answer_sends_every_request_once(root, serve):
    script = [AMBIGUOUS, PROSE, GOOD]
    with serve(*script) as uninterrupted, laboratory(root) as lab:
        assert propose(lab) == 1
        expected = lab.ledger.experiment("t", 1)
        lab.ledger._db.execute("DELETE FROM experiments WHERE number = 1")
        lab.ledger._db.execute("DELETE FROM usage")
    with serve(*script) as server:
        for pause_at, sent in ((1, 1), (2, 2), (3, 3), (0, 3)):
            killed(root, pause_at)
            assert len(server.requests) == sent
        with laboratory(root) as lab:
            assert spent_on(lab) == [(None, ANSWER_USD)] * 3
            assert propose(lab) == 1
            assert spent_on(lab) == [(1, ANSWER_USD)] * 3
            found = lab.ledger.experiment("t", 1)
    assert server.requests == uninterrupted.requests
    assert replace(found, started_at=expected.started_at) == expected
    assert found.cost_usd == pytest.approx(3 * ANSWER_USD, abs=1e-12)


def test_a_kill_in_the_middle_of_an_answer_costs_that_answer_alone(root, serve):
    killers = []

    def kill():
        until_booked(root, 2)
        os.kill(killers[0], signal.SIGKILL)

    with serve(AMBIGUOUS, fake.holds(PROSE, 4, kill), PROSE, GOOD) as server:
        with process(root) as (child, _):
            killers.append(child.pid)
            child.join(GIVE_UP_SECONDS)
            assert child.exitcode == -signal.SIGKILL
        assert len(server.requests) == 2
        with laboratory(root) as lab:
            assert propose(lab) == 1
            # What was read of the prompt is known from the first byte on; what came after it is not.
            begun = (1000 * 4 + 1 * 20) / 1e6
            assert spent_on(lab) == [(1, cost) for cost in (ANSWER_USD, begun, ANSWER_USD, ANSWER_USD)]
    assert len(server.requests) == 4
    assert server.requests[1] == server.requests[2]


def test_a_person_who_interrupts_an_answer_pays_for_what_has_arrived_and_keeps_the_rest(root, serve):
    children = []

    def interrupt():
        child, pipe = children[0]
        assert hear(pipe) == "arrived"
        os.kill(child.pid, signal.SIGINT)
        assert "Ctrl-C again" in hear(pipe)
        os.kill(child.pid, signal.SIGINT)
        assert hear(pipe) == "interrupted"

    long = fake.say("x" * LONG)
    with serve(AMBIGUOUS, fake.holds(long, len(long.events) - 3, interrupt), GOOD) as server:
        with process(root) as (child, pipe):
            children.append((child, pipe))
            child.join(GIVE_UP_SECONDS)
            assert child.exitcode == 0
        with laboratory(root) as lab:
            first, cut = spent_on(lab)
            assert first == (None, ANSWER_USD)
            assert cut[1] == pytest.approx((1000 * 4 + LONG / 3 * 20) / 1e6, rel=0.01)
            assert propose(lab) == 1
    assert len(server.requests) == 3
    assert server.requests[1] == server.requests[2]


def test_after_a_change_of_the_program_the_model_is_asked_anew_and_both_answers_are_booked(root, serve):
    with serve(AMBIGUOUS, GOOD) as server:
        killed(root, 1)
        (root / "program.md").write_text("Lower is much better.\n")
        with laboratory(root) as lab:
            assert propose(lab) == 1
            assert spent_on(lab) == [(None, ANSWER_USD), (1, ANSWER_USD)]
    assert len(server.requests) == 2
    assert "much better" in server.requests[1]["system"][0]["text"]


@pytest.mark.parametrize("changes", [{"model": "claude-sonnet-5-5"}, {"max_output_tokens": 5000}])
def test_another_model_or_limit_is_another_request(root, serve, changes):
    with serve(AMBIGUOUS, BROKE, GOOD) as server:
        with laboratory(root) as lab, pytest.raises(ProposerError, match="no credit"):
            propose(lab)
        with laboratory(root, **changes) as lab:
            assert propose(lab) == 1
    assert len(server.requests[2]["messages"]) == 1


def test_a_conversation_that_led_to_nothing_is_not_held_again(root, serve):
    with serve(PROSE, PROSE, GOOD) as server, laboratory(root) as lab:
        assert "prose" in propose(lab).reason
        assert propose(lab) == 1
        assert spent_on(lab) == [(None, ANSWER_USD), (None, ANSWER_USD), (1, ANSWER_USD)]
    assert server.requests[0] == server.requests[2]


@pytest.mark.parametrize("ill", [AWAY, [BROKE]])
def test_a_conversation_goes_on_when_the_api_is_back(root, serve, ill):
    with serve(AMBIGUOUS, *ill, GOOD) as server, laboratory(root) as lab:
        try:
            assert propose(lab).unfinished
        except ProposerError as error:
            assert "no credit" in error.message
        assert propose(lab) == 1
        assert spent_on(lab) == [(1, ANSWER_USD)] * 2
    assert len(server.requests) == len(ill) + 2


def test_answers_that_the_api_cannot_digest_are_given_up_with_the_night(root, serve, monkeypatch):
    pauses = (0.0,) * 2
    monkeypatch.setattr(campaign, "EMPTY_PAUSES_SECONDS", pauses)
    with serve(AMBIGUOUS, *AWAY * 3, GOOD) as server, laboratory(root) as lab:
        proposer = AnthropicProposer(lab.config, sleep=lambda _: None)
        with pytest.raises(ProposerError, match="3 conversations in a row"):
            campaign.run(lab, proposer, campaign.StopSwitch())
        assert len(server.requests) == 1 + 3 * ATTEMPTS
        assert propose(lab) == 1
        assert spent_on(lab) == [(None, ANSWER_USD), (1, ANSWER_USD)]


def test_the_second_version_of_a_crash_is_a_conversation_of_its_own(root, serve):
    with serve(GOOD, PROSE, BROKE, PROSE, BROKE, GOOD) as server, laboratory(root) as lab:
        assert propose(lab) == 1
        lab.ledger.close_experiment("t", 1, verdict=Verdict.CRASH, reason="boom")
        with pytest.raises(ProposerError):
            propose(lab)
        with pytest.raises(ProposerError):  # the idea is abandoned in prose; then the account is empty again
            propose(lab)
        assert propose(lab) == 2  # and nobody asks a second time what was abandoned
        assert lab.ledger.experiment("t", 2).retry_of is None
        costs = [experiment for experiment, _ in spent_on(lab)]
        assert costs == [1, None, None, 2]
    mending = ["Mend the idea" in str(body["messages"][0]) for body in server.requests]
    assert mending == [False, True, True, True, False, False]


def test_the_budget_is_looked_at_before_every_turn(root, serve, monkeypatch):
    monkeypatch.setattr(campaign, "EMPTY_PAUSES_SECONDS", ())  # a spent budget is no failure of the API
    million = Usage(input_tokens=1_000_000, output_tokens=0)
    first = fake.submit([], usage=million)
    with serve(first, GOOD) as server:
        with laboratory(root, budget_usd=4.0) as lab:
            proposer = AnthropicProposer(lab.config)
            reason = campaign.run(lab, proposer, campaign.StopSwitch())
            assert reason == "the budget of $4.00 is spent ($4.00)"
            stopped = propose(lab, budget_usd=4.0)
            assert isinstance(stopped, NoProposal) and stopped.reason == reason
        assert len(server.requests) == 1
        with laboratory(root) as lab:
            assert propose(lab, budget_usd=4.01) == 1
            assert lab.ledger.experiment("t", 1).cost_usd == pytest.approx(4.0 + ANSWER_USD)
    assert len(server.requests) == 2


def test_an_answer_that_is_cut_off_is_not_asked_again_beyond_the_budget(root, serve):
    million = Usage(input_tokens=1_000_000, output_tokens=0)
    with serve(fake.cut(fake.say("x", usage=million), 3), GOOD) as server, laboratory(root) as lab:
        assert "budget" in propose(lab, budget_usd=4.0).reason
        assert len(server.requests) == 1
        assert propose(lab) == 1
        assert [experiment for experiment, _ in spent_on(lab)] == [1, 1]
