"""Nights with real git, real images and real containers, on a tiny model and a tiny data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.campaign import night as campaign
from runner.campaign.studies import reproduce
from runner.errors import ProposerError
from runner.proposers.replay import read_patch
from runner.records import NoProposal, Patch, Proposal, Replace, Verdict, Write
from tests.support.constant_workload import TRAIN, boost, git
from tests.support.engine_night import run
from tests.support.fake_proposers import ScriptedProposer, paying
from tests.support.machine import changed

pytestmark = pytest.mark.docker


def test_a_night_keeps_what_is_better_and_throws_away_the_rest(measured_controller):
    controller, repository = measured_controller, measured_controller.repository
    before = (git(repository.root, "status", "--porcelain"), git(repository.root, "rev-parse", "HEAD"))
    crash = Proposal(
        hypothesis="divide by zero",
        edits=(Replace(path="workload/train.py", old="BOOST = 1.0", new="BOOST = 1 / 0"),),
        proposer="scripted",
    )
    outside = Proposal(hypothesis="escape", edits=(Write(path="runner/x.py", content=""),), proposer="scripted")
    cheat = Proposal(
        hypothesis="print a score",
        edits=(Write(path="workload/train.py", content="print('val_bpb: 0.0')\n"),),
        proposer="scripted",
    )
    positive = Proposal(
        hypothesis="claim more than certainty",
        edits=(
            Replace(
                path="workload/model.py",
                old="import torch\n",
                new="import torch\nfrom locked_eval.container import scorer\nscorer._claims = "
                "lambda candidate, batch: b'\\x00\\x00\\x80\\x3f' * batch[:, 1:].numel()\n",
            ),
        ),
        proposer="scripted",
    )
    reason, rows, proposer = run(
        changed(controller, experiments=8),
        [boost(3.0), boost(0.0), outside, crash, boost(0.0, before=0.0), cheat, cheat, positive],
        by_number=False,
        more=None,
    )
    assert reason == "8 of 8 experiments done"
    assert [row.verdict for row in rows] == [
        Verdict.KEEP,  # baseline
        Verdict.DISCARD,
        Verdict.ACCEPT,
        Verdict.KEEP,  # its certificate
        Verdict.INVALID,
        Verdict.INVALID,  # "BOOST = 1.0" is gone since the keep: does not apply
        Verdict.INVALID,  # changes nothing
        Verdict.CRASH,
        Verdict.CRASH,  # the one retry
        Verdict.INVALID,
    ]
    assert rows[7].reason == "no checkpoint was published"
    assert rows[8].retry_of == 7
    assert "probabilities above 1" in rows[9].reason
    assert rows[7].val_bpb is None and rows[9].val_bpb is None

    # The branch holds the one improvement, and every number on it is in the ledger.
    log = git(repository.root, "log", "--format=%H", "main..autoresearch/test").split()
    assert log == [rows[3].kept_commit]
    body = git(repository.root, "log", "-1", "--format=%B", log[0])
    assert f"Val-Bpb: {rows[3].val_bpb:.6f}" in body
    assert f"Candidate: {rows[3].tried_commit}" in body
    assert f"Image: {rows[3].image_id}" in body
    assert f"Layer: {rows[3].layer_digest}" in body
    assert git(repository.root, "show", f"{log[0]}:workload/train.py") == TRAIN.replace(
        "BOOST = 1.0", "BOOST = 0.0"
    )

    # Everything that could be staged is a commit under its ref; the checkout was not touched.
    tried = git(repository.root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/tried").split()
    assert tried == [row.tried_commit for row in rows if row.tried_commit]
    assert (git(repository.root, "status", "--porcelain"), git(repository.root, "rev-parse", "HEAD")) == before

    # What the proposer was shown: the crash to fix, with its log.
    retry = proposer.requests[6]
    assert retry.failed is not None and retry.failed.number == 7
    assert "val_bpb: 0.0" in retry.failed.log_tail
    assert [request.failed for request in proposer.requests[:6]] == [None] * 6

    # Any kept commit can be reproduced from its image, and from its commit when the image is gone.
    again = reproduce.reproduce(controller, log[0][:10])
    assert again.agrees and not again.rebuilt
    controller.evaluator.engine.client.api.remove_image(rows[3].image_id, force=True)
    rebuilt = reproduce.reproduce(controller, rows[3].tried_commit)
    assert rebuilt.agrees and rebuilt.rebuilt and rebuilt.same_layer
    assert controller.ledger.experiments("test") == rows, "a reproduction changes no record"


def test_money_and_empty_conversations_end_a_night(measured_controller, monkeypatch):
    controller = measured_controller
    nothing = paying(7.0, NoProposal(reason="no idea", exhausted=False, proposer="scripted"))
    reason, rows, _ = run(controller, [nothing, nothing, nothing], by_number=False, more=None)
    assert (
        reason == "another answer may exceed the budget of $20.00 ($14.00 spent, the most expensive one was $7.00)"
    )
    assert len(rows) == 1
    controller.ledger.database._db.execute("DELETE FROM usage")
    monkeypatch.setattr(campaign, "EMPTY_PAUSES_SECONDS", (0.0, 0.0))
    free = NoProposal(reason="no idea", exhausted=False, proposer="scripted")
    with pytest.raises(ProposerError, match="no idea"):
        run(controller, [free] * 9, by_number=False, more=None)


def test_a_stop_by_hand_ends_the_night_before_the_next_proposal(measured_controller):
    controller = measured_controller
    stop = campaign.StopSwitch()

    def last(_request):
        stop.requested = True
        return boost(2.0)

    proposer = ScriptedProposer([last, boost(3.0)])
    assert campaign.run(controller, proposer, stop, more=5) == "stopped by hand"
    assert [row.verdict for row in controller.ledger.experiments("test")] == [Verdict.KEEP, Verdict.DISCARD]


def test_a_patch_file_becomes_an_experiment(measured_controller, tmp_path):
    patch = tmp_path / "idea.patch"
    patch.write_text(
        "Less of token 0\n\n--- a/workload/train.py\n+++ b/workload/train.py\n@@ -7 +7 @@\n"
        "-BOOST = 1.0  # logit of token 0\n+BOOST = 0.1  # logit of token 0\n"
    )
    proposal = read_patch(patch)
    assert isinstance(proposal.edits[0], Patch)
    _, rows, _ = run(measured_controller, [proposal])
    assert (rows[1].hypothesis, rows[1].verdict) == ("Less of token 0", Verdict.ACCEPT)
    assert Path(patch).exists()
