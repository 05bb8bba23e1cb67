"""No answer is paid for twice: real processes are killed in the middle of conversations with a loopback server.

Everything is real but the engine, which no proposal needs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from runner.campaign import ideas, night
from runner.campaign.budget import LedgerJournal
from runner.campaign.ideas import IdeaQueue
from runner.campaign.stop_switch import StopSwitch
from runner.errors import ProposerError
from runner.failpoints import Step
from runner.proposers.llm import anthropic_messages
from runner.proposers.llm.anthropic_messages import Messages
from runner.proposers.llm.request_policy import ATTEMPTS
from runner.proposers.researcher.conversation import Researcher
from runner.records import Experiment, NoProposal, Ruling, Verdict
from runner.storage.ledger import Ledger
from tests.support import fake_anthropic as fake
from tests.support.chats import trust_no_server
from tests.support.fake_anthropic import FakeAnthropic, Usage
from tests.support.fake_researchers import answer, edit, proposes
from tests.support.scripted_controller import campaign, make_repository

GOOD = proposes("RATE = 0.02", "RATE = 0.04")
OTHER = proposes("STEPS = 5", "STEPS = 6")
AMBIGUOUS = answer(edit(" = ", "="))
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
    trust_no_server(monkeypatch, tmp_path)


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path / "repository")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    """Proposals need none."""
    monkeypatch.setattr(night, "await_engine", lambda *_, **__: None)


@pytest.fixture
def serve(monkeypatch):
    """Start the scripted API."""

    @contextmanager
    def start(*script):
        with FakeAnthropic(script) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
            yield server

    return start


def researcher(opened):
    """Claude, who does not wait between attempts."""
    return Researcher("anthropic", Messages(opened.config, sleep=lambda _: None), plateau_after=20)


def propose(opened, budget_usd=0.0):
    """Ask for the next experiment, as the night does; gives its number, or why there is none."""
    with closing(IdeaQueue(opened, researcher(opened), budget_usd)) as queue:
        answer = queue.next_idea()
    return answer.number if isinstance(answer, Experiment) else answer


def spent_on(opened):
    """USD of every booking with the experiment that it belongs to, in order."""
    rows = opened.ledger.database.read("SELECT experiment, cost_usd FROM usage ORDER BY id")
    return [tuple(row) for row in rows]


def _propose_in_process(environment, root, pause_at, pipe):
    """What the killed processes run.

    Args:
        environment: the one of the test.
        pause_at: stand still once this many answers are written, or (0) before the experiment is opened.
        pipe: reports when it stands still, when a long answer has arrived, and what a person reads.
    """

    def pause(*_, **__):
        pipe.send("paused")
        signal.pause()

    class Pausing(LedgerJournal):
        def close_answer(self, booking, usage, body):
            super().close_answer(booking, usage, body)
            if database.read("SELECT count(*) FROM answers")[0][0] == pause_at:
                pause()

    def counted(delta):
        arrived.append(length(delta))
        if sum(arrived) >= LONG and sum(arrived[:-1]) < LONG:
            pipe.send("arrived")
        return arrived[-1]

    os.environ.clear()
    os.environ.update(environment)
    arrived, length = [], anthropic_messages._length
    anthropic_messages._length = counted
    ideas.LedgerJournal = Pausing
    if pause_at == 0:
        Ledger.open_experiment = pause
    with campaign(root) as opened, StopSwitch().installed(pipe.send):
        database = opened.ledger.database
        try:
            propose(opened)
        except KeyboardInterrupt:
            pipe.send("interrupted")


@contextmanager
def process(root, pause_at=None):
    """Propose in another process: its id, and what it says.

    It is forked from one that has imported everything and done nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    arguments = (dict(os.environ), root, pause_at, theirs)
    child = context.Process(target=_propose_in_process, args=arguments)
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
    with campaign(root) as opened:
        while len(spent_on(opened)) < bookings:
            assert time.monotonic() < give_up
            time.sleep(0.02)


def test_a_conversation_that_is_killed_after_each_answer_sends_every_request_once(root, serve):
    script = [AMBIGUOUS, PROSE, GOOD]
    with serve(*script) as uninterrupted, campaign(root) as opened:
        assert propose(opened) == 1
        expected = opened.ledger.experiment("t", 1)
        with opened.ledger.database.transaction(Step.EXPERIMENT_OPENED) as db:
            db.execute("DELETE FROM experiments WHERE number = 1")
            db.execute("DELETE FROM usage")
            db.execute("UPDATE campaigns SET ticks = ticks - 1")
    with serve(*script) as server:
        for pause_at, sent in ((1, 1), (2, 2), (3, 3), (0, 3)):
            killed(root, pause_at)
            assert len(server.requests) == sent
        with campaign(root) as opened:
            assert spent_on(opened) == [(None, ANSWER_USD)] * 3
            assert propose(opened) == 1
            assert spent_on(opened) == [(1, ANSWER_USD)] * 3
            found = opened.ledger.experiment("t", 1)
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
        with campaign(root) as opened:
            assert propose(opened) == 1
            # What was read of the prompt is known from the first byte on; what came after it is not.
            begun = (1000 * 4 + 1 * 20) / 1e6
            assert spent_on(opened) == [(1, cost) for cost in (ANSWER_USD, begun, ANSWER_USD, ANSWER_USD)]
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
        with campaign(root) as opened:
            first, cut = spent_on(opened)
            assert first == (None, ANSWER_USD)
            assert cut[1] == pytest.approx((1000 * 4 + LONG / 3 * 20) / 1e6, rel=0.01)
            assert propose(opened) == 1
    assert len(server.requests) == 3
    assert server.requests[1] == server.requests[2]


def test_after_a_change_of_the_program_the_model_is_asked_anew_and_both_answers_are_booked(root, serve):
    with serve(AMBIGUOUS, GOOD) as server:
        killed(root, 1)
        (root / "program.md").write_text("Lower is much better.\n")
        with campaign(root) as opened:
            assert propose(opened) == 1
            assert spent_on(opened) == [(1, ANSWER_USD)] * 2
    assert len(server.requests) == 2
    assert "much better" in server.requests[1]["system"][0]["text"]


@pytest.mark.parametrize("changes", [{"model": "claude-sonnet-5-5"}, {"max_output_tokens": 5000}])
def test_another_model_or_limit_is_another_request(root, serve, changes):
    with serve(AMBIGUOUS, BROKE, GOOD) as server:
        with campaign(root) as opened, pytest.raises(ProposerError, match="no credit"):
            propose(opened)
        with campaign(root, **changes) as opened:
            assert propose(opened) == 1
    assert len(server.requests[2]["messages"]) == 1


def test_a_conversation_that_led_to_nothing_is_not_held_again(root, serve):
    with serve(PROSE, PROSE, PROSE, GOOD) as server, campaign(root) as opened:
        assert "without a tool call" in propose(opened).reason
        assert propose(opened) == 1
        assert spent_on(opened) == [*[(None, ANSWER_USD)] * 3, (1, ANSWER_USD)]
    assert server.requests[0] == server.requests[3]


@pytest.mark.parametrize("ill", [AWAY, [BROKE]])
def test_a_conversation_goes_on_when_the_api_is_back(root, serve, ill):
    with serve(AMBIGUOUS, *ill, GOOD) as server, campaign(root) as opened:
        try:
            assert propose(opened).unfinished
        except ProposerError as error:
            assert "no credit" in error.message
        assert propose(opened) == 1
        assert spent_on(opened) == [(1, ANSWER_USD)] * 2
    assert len(server.requests) == len(ill) + 2


def test_an_api_that_is_away_for_hours_ends_no_night_and_a_conversation_that_it_may_not_digest_is_given_up(
    root, serve, monkeypatch
):
    monkeypatch.setattr(night, "EMPTY_PAUSES_SECONDS", (0.0, 0.0))
    with serve(AMBIGUOUS, *AWAY * 15, BROKE, GOOD) as server, campaign(root) as opened:
        with pytest.raises(ProposerError, match="no credit"):
            night.run(opened.controller, researcher(opened), StopSwitch())
        assert len(server.requests) == 1 + 15 * ATTEMPTS + 1
        # After three failures the conversation is dropped and begun anew: it may be one that cannot be answered.
        assert server.requests[3 * ATTEMPTS] == server.requests[1]
        assert server.requests[1 + 3 * ATTEMPTS] == server.requests[0]
        assert propose(opened) == 1
        assert spent_on(opened) == [(None, ANSWER_USD), (1, ANSWER_USD)]


def test_a_controller_that_leaves_waits_for_no_answer_that_hangs(root, serve, monkeypatch):
    monkeypatch.setattr(ideas, "LEAVE_SECONDS", 0.5)
    released = threading.Event()
    with serve(fake.holds(GOOD, 4, lambda: released.wait(GIVE_UP_SECONDS))), campaign(root) as opened:
        queue = IdeaQueue(opened, researcher(opened), 0.0)
        queue.prefetch()
        thread = queue._prefetched.thread
        until_booked(root, 1)
        began = time.monotonic()
        queue.close()
        assert time.monotonic() - began < 10
        released.set()  # and when the server says something, the answer is cut off
        thread.join(GIVE_UP_SECONDS)
        assert not thread.is_alive()
        assert [experiment for experiment, _ in spent_on(opened)] == [None]
        assert opened.ledger.conversations.ongoing("t", "anthropic") is not None, "it goes on at the next start"


def test_a_model_that_only_declines_ends_the_night(root, serve, monkeypatch):
    monkeypatch.setattr(night, "EMPTY_PAUSES_SECONDS", (0.0, 0.0))
    declined = fake.message(fake.THINKING, stop_reason="refusal")
    with serve(*[declined] * 9) as server, campaign(root) as opened:
        with pytest.raises(ProposerError, match="3 conversations in a row"):
            night.run(opened.controller, researcher(opened), StopSwitch())
        assert len(server.requests) == 3


def test_the_second_version_of_a_crash_is_a_conversation_of_its_own(root, serve):
    with serve(GOOD, PROSE, BROKE, PROSE, PROSE, BROKE, OTHER) as server, campaign(root) as opened:
        assert propose(opened) == 1
        opened.close(1, Ruling(verdict=Verdict.CRASH, reason="boom"))
        with pytest.raises(ProposerError):
            propose(opened)
        with pytest.raises(ProposerError):  # the idea is abandoned in prose; then the account is empty again
            propose(opened)
        assert propose(opened) == 2  # and an abandoned repair is not asked for a second time
        assert opened.ledger.experiment("t", 2).retry_of is None
        costs = [experiment for experiment, _ in spent_on(opened)]
        assert costs == [1, None, None, None, 2]
    repairs = ["Fix the idea" in str(body["messages"][0]) for body in server.requests]
    assert repairs == [False, True, True, True, True, False, False]


def test_the_budget_is_checked_before_every_turn(root, serve, monkeypatch):
    monkeypatch.setattr(night, "EMPTY_PAUSES_SECONDS", ())  # a spent budget is no failure of the API
    million = Usage(input_tokens=1_000_000, output_tokens=0)
    first = answer(edit("nothing", "like this"), usage=million)
    with serve(first, GOOD) as server:
        with campaign(root, budget_usd=4.0, experiment_budget_usd=0) as opened:
            proposer = researcher(opened)
            reason = night.run(opened.controller, proposer, StopSwitch())
            assert reason == "the budget of $4.00 is spent ($4.00)"
            stopped = propose(opened, budget_usd=4.0)
            assert isinstance(stopped, NoProposal) and stopped.reason == reason
        assert len(server.requests) == 1
        with campaign(root, experiment_budget_usd=0) as opened:
            assert "may exceed the budget" in propose(opened, budget_usd=7.99).reason
            assert propose(opened, budget_usd=8.0) == 1
            assert opened.ledger.experiment("t", 1).cost_usd == pytest.approx(4.0 + ANSWER_USD)
    assert len(server.requests) == 2


def test_an_answer_that_is_cut_off_is_not_asked_again_beyond_the_budget(root, serve):
    million = Usage(input_tokens=1_000_000, output_tokens=0)
    with serve(fake.cut(fake.say("x", usage=million), 3), GOOD) as server:
        with campaign(root, experiment_budget_usd=0) as opened:
            assert "budget" in propose(opened, budget_usd=4.0).reason
        assert len(server.requests) == 1


def test_a_conversation_that_has_cost_enough_ends_and_the_next_one_begins(root, serve):
    million = Usage(input_tokens=1_000_000, output_tokens=0)
    with serve(fake.cut(fake.say("x", usage=million), 3), GOOD) as server, campaign(root) as opened:
        assert "of one experiment ($4.00 spent)" in propose(opened).reason
        assert len(server.requests) == 1
        assert propose(opened) == 1
        assert [experiment for experiment, _ in spent_on(opened)] == [None, 1]
