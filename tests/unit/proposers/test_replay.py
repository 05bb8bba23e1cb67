"""The replay proposer: patches in name order, their text as the hypothesis, the ledger as the only memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner import edits, proposers
from runner.config import load
from runner.errors import ProposerError
from runner.proposers.replay import ReplayProposer, SinglePatch, read_patch, split
from runner.records import Experiment, NoProposal, Proposal, ProposalRequest, Verdict

FILES = {"workload/model.py": b"WIDTH = 64\n", "workload/train.py": b"RATE = 1\n"}
DIFF = "diff --git a/workload/train.py b/workload/train.py\n--- a/workload/train.py\n+++ b/workload/train.py\n"
DIFF += "@@ -1 +1 @@\n-RATE = 1\n+RATE = 2\n"

MAIL = f"""\
From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: Somebody <somebody@example.org>
Date: Mon, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH 3/8] Raise the rate, =?UTF-8?q?gr=C3=B6=C3=9Fer?= and
 louder

Because it is low.
---
 workload/train.py | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

{DIFF}-- \n2.39.5

"""


def request(*history, failed=None):
    return ProposalRequest(
        number=1, program="", profile="cpu", train_seconds=1, files=FILES, history=history, failed=failed, seed=0,
        journal=None,  # it pays for nothing
    )  # fmt: skip


def row(proposal, number, verdict=Verdict.DISCARD):
    return Experiment(
        number=number,
        hypothesis=proposal.hypothesis,
        proposer=proposal.proposer,
        parameters=proposal.parameters,
        verdict=verdict,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "02-b.patch").write_text("Second.\n\n" + DIFF)
    (tmp_path / "01-a.patch").write_text("First.\n" + DIFF)
    (tmp_path / "10-c.patch").write_text(DIFF)
    (tmp_path / "notes.txt").write_text("no patch")
    (tmp_path / "00.patch").mkdir()
    return tmp_path


def test_patches_come_in_name_order_and_are_remembered_by_the_ledger(folder):
    history = [Experiment(number=0, hypothesis="baseline", proposer="baseline", verdict=Verdict.KEEP)]
    seen = []
    for number in range(1, 4):
        # A new object each time: the state is in the history alone.
        proposal = ReplayProposer(folder).propose(request(*history))
        assert isinstance(proposal, Proposal)
        seen.append(proposal.hypothesis)
        history.append(row(proposal, number, Verdict.CRASH if number == 1 else Verdict.DISCARD))
    assert seen == ["First.", "Second.", "10-c.patch"]
    end = ReplayProposer(folder).propose(request(*history))
    assert isinstance(end, NoProposal) and end.exhausted and "3 patches" in end.reason


def test_rows_of_other_proposers_do_not_count(folder):
    other = Experiment(
        number=1, hypothesis="", proposer="optuna", verdict=Verdict.KEEP, parameters={"replay": 1.0}
    )
    assert ReplayProposer(folder).propose(request(other)).hypothesis == "First."


def test_a_crashed_patch_has_no_second_version(folder):
    proposer = ReplayProposer(folder)
    first = proposer.propose(request())
    again = proposer.propose(request(failed=row(first, 1, Verdict.CRASH)))
    assert isinstance(again, NoProposal) and not again.exhausted


def test_the_edit_is_the_diff_alone_and_applies(folder):
    proposal = ReplayProposer(folder).propose(request())
    assert edits.apply(FILES, proposal.edits)["workload/train.py"] == b"RATE = 2\n"


def test_a_mail_of_format_patch_gives_its_subject_and_message():
    hypothesis, diff = split(MAIL)
    assert hypothesis == "Raise the rate, größer and louder\n\nBecause it is low."
    assert diff.startswith("diff --git") and diff.endswith("-- \n2.39.5\n\n")


def test_such_a_mail_applies(tmp_path):
    (tmp_path / "a.patch").write_text(MAIL)
    assert isinstance(edits.apply(FILES, read_patch(tmp_path / "a.patch").edits), dict)


@pytest.mark.parametrize("subject", ["=?nonsense?q?x?=", "=?UTF-8?b?!!!?=", "=?UTF-8?q?=ff=fe?="])
def test_a_broken_subject_does_no_harm(subject):
    assert split(f"Subject: {subject}\n\n{DIFF}").diff == DIFF


def test_the_diff_may_begin_without_a_git_header():
    plain = DIFF.split("\n", 1)[1]
    assert split("Why not.\n--- not a diff\n" + plain) == ("Why not.\n--- not a diff", plain)


def test_hostile_text_above_the_diff_is_cleaned(tmp_path):
    (tmp_path / "a.patch").write_bytes(
        b"Do \x1b[2Jit\x00 \xe2\x80\xaenow\xff" + b"x" * 5000 + b"\n" + DIFF.encode()
    )
    hypothesis = read_patch(tmp_path / "a.patch").hypothesis
    assert hypothesis.startswith("Do it now\ufffdx") and len(hypothesis) <= 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no unified diff"),
        (b"only text", "no unified diff"),
        (DIFF.encode().replace(b"RATE = 2", b"RATE = '\xff'"), "not UTF-8"),
        (DIFF.encode().replace(b"\n", b"\r\n"), "carriage return"),
        (DIFF.encode() + b"+" * 50_000_000, "at most"),
    ],
)
def test_an_unusable_patch_is_a_proposal_that_is_refused_with_its_reason(tmp_path, data, reason):
    (tmp_path / "a.patch").write_bytes(data)
    proposal = ReplayProposer(tmp_path).propose(request())
    refusal = edits.apply(FILES, proposal.edits)
    assert isinstance(refusal, edits.Refusal) and reason in refusal.reason


def test_a_missing_or_empty_folder_is_reported_at_the_start(tmp_path):
    for folder in (None, tmp_path / "none", tmp_path):
        with pytest.raises(ProposerError) as caught:
            ReplayProposer(folder)
        assert "--from DIR" in caught.value.remedy


def test_a_single_patch_is_proposed_once_whatever_crashed_before(folder):
    proposer = SinglePatch(folder / "01-a.patch")
    crashed = Experiment(number=4, hypothesis="", proposer="optuna", verdict=Verdict.CRASH)
    refused = proposer.propose(request(crashed, failed=crashed))
    assert isinstance(refused, NoProposal) and not refused.exhausted
    proposal = proposer.propose(request(crashed))
    assert (proposal.hypothesis, proposal.proposer) == ("First.", "patch")
    end = proposer.propose(request(crashed))
    assert isinstance(end, NoProposal) and end.exhausted and proposer.used
    with pytest.raises(ProposerError, match="cannot be read"):
        SinglePatch(folder / "none.patch")


def test_a_single_patch_that_does_not_apply_is_no_proposal(folder):
    proposer, other = SinglePatch(folder / "01-a.patch"), {**FILES, "workload/train.py": b"RATE = 5\n"}
    proposer.check(FILES)
    with pytest.raises(ProposerError, match=r"01-a\.patch does not apply to the tip: .*differs") as caught:
        proposer.check(other)
    assert "git diff BRANCH" in caught.value.remedy
    misfit = proposer.propose(replace(request(), files=other))
    assert isinstance(misfit, NoProposal) and misfit.exhausted and not proposer.used
    assert "differs" in misfit.reason


def test_create_makes_it(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("config")
    config = load(empty, {"tag": "t", "proposer": "replay", "replay_from": folder}, environ={})
    proposer = proposers.create(config)
    assert (proposer.name, proposer.model) == ("replay", None)


def test_a_patch_added_in_the_middle_of_a_campaign_is_replayed_and_nothing_twice(folder):
    history = []
    first = ReplayProposer(folder).propose(request(*history))
    history.append(
        Experiment(number=1, hypothesis="", proposer="replay", verdict=Verdict.KEEP, parameters=first.parameters)
    )
    (folder / "00-new.patch").write_text("Before all others.\n\n" + (folder / "01-a.patch").read_text())
    second = ReplayProposer(folder).propose(request(*history))
    assert second.hypothesis.startswith("Before all others.")
    assert second.parameters != first.parameters
