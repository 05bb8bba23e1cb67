"""Never idle: the next idea is asked for while one is measured, and finds its place whatever the verdict is."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import candidate_files, tried_ref
from runner.campaign.certificate import open_certificate
from runner.campaign.exploration import Exploration
from runner.campaign.ideas import IdeaQueue
from runner.errors import ProposerError
from runner.failpoints import Step
from runner.records import Experiment, NoProposal, Patch, Proposal, Replace, Ruling, Usage, Verdict
from tests.support.scripted_controller import TAG, make_repository, record, record_candidate
from tests.support.scripted_controller import campaign as open_campaign
from tests.support.trials import scored

WAIT_SECONDS = 30
USAGE = Usage(
    model="m", request_id=None, input_tokens=1, output_tokens=1, cache_read_tokens=0, cache_write_tokens=0,
    cost_usd=0.25,
)  # fmt: skip


class Slow:
    """Answers when it may; every answer is paid for, and recalled when it was."""

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
def campaign(tmp_path):
    with open_campaign(make_repository(tmp_path / "repository")) as opened:
        yield opened


@pytest.fixture
def queue_of(campaign):
    """Open queues; every one is closed in the end."""
    opened = []

    def make(proposer, *, restarted=False, **options):
        owner = Campaign(campaign.controller, campaign.row) if restarted else campaign
        queue = IdeaQueue(owner, proposer, 0.0, **options)
        opened.append((queue, proposer))
        return queue

    yield make
    for queue, proposer in opened:
        proposer.may_answer.release(10)
        queue.close()


def next_number(queue):
    """Number of the experiment that the next idea opens."""
    opened = queue.next_idea()
    assert isinstance(opened, Experiment), opened
    return opened.number


def close(campaign, number, verdict):
    """Give an experiment its verdict; one that is accepted is measured, and its program is the tip."""
    ruling = Ruling(verdict=verdict, reason="scripted")
    if verdict is Verdict.ACCEPT:
        record_candidate(campaign, number)
        record(campaign, number, scored(2.0 - number * 0.1, campaign.memory.tip.seed))
        ruling = Exploration.open(campaign, campaign.experiments[number]).verdict()
    campaign.close(number, ruling)
    assert verdict is not Verdict.ACCEPT or campaign.tip.number == number


def train(campaign, number):
    """`workload/train.py` of an experiment."""
    experiment = campaign.ledger.experiment(TAG, number)
    return candidate_files(campaign, experiment)["workload/train.py"].decode()


def begin(queue, proposer):
    """The first experiment, and the question about the next one is on its way."""
    proposer.may_answer.release()
    assert next_number(queue) == 1
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    queue.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)


def test_the_next_idea_is_asked_for_while_one_runs_and_waits_for_a_discard(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(proposer)
    begin(queue, proposer)
    ahead = proposer.requests[1]
    assert [one.number for one in ahead.history] == [0]
    assert (ahead.running.number, ahead.running.verdict, ahead.number) == (1, None, 2)
    proposer.may_answer.release()
    close(campaign, 1, Verdict.DISCARD)
    assert next_number(queue) == 2
    assert proposer.sent == 2
    assert train(campaign, 2) == "RATE = 0.02\nSTEPS = 6\n"
    assert campaign.ledger.experiment(TAG, 2).cost_usd == 0.25
    assert campaign.ledger.conversations.transcript(TAG, 2) == ["STEPS = 5", "STEPS = 6"]


def test_an_idea_that_waits_is_put_on_the_new_tip(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(proposer)
    text = "RATE = 0.02\nx = 1\nSTEPS = 5\n"  # a line in between is enough
    relay(campaign, text)
    begin(queue, proposer)
    proposer.may_answer.release()
    close(campaign, 1, Verdict.ACCEPT)
    assert next_number(queue) == 2
    two = campaign.ledger.experiment(TAG, 2)
    assert (two.parent, two.champion) == (1, 0)
    assert train(campaign, 2) == text.replace("0.02", "0.04").replace("5", "6")
    applied = edits.apply(
        campaign.repository.read_workload(campaign.ledger.experiment(TAG, 1).tried_commit), (Patch(text=two.diff),)
    )
    assert applied["workload/train.py"].decode() == train(campaign, 2)


def test_an_idea_that_waits_while_the_tip_is_rolled_back_is_put_on_the_champion(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"), ("STEPS = 5", "STEPS = 7"))
    queue = queue_of(proposer)
    relay(campaign, "RATE = 0.02\nx = 1\nSTEPS = 5\n")
    proposer.may_answer.release()
    assert next_number(queue) == 1
    close(campaign, 1, Verdict.ACCEPT)
    certificate = open_certificate(campaign)
    queue.prefetch()
    proposer.may_answer.release()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS) and proposer.asked.acquire(timeout=WAIT_SECONDS)
    ahead = proposer.requests[1]
    assert ahead.files["workload/train.py"].startswith(b"RATE = 0.04"), "the model sees the tip"
    assert ahead.running.certifies == (1,)
    close(campaign, certificate.number, Verdict.DISCARD)
    assert next_number(queue) == 3
    assert campaign.experiments[3].parent == 0
    assert train(campaign, 3) == "RATE = 0.02\nx = 1\nSTEPS = 6\n"


def relay(campaign, text):
    """Give the baseline another `workload/train.py`."""
    files = {**campaign.repository.read_workload("HEAD"), "workload/train.py": text.encode()}
    staged = campaign.repository.stage(
        parent=campaign.repository.resolve("HEAD"), files=files, message="m", ref=tried_ref(TAG, 0),
        when="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    with campaign.ledger.database.transaction(Step.KEEP_RECORDED) as db:
        db.execute("UPDATE experiments SET kept_commit = ? WHERE number = 0", (staged.commit,))
    campaign.reload(0)


def test_an_idea_that_does_not_fit_the_new_tip_is_asked_for_anew(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("RATE = 0.02", "RATE = 0.03"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(proposer)
    begin(queue, proposer)
    proposer.may_answer.release(2)
    close(campaign, 1, Verdict.ACCEPT)
    assert next_number(queue) == 2
    assert proposer.sent == 3
    assert train(campaign, 2) == "RATE = 0.04\nSTEPS = 6\n"
    assert [one.number for one in proposer.requests[2].history] == [0, 1]
    assert campaign.ledger.conversations.campaign_cost_usd(TAG) == 0.75
    assert campaign.ledger.experiment(TAG, 2).cost_usd == 0.25


def test_a_crash_is_repaired_after_the_idea_that_waits(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"), ("RATE = 0.02", "RATE = 0.05"))
    queue = queue_of(proposer)
    begin(queue, proposer)
    proposer.may_answer.release()
    close(campaign, 1, Verdict.CRASH)
    assert next_number(queue) == 2
    assert campaign.ledger.experiment(TAG, 2).retry_of is None
    queue.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    assert proposer.requests[2].failed.number == 1
    proposer.may_answer.release()
    close(campaign, 2, Verdict.DISCARD)
    assert next_number(queue) == 3
    assert campaign.ledger.experiment(TAG, 3).retry_of == 1


def running_repair(campaign, queue, proposer):
    """Experiment 1 crashed, 2 was the idea that waited, and 3, the second try of 1, is running."""
    begin(queue, proposer)
    proposer.may_answer.release(2)
    close(campaign, 1, Verdict.CRASH)
    assert next_number(queue) == 2
    close(campaign, 2, Verdict.DISCARD)
    assert next_number(queue) == 3
    assert campaign.ledger.experiment(TAG, 3).retry_of == 1
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)


def test_a_crash_whose_repair_runs_is_not_asked_about_a_third_time(campaign, queue_of):
    script = [("RATE = 0.02", f"RATE = 0.0{digit}") for digit in (4, 5, 6, 7)]
    proposer = Slow(*script)
    queue = queue_of(proposer)
    running_repair(campaign, queue, proposer)
    queue.prefetch()
    assert proposer.asked.acquire(timeout=WAIT_SECONDS)
    ahead = proposer.requests[-1]
    assert (ahead.failed, ahead.running.number, ahead.running.retry_of) == (None, 3, 1)
    proposer.may_answer.release()
    close(campaign, 3, Verdict.CRASH)
    assert next_number(queue) == 4
    assert campaign.ledger.experiment(TAG, 4).retry_of is None


def test_a_repair_that_waits_over_a_restart_is_the_only_one(campaign, queue_of):
    """Killed when it was paid for: the next start opens it, and asks for something else while it runs."""
    first = Slow(*(("RATE = 0.02", f"RATE = 0.0{digit}") for digit in (4, 5, 6)))
    queue = queue_of(first)
    begin(queue, first)
    first.may_answer.release()
    close(campaign, 1, Verdict.CRASH)
    assert next_number(queue) == 2
    first.may_answer.release()
    queue.prefetch()
    queue._prefetched.thread.join(WAIT_SECONDS)
    close(campaign, 2, Verdict.DISCARD)
    second = Slow(("STEPS = 5", "STEPS = 6"))
    restarted = queue_of(second, restarted=True)
    assert next_number(restarted) == 3
    assert (second.sent, campaign.ledger.experiment(TAG, 3).retry_of) == (0, 1)
    restarted.prefetch()
    assert second.asked.acquire(timeout=WAIT_SECONDS)
    assert second.requests[-1].failed is None


def test_a_crash_that_cannot_be_repaired_is_not_asked_about_again(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("nothing", "no idea"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(proposer)
    proposer.may_answer.release(3)
    assert next_number(queue) == 1
    close(campaign, 1, Verdict.CRASH)
    assert next_number(queue) == 2
    assert [one.failed is not None for one in proposer.requests] == [False, True, False]
    close(campaign, 2, Verdict.DISCARD)
    proposer.script.append(("STEPS = 5", "STEPS = 7"))
    proposer.may_answer.release()
    assert next_number(queue) == 3
    assert proposer.requests[-1].failed is None


def test_an_answer_that_was_paid_for_ahead_of_time_is_found_by_the_next_start(campaign, queue_of):
    """Killed after the verdict: the question is asked on the basis that it had, and its answer recalled."""
    first = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(first)
    begin(queue, first)
    first.may_answer.release()
    queue._prefetched.thread.join(WAIT_SECONDS)
    close(campaign, 1, Verdict.DISCARD)
    second = Slow()
    assert next_number(queue_of(second, restarted=True)) == 2
    assert second.sent == 0
    assert second.requests[0].running.number == 1
    assert [one.number for one in second.requests[0].history] == [0]
    assert train(campaign, 2) == "RATE = 0.02\nSTEPS = 6\n"
    assert campaign.ledger.conversations.campaign_cost_usd(TAG) == 0.5


def test_an_error_of_the_proposer_comes_up_where_its_answer_is_wanted(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("raise", "no credit left"))
    queue = queue_of(proposer)
    begin(queue, proposer)
    proposer.may_answer.release()
    close(campaign, 1, Verdict.DISCARD)
    with pytest.raises(ProposerError, match="no credit left"):
        queue.next_idea()
    assert campaign.ledger.conversations.ongoing(TAG, "slow") is not None, "it goes on when there is credit again"


def test_a_proposer_that_answers_at_once_is_not_asked_ahead(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"))
    proposer.prefetches = False
    queue = queue_of(proposer)
    proposer.may_answer.release()
    assert next_number(queue) == 1
    queue.prefetch()
    assert queue._prefetched is None
    assert campaign.ledger.conversations.ongoing(TAG, "slow") is None


def test_no_proposal_ahead_of_time_is_reported_when_one_is_wanted(campaign, queue_of):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("nothing", "declined"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(proposer)
    begin(queue, proposer)
    proposer.may_answer.release(2)
    close(campaign, 1, Verdict.DISCARD)
    assert queue.next_idea().reason == "declined"
    assert next_number(queue) == 2


def test_a_queue_that_closes_asks_nothing_more(campaign):
    proposer = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    with closing(IdeaQueue(campaign, proposer, 0.0)) as queue:
        begin(queue, proposer)
        assert not proposer.requests[1].leaving()
        thread = queue._prefetched.thread
        proposer.may_answer.release()
    assert not thread.is_alive()
    assert proposer.requests[1].leaving()
    assert proposer.requests[1].journal._stopping()


def test_another_proposer_neither_takes_over_a_conversation_nor_repairs_a_crash(campaign, queue_of):
    first = Slow(("RATE = 0.02", "RATE = 0.04"), ("STEPS = 5", "STEPS = 6"))
    queue = queue_of(first)
    begin(queue, first)
    first.may_answer.release()
    queue._prefetched.thread.join(WAIT_SECONDS)
    close(campaign, 1, Verdict.CRASH)
    patch = Slow(("STEPS = 5", "STEPS = 9"))
    patch.name = "patch"
    patch.may_answer.release()
    assert next_number(queue_of(patch, restarted=True)) == 2
    assert patch.requests[0].failed is None
    assert campaign.ledger.experiment(TAG, 2).cost_usd == 0.25
    close(campaign, 2, Verdict.DISCARD)
    again = Slow()
    assert next_number(queue_of(again, restarted=True)) == 3
    assert (again.sent, train(campaign, 3)) == (0, "RATE = 0.02\nSTEPS = 6\n")


class Checking:
    """Checks the champion's files twice, and gives up."""

    name, model, prefetches = "checking", "m", False

    def propose(self, request):
        self.found = [request.journal.check(request.files) for _ in range(2)]
        return NoProposal(reason="enough", exhausted=False, proposer=self.name, unfinished=True)


def test_a_check_is_run_once_for_the_same_files_also_after_a_restart(campaign):
    ran = []

    def check(_, files, number, leaving):
        assert not leaving()
        ran.append((sorted(files), number))
        return "it failed"

    proposer = Checking()
    for _ in range(2):
        with closing(IdeaQueue(campaign, proposer, 0.0, check)) as queue:
            assert queue.next_idea().reason == "enough"
        assert proposer.found == ["it failed"] * 2
    assert ran == [(["workload/__init__.py", "workload/model.py", "workload/train.py"], 1)]
