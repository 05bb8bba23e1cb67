"""Never idle: the next idea is asked for while one is measured, and finds its place whatever the verdict is."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from runner import edits
from runner.campaign.experiment import candidate_files, tried_ref
from runner.campaign.ideas import IdeaQueue
from runner.errors import ProposerError
from runner.records import NoProposal, Patch, Proposal, Replace, Usage, Verdict
from tests.support.scripted_evaluator import TAG, laboratory, make_repository

WAIT_SECONDS = 30
USAGE = Usage(
    model="m", request_id=None, input_tokens=1, output_tokens=1, cache_read_tokens=0, cache_write_tokens=0,
    cost_usd=0.25,
)  # fmt: skip


class Slow:
    """Answers when it is told to; every answer is paid for, and recalled when it was."""

    name, model, prefetches = "slow", "m", True

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Semaphore(0)
        self.sent = 0

    def propose(self, request):
        self.requests.append(request)
        key = repr(
            (request.program, sorted(request.files.items()), request.history, request.running, request.failed)
        )
        step = request.journal.recall(1, key)
        if step is None:
            if (reason := request.journal.refusal()) is not None:
                return NoProposal(reason=reason, exhausted=False, proposer=self.name, unfinished=True)
            self.sent += 1
            self.asked.release()
            assert self.may_answer.acquire(timeout=WAIT_SECONDS)
            step = self.script.pop(0)
            booking = request.journal.open_answer(1, key, USAGE)
            request.journal.close_answer(booking, USAGE, step)
        if step[0] == "raise":
            raise ProposerError(step[1])
        if step[0] == "nothing":
            return NoProposal(reason=step[1], exhausted=False, proposer=self.name, transcript={"said": step[1]})
        edit = Replace(path="workload/train.py", old=step[0], new=step[1])
        return Proposal(hypothesis=f"{step[0]} → {step[1]}", edits=(edit,), proposer=self.name, transcript=step)


@pytest.fixture
def lab(tmp_path):
    with laboratory(make_repository(tmp_path / "repository")) as opened:
        yield opened


@pytest.fixture
def desk_of(lab):
    """Open desks; every one is closed in the end."""
    opened = []

    def make(proposer, **options):
        desk = IdeaQueue(lab, proposer, lab.ledger.campaign(TAG), 0.0, **options)
        opened.append((desk, proposer))
        return desk

    yield make
    for desk, proposer in opened:
        proposer.may_answer.release(10)
        desk.close()


def close(lab, number, verdict):
    """Give an experiment its verdict, and a keep its commit."""
    experiment = lab.ledger.experiment(TAG, number)
    bpb = 2.0 - number * 0.1 if verdict is Verdict.KEEP else None
    lab.ledger.close_experiment(TAG, number, verdict=verdict, reason="scripted", val_bpb=bpb)
    if verdict is Verdict.KEEP:
        files = candidate_files(lab, lab.ledger.campaign(TAG), experiment)
        parent = lab.ledger.experiment(TAG, experiment.champion).kept_commit
        staged = lab.repository.stage(
            parent=parent, files=files, message="m", ref=tried_ref(TAG, number), when=experiment.started_at
        )
        lab.ledger.set_kept(TAG, number, staged[0])


def train(lab, number):
    """`workload/train.py` of an experiment."""
    experiment = lab.ledger.experiment(TAG, number)
    return candidate_files(lab, lab.ledger.campaign(TAG), experiment)["workload/train.py"].decode()


def begin(desk, proposer):
    """The first experiment, and the question about the next one is on its way."""
    proposer.may_answer.release()
    assert desk.propose() == 1
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    desk.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)


def test_the_next_idea_is_asked_for_while_one_runs_and_waits_for_a_discard(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(proposer)
    begin(desk, proposer)
    ahead = proposer.requests[1]
    assert [one.number for one in ahead.history] == [0]
    assert (ahead.running.number, ahead.running.verdict, ahead.number) == (1, None, 2)
    proposer.may_answer.release()
    close(lab, 1, Verdict.DISCARD)
    assert desk.propose() == 2
    assert proposer.sent == 2
    assert train(lab, 2) == "RATE = 0.02\nSTEPS = 6\n"
    assert lab.ledger.experiment(TAG, 2).cost_usd == 0.25
    assert lab.ledger.transcript(TAG, 2) == ["STEPS = 5", "STEPS = 6"]


def test_an_idea_that_waits_is_put_on_the_new_champion(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(proposer)
    text = "RATE = 0.02\nx = 1\nSTEPS = 5\n"  # a line in between is enough
    relay(lab, text)
    begin(desk, proposer)
    proposer.may_answer.release()
    close(lab, 1, Verdict.KEEP)
    assert desk.propose() == 2
    two = lab.ledger.experiment(TAG, 2)
    assert two.champion == 1
    assert train(lab, 2) == text.replace("0.02", "0.04").replace("5", "6")
    applied = edits.apply(
        lab.repository.read_workload(lab.ledger.experiment(TAG, 1).kept_commit), (Patch(text=two.diff),)
    )
    assert applied["workload/train.py"].decode() == train(lab, 2)


def relay(lab, text):
    """Give the baseline another `workload/train.py`."""
    files = {**lab.repository.read_workload("HEAD"), "workload/train.py": text.encode()}
    commit = lab.repository.stage(
        parent=lab.repository.resolve("HEAD"), files=files, message="m", ref=tried_ref(TAG, 0),
        when="2026-01-01T00:00:00+00:00",
    )[0]  # fmt: skip
    lab.ledger._db.execute("UPDATE experiments SET kept_commit = ? WHERE number = 0", (commit,))


def test_an_idea_that_does_not_fit_the_new_champion_is_asked_for_anew(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("RATE = 0.02", "RATE = 0.03"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(proposer)
    begin(desk, proposer)
    proposer.may_answer.release(2)
    close(lab, 1, Verdict.KEEP)
    assert desk.propose() == 2
    assert proposer.sent == 3
    assert train(lab, 2) == "RATE = 0.04\nSTEPS = 6\n"
    assert [one.number for one in proposer.requests[2].history] == [0, 1]
    assert lab.ledger.cost_usd(TAG) == 0.75
    assert lab.ledger.experiment(TAG, 2).cost_usd == 0.25


def test_a_crash_is_mended_after_the_idea_that_waits(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"), ("RATE = 0.02", "RATE = 0.05"))
    desk = desk_of(proposer)
    begin(desk, proposer)
    proposer.may_answer.release()
    close(lab, 1, Verdict.CRASH)
    assert desk.propose() == 2
    assert lab.ledger.experiment(TAG, 2).retry_of is None
    desk.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    assert proposer.requests[2].failed.number == 1
    proposer.may_answer.release()
    close(lab, 2, Verdict.DISCARD)
    assert desk.propose() == 3
    assert lab.ledger.experiment(TAG, 3).retry_of == 1


def running_mending(lab, desk, proposer):
    """Experiment 1 crashed, 2 was the idea that waited, and 3, the second try of 1, is running."""
    begin(desk, proposer)
    proposer.may_answer.release(2)
    close(lab, 1, Verdict.CRASH)
    assert desk.propose() == 2
    close(lab, 2, Verdict.DISCARD)
    assert desk.propose() == 3
    assert lab.ledger.experiment(TAG, 3).retry_of == 1
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)


def test_a_crash_whose_mending_runs_is_not_asked_about_a_third_time(lab, desk_of):
    script = [("RATE = 0.02", f"RATE = 0.0{digit}") for digit in (4, 5, 6, 7)]
    proposer = Slow(*script)
    desk = desk_of(proposer)
    running_mending(lab, desk, proposer)
    desk.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    ahead = proposer.requests[-1]
    assert (ahead.failed, ahead.running.number, ahead.running.retry_of) == (None, 3, 1)
    proposer.may_answer.release()
    close(lab, 3, Verdict.CRASH)
    assert desk.propose() == 4
    assert lab.ledger.experiment(TAG, 4).retry_of is None


def test_a_mending_that_waits_over_a_restart_is_the_only_one(lab, desk_of):
    """Killed when it was paid for: the next start opens it, and asks for something else while it runs."""
    first = Slow(*(("RATE = 0.02", f"RATE = 0.0{digit}") for digit in (4, 5, 6)))
    desk = desk_of(first)
    begin(desk, first)
    first.may_answer.release()
    close(lab, 1, Verdict.CRASH)
    assert desk.propose() == 2
    first.may_answer.release()
    desk.prefetch()
    desk._thought.thread.join(WAIT_SECONDS)
    close(lab, 2, Verdict.DISCARD)
    second = Slow(("STEPS = 5", "STEPS = 6"))
    restarted = desk_of(second)
    assert restarted.propose() == 3
    assert (second.sent, lab.ledger.experiment(TAG, 3).retry_of) == (0, 1)
    restarted.prefetch()
    assert second.asked.acquire(timeout=WAIT_SECONDS)
    assert second.requests[-1].failed is None


def test_a_crash_that_cannot_be_mended_is_not_asked_about_again(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("nothing", "no idea"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(proposer)
    proposer.may_answer.release(3)
    assert desk.propose() == 1
    close(lab, 1, Verdict.CRASH)
    assert desk.propose() == 2
    assert [one.failed is not None for one in proposer.requests] == [False, True, False]
    close(lab, 2, Verdict.DISCARD)
    proposer.script.append(("STEPS = 5", "STEPS = 7"))
    proposer.may_answer.release()
    assert desk.propose() == 3
    assert proposer.requests[-1].failed is None


def test_what_was_paid_for_ahead_of_time_is_found_by_the_next_start(lab, desk_of):
    """Killed after the verdict: the question is asked on the ground that it had, and its answer recalled."""
    first = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(first)
    begin(desk, first)
    first.may_answer.release()
    desk._thought.thread.join(WAIT_SECONDS)
    close(lab, 1, Verdict.DISCARD)
    second = Slow()
    assert desk_of(second).propose() == 2
    assert second.sent == 0
    assert second.requests[0].running.number == 1
    assert [one.number for one in second.requests[0].history] == [0]
    assert train(lab, 2) == "RATE = 0.02\nSTEPS = 6\n"
    assert lab.ledger.cost_usd(TAG) == 0.5


def test_an_error_of_the_proposer_comes_up_where_its_answer_is_wanted(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("raise", "no credit left"))
    desk = desk_of(proposer)
    begin(desk, proposer)
    proposer.may_answer.release()
    close(lab, 1, Verdict.DISCARD)
    with pytest.raises(ProposerError, match="no credit left"):
        desk.propose()
    assert lab.ledger.conversation(TAG, "slow") is not None, "it goes on when there is credit again"


def test_a_proposer_that_answers_at_once_is_not_asked_ahead(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"))
    proposer.prefetches = False
    desk = desk_of(proposer)
    proposer.may_answer.release()
    assert desk.propose() == 1
    desk.prefetch()
    assert desk._thought is None
    assert lab.ledger.conversation(TAG, "slow") is None


def test_no_proposal_ahead_of_time_is_told_when_it_is_wanted(lab, desk_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("nothing", "declined"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(proposer)
    begin(desk, proposer)
    proposer.may_answer.release(2)
    close(lab, 1, Verdict.DISCARD)
    assert desk.propose().reason == "declined"
    assert desk.propose() == 2


def test_a_desk_that_closes_asks_nothing_more(lab):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    with closing(IdeaQueue(lab, proposer, lab.ledger.campaign(TAG), 0.0)) as desk:
        begin(desk, proposer)
        assert not proposer.requests[1].leaving()
        thread = desk._thought.thread
        proposer.may_answer.release()
    assert not thread.is_alive()
    assert proposer.requests[1].leaving()
    assert proposer.requests[1].journal._stopping()


def test_another_proposer_neither_takes_over_a_conversation_nor_mends_a_crash(lab, desk_of):
    first = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    desk = desk_of(first)
    begin(desk, first)
    first.may_answer.release()
    desk._thought.thread.join(WAIT_SECONDS)
    close(lab, 1, Verdict.CRASH)
    patch = Slow(("STEPS = 5", "STEPS = 9"))
    patch.name = "patch"
    patch.may_answer.release()
    assert desk_of(patch).propose() == 2
    assert patch.requests[0].failed is None
    assert lab.ledger.experiment(TAG, 2).cost_usd == 0.25
    close(lab, 2, Verdict.DISCARD)
    again = Slow()
    assert desk_of(again).propose() == 3
    assert (again.sent, train(lab, 3)) == (0, "RATE = 0.02\nSTEPS = 6\n")


class Checking:
    """Trials at the champion's files twice, and gives up."""

    name, model, prefetches = "checking", "m", False

    def propose(self, request):
        self.found = [request.journal.check(request.files) for _ in range(2)]
        return NoProposal(reason="enough", exhausted=False, proposer=self.name, unfinished=True)


def test_a_check_is_run_once_for_the_same_files_also_after_a_restart(lab):
    ran = []

    def check(_, files, number, leaving):
        assert not leaving()
        ran.append((sorted(files), number))
        return "it failed"

    proposer = Checking()
    for _ in range(2):
        with closing(IdeaQueue(lab, proposer, lab.ledger.campaign(TAG), 0.0, check)) as desk:
            assert desk.propose().reason == "enough"
        assert proposer.found == ["it failed"] * 2
    assert ran == [(["workload/__init__.py", "workload/model.py", "workload/train.py"], 1)]
