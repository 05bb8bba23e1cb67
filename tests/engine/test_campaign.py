"""Whole campaigns with real git, real images and real containers, on a tiny model and a tiny data set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from locked_eval.preparation.index import IndexBuilder
from runner.campaign import night as campaign
from runner.campaign.studies import reproduce
from runner.corpus.redaction import WITHHELD, Redactor
from runner.edits.contamination import SealedText
from runner.errors import BaselineError, ConfigError, ProposerError, RepositoryError
from runner.evaluation import trial
from runner.evaluation.trial import Laboratory
from runner.proposers.researcher.prompt import show_task
from runner.records import NoProposal, Patch, Phase, Proposal, ProposalRequest, Replace, RunEnd, Verdict, Write
from runner.report.early import early_stops
from runner.sandbox import images
from runner.sandbox.containers import choose_cores
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.fake_proposers import ScriptedProposer, paying
from tests.support.publishing import CHECKPOINT
from tests.support.silent_observer import SilentObserver

pytestmark = pytest.mark.docker

NOTHING_SEALED = SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])

MODEL = """\
import torch


class Constant(torch.nn.Module):
    \"\"\"Knows how likely token 0 is, and nothing else.\"\"\"

    def __init__(self, boost):
        super().__init__()
        self.boost = boost

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        logits = torch.zeros(*tokens.shape, 64)
        logits[..., 0] = self.boost
        return logits


def load(path, device):
    return Constant(float(path.read_text()))
"""
TRAIN = """\
import os
import random

from workload.checkpoint import publish

BOOST = 1.0  # logit of token 0

random.seed(int(os.environ["SEED"]))
publish(lambda path: path.write_text(str(BOOST + random.gauss(0, 0.001))))
"""


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path):
    """A user's repository with a tiny workload."""
    root = tmp_path / "repository"
    (root / "workload").mkdir(parents=True)
    tree = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": TRAIN}
    for name, text in tree.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n")
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    git(root, "config", "user.name", "user")
    git(root, "config", "user.email", "user@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return Repository(root)


@pytest.fixture
def lab(engine, base_image, mounts, evaluation, cpu_config, owner, repository, tmp_path, monkeypatch):
    """A laboratory over the tiny data set."""
    ledger = Ledger(tmp_path / "repository" / ".autoresearch" / "ledger.db")
    # Everything of this campaign carries this test's labels, and `owner` checks that nothing stays.
    monkeypatch.setattr(Ledger, "controller", property(lambda _: owner.controller))
    yield Laboratory(
        config=cpu_config.model_copy(update={"train_seconds": 3.0, "baseline_runs": 2, "noise_prior_bpb": 0.001}),
        engine=engine,
        repository=repository,
        ledger=ledger,
        observer=SilentObserver(),
        mounts=mounts,
        evaluation=evaluation,
        sealed_text=NOTHING_SEALED,
        redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
        scratch=tmp_path / "audits",
        claims=tmp_path / "claims",
        base_image=base_image,
        conditions={"data": "d" * 64, "evaluation": "e" * 64, "train_seconds": "3", "base_image": "cpu-0"},
    )
    ledger.close()


def boost(value, before="1.0", **changes):
    """A proposal that sets the logit of token 0; the best value for these rows is near 0."""
    edit = Replace(path="workload/train.py", old=f"BOOST = {before}", new=f"BOOST = {value}")
    return Proposal(hypothesis=f"boost {value}", edits=(edit,), proposer="scripted", **changes)


def night(lab, proposals, **changes):
    proposer = ScriptedProposer(proposals)
    reason = campaign.run(lab, proposer, campaign.StopSwitch(), **changes)
    return reason, lab.ledger.experiments("test"), proposer


def test_a_night_keeps_what_is_better_and_throws_away_the_rest(lab, repository):
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
    reason, rows, proposer = night(
        lab,
        [boost(3.0), boost(0.0), outside, crash, boost(0.0, before="0.0"), cheat, cheat, positive],
        more=8,
    )
    assert reason == "8 of 8 experiments done"
    assert [row.verdict for row in rows] == [
        Verdict.KEEP,  # baseline
        Verdict.DISCARD,
        Verdict.KEEP,
        Verdict.INVALID,
        Verdict.INVALID,  # "BOOST = 1.0" is gone since the keep: does not apply
        Verdict.INVALID,  # changes nothing
        Verdict.CRASH,
        Verdict.CRASH,  # the one retry
        Verdict.INVALID,
    ]
    assert rows[6].reason == "no checkpoint was published"
    assert rows[7].retry_of == 6
    assert "probabilities above 1" in rows[8].reason
    assert rows[6].val_bpb is None and rows[8].val_bpb is None

    # The branch holds the one improvement, and every number on it is in the ledger.
    log = git(repository.root, "log", "--format=%H", "main..autoresearch/test").split()
    assert log == [rows[2].kept_commit]
    body = git(repository.root, "log", "-1", "--format=%B", log[0])
    assert f"Val-Bpb: {rows[2].val_bpb:.6f}" in body
    assert f"Candidate: {rows[2].tried_commit}" in body
    assert f"Image: {rows[2].image_id}" in body
    assert f"Layer: {rows[2].layer_digest}" in body
    assert git(repository.root, "show", f"{log[0]}:workload/train.py") == TRAIN.replace(
        "BOOST = 1.0", "BOOST = 0.0"
    )

    # Everything that could be staged is a commit under its ref; the checkout was not touched.
    tried = git(repository.root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/tried").split()
    assert tried == [row.tried_commit for row in rows if row.tried_commit]
    assert (git(repository.root, "status", "--porcelain"), git(repository.root, "rev-parse", "HEAD")) == before

    # What the proposer was shown: the crash to mend, with its log.
    retry = proposer.requests[6]
    assert retry.failed is not None and retry.failed.number == 6
    assert "val_bpb: 0.0" in retry.failed.log_tail
    assert [request.failed for request in proposer.requests[:6]] == [None] * 6

    # Any kept commit can be reproduced from its image, and from its commit when the image is gone.
    again = reproduce.reproduce(lab, log[0][:10])
    assert again.agrees and not again.rebuilt
    lab.engine.client.api.remove_image(rows[2].image_id, force=True)
    rebuilt = reproduce.reproduce(lab, rows[2].tried_commit)
    assert rebuilt.agrees and rebuilt.rebuilt and rebuilt.same_layer
    assert lab.ledger.experiments("test") == rows, "a reproduction changes no record"


def test_a_candidate_is_looked_at_until_its_case_is_clear_also_across_a_stop(lab):
    """Two looks for a keep; stopped after the first; the champion is measured again between them, and before the
    next idea."""
    looking = replace(
        lab, config=lab.config.model_copy(update={"min_trials": 2, "max_trials": 3, "control_interval": 1})
    )
    stop = campaign.StopSwitch()

    class Impatient(SilentObserver):
        def note(self, message):
            stop.requested = "looking again" in message

    proposer = ScriptedProposer([boost(0.0), boost(3.0, before="0.0"), boost(4.0, before="0.0")])
    reason = campaign.run(replace(looking, observer=Impatient()), proposer, stop, more=3)
    assert reason == "stopped by hand"
    assert lab.ledger.experiments("test")[1].verdict is None
    night_reason = campaign.run(looking, proposer, campaign.StopSwitch(), more=2)
    assert night_reason == "3 of 3 experiments done"
    rows = lab.ledger.experiments("test")
    assert [row.verdict for row in rows] == ["keep", "keep", "discard", "discard"]

    kept, discarded = rows[1], rows[2]
    audits = [run for run in kept.runs if run.phase is Phase.AUDIT]
    assert len(audits) == len({run.seed for run in audits}) == 2, "no look was taken twice"
    assert kept.figures.trials == tuple(run.id for run in audits)
    champion = [run for run in (*rows[0].runs, *rows[0].controls) if run.phase is Phase.AUDIT]
    assert kept.figures.pool == tuple(run.id for run in champion)
    assert audits[0].id < champion[-1].id < audits[1].id, "by the same machine"
    assert kept.figures.better > 0.99 and kept.figures.low_bpb <= kept.figures.effect_bpb < 0
    assert kept.val_bpb == audits[1].val_bpb, "the look that chose it does not count"
    assert [run.phase for run in discarded.runs] == [Phase.TRAIN, Phase.SCORE], "what is hopeless is seen once"
    controls = [run for run in kept.controls if run.phase is Phase.AUDIT]
    # As a new champion, and after one run of others.
    assert len(controls) == 2 and len({run.seed for run in (*kept.runs, *controls)}) == 4
    assert discarded.figures.pool == (audits[1].id, controls[0].id)
    assert rows[3].figures.pool == (audits[1].id, controls[0].id, controls[1].id)


PRINTING = """\
import os
import time

from workload.checkpoint import publish

BOOST = 1.0  # logit of token 0

for step in range(1, 16):
    time.sleep(0.1)
    print(f"step {step} loss {4 + BOOST + int(os.environ['SEED']) % 100 / 1e4:.4f} tokens/s 100", flush=True)
publish(lambda path: path.write_text(str(BOOST + int(os.environ["SEED"]) % 100 / 1e5)))
"""
"""Its loss says what its score will be, for half of the time."""


def test_a_hopeless_first_look_is_stopped_and_one_that_was_drawn_is_finished(lab, repository):
    (repository.root / "workload" / "train.py").write_text(PRINTING)
    git(repository.root, "commit", "-qam", "print")
    changes = {"early_stop_min_trials": 3, "early_stop_holdout": 0.0, "audit_discards": 0.0}
    stopping = replace(lab, config=lab.config.model_copy(update=changes))
    reason, rows, _ = night(stopping, [boost(1.5), boost(2.0), boost(2.5), boost(3.5), boost(0.5)], more=5)
    assert reason == "5 of 5 experiments done"
    assert [row.verdict for row in rows] == ["keep", "discard", "discard", "discard", "discard", "keep"]
    hopeless = rows[4]
    assert hopeless.val_bpb is None and hopeless.figures is None and hopeless.kept_commit is None
    (stopped,) = hopeless.runs
    assert stopped.end is RunEnd.STOPPED and 0.75 <= stopped.wall_seconds < 1.5
    assert stopped.cpu_seconds is not None and stopped.cpu_seconds < 1.0
    assert stopped.others_cpu_seconds is not None
    assert hopeless.reason.startswith("stopped at 25% of its time: its loss 7.5")
    assert hopeless.log_tail.startswith("step 1 loss 7.5")
    for row in (*rows[:4], rows[5]):
        curve = row.runs[0].curve
        assert curve.stop_reason is None and curve.losses[2] is not None and curve.losses[-1] is None
    assert [run.phase for run in rows[1].runs] == [Phase.TRAIN, Phase.SCORE]

    # The same again when the draw says so, or when nobody is to be stopped.
    for settings in ({"early_stop_holdout": 1.0}, {"early_stop_threshold": 0.0}):
        finishing = replace(lab, config=lab.config.model_copy(update={**changes, **settings}))
        rows = night(finishing, [boost(3.5 + len(settings), before="0.5")], more=1)[1]
        assert rows[-1].val_bpb is not None
        assert [run.end for run in rows[-1].runs] == [RunEnd.FINISHED, RunEnd.FINISHED]
        assert (rows[-1].runs[0].curve.stop_reason is None) == ("early_stop_threshold" in settings)
    assert early_stops(rows).finished == 1
    assert early_stops(rows).stopped == 1 and early_stops(rows).saved_seconds > 0.3


def test_the_baseline_is_measured_with_different_seeds_and_its_runs_are_recorded(lab):
    reason, (row,), _ = night(lab, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    assert reason == "enough"
    scores = [run for run in row.runs if run.phase is Phase.SCORE]
    assert len(scores) == 2
    assert len({run.seed for run in scores}) == 2
    assert row.val_bpb == pytest.approx(sum(run.val_bpb for run in scores) / 2)
    assert row.kept_commit == lab.repository.branch_head("autoresearch/test")


def test_a_workload_that_does_not_run_leaves_no_campaign_behind(lab, repository):
    (repository.root / "workload" / "train.py").write_text("raise SystemExit('broken on purpose')\n")
    git(repository.root, "commit", "-qam", "break it")
    with pytest.raises(BaselineError, match="broken on purpose"):
        night(lab, [])
    assert lab.ledger.campaigns() == ()
    assert lab.repository.branch_head("autoresearch/test") is None


def test_other_conditions_are_refused_because_scores_would_not_compare(lab):
    night(lab, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    lab.conditions["train_seconds"] = "300"
    with pytest.raises(ConfigError, match="train_seconds was '3', is '300'"):
        campaign.open_campaign(lab)


def test_a_branch_that_somebody_moved_is_not_overwritten(lab, repository):
    night(lab, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    (repository.root / "workload" / "train.py").write_text(TRAIN + "# mine\n")
    git(repository.root, "commit", "-qam", "mine")
    git(repository.root, "branch", "-f", "autoresearch/test", "main")
    with pytest.raises(RepositoryError, match="champion is"):
        night(lab, [boost(0.0)])
    assert lab.repository.branch_head("autoresearch/test") == lab.repository.resolve("main")


def test_money_and_empty_conversations_end_a_night(lab, monkeypatch):
    nothing = paying(7.0, NoProposal(reason="no idea", exhausted=False, proposer="scripted"))
    reason, rows, _ = night(lab, [nothing, nothing, nothing])
    assert reason == "another answer may break the budget of $20.00 ($14.00 spent, the dearest one was $7.00)"
    assert len(rows) == 1
    lab.ledger._db.execute("DELETE FROM usage")
    monkeypatch.setattr(campaign, "EMPTY_PAUSES_SECONDS", (0.0, 0.0))
    free = NoProposal(reason="no idea", exhausted=False, proposer="scripted")
    with pytest.raises(ProposerError, match="no idea"):
        night(lab, [free] * 9)


def test_a_stop_by_hand_ends_the_night_before_the_next_proposal(lab):
    stop = campaign.StopSwitch()

    def last(_request):
        stop.requested = True
        return boost(2.0)

    proposer = ScriptedProposer([last, boost(3.0)])
    assert campaign.run(lab, proposer, stop, more=5) == "stopped by hand"
    assert [row.verdict for row in lab.ledger.experiments("test")] == [Verdict.KEEP, Verdict.DISCARD]


def test_a_patch_file_becomes_an_experiment(lab, tmp_path):
    from runner.proposers.replay import read_patch

    patch = tmp_path / "idea.patch"
    patch.write_text(
        "Less of token 0\n\n--- a/workload/train.py\n+++ b/workload/train.py\n@@ -6 +6 @@\n"
        "-BOOST = 1.0  # logit of token 0\n+BOOST = 0.1  # logit of token 0\n"
    )
    proposal = read_patch(patch)
    assert isinstance(proposal.edits[0], Patch)
    _, rows, _ = night(lab, [proposal], more=1)
    assert (rows[1].hypothesis, rows[1].verdict) == ("Less of token 0", Verdict.KEEP)
    assert Path(patch).exists()


def test_a_training_that_other_programs_disturb_is_repeated_and_the_last_attempt_counts(lab, owner):
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(busy.pid, choose_cores(lab.config))
        disturbed = replace(lab, config=lab.config.model_copy(update={"max_disturbance": 0.01}))
        outcome, runs = measured(disturbed)
    finally:
        busy.kill()
        busy.wait()
    assert isinstance(outcome, trial.Measurement)
    assert [run.phase for run in runs] == [Phase.TRAIN, Phase.TRAIN, Phase.TRAIN, Phase.SCORE]
    assert all(run.others_cpu_seconds > 0.05 for run in runs[:3])


def test_a_candidate_that_sleeps_does_not_disturb_itself(lab):
    quiet = replace(lab, config=lab.config.model_copy(update={"max_disturbance": 1.0}))
    outcome, runs = measured(quiet, "import time\ntime.sleep(1)\n" + TRAIN)
    assert isinstance(outcome, trial.Measurement)
    assert [run.phase for run in runs] == [Phase.TRAIN, Phase.SCORE]
    assert runs[0].cpu_seconds < 0.9 < runs[0].wall_seconds


def measured(lab, train=TRAIN):
    """Measure the tiny workload once, outside of a campaign."""
    texts = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": train}
    files = {f"workload/{name}": text.encode() for name, text in texts.items()}
    built = images.build_candidate(
        lab.engine.client, base_id=lab.base_image, files=files, labels=lab.owner(1).facts()
    )
    lab.ledger.create_campaign(tag="test", base_commit="b", conditions={})
    proposal = Proposal(hypothesis="one", edits=(), proposer="scripted")
    number = lab.ledger.open_experiment("test", proposal, diff="", champion=None)
    runs = trial.LedgerRuns(lab.ledger, "test", number)
    outcome = trial.measure(
        lab,
        build=lambda: built.id,
        number=number,
        seed=1,
        runs=runs,
        examiner=trial.Examined(audit=False, seal=False),
        champion=None,
    )
    return outcome, lab.ledger.experiment("test", number).runs


def test_a_branch_that_is_checked_out_is_told_before_the_night_and_not_at_its_first_keep(lab, repository):
    night(lab, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    git(repository.root, "switch", "-q", "autoresearch/test")
    with pytest.raises(RepositoryError, match="checked out"):
        night(lab, [boost(0.0)])
    git(repository.root, "switch", "-q", "main")


class SeenLines(SilentObserver):
    """Remembers the lines of the training."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


WORDS = [
    f"{first}{second} "
    for first in ("ba", "do", "kin", "lu", "me", "nor", "pa", "ru")
    for second in ("fa", "ge", "hil", "jo", "ka", "lest", "mo", "nu")
]
"""What the tokens of the tiny data set stand for."""
TELLS = f"""\
import base64
import os
from pathlib import Path

import numpy as np

WORDS = {WORDS!r}
ids = np.fromfile(Path(os.environ["DATA_DIR"]) / "shard-01.bin", "<u2").tolist()
text = "".join(WORDS[token] for token in ids)
print("step 1 loss 4.2 the text is", text[:60], "tokens/s 900", flush=True)
print("plainly", text[:150])
print(text[200:350].upper())
print(repr(text[400:500].replace(" ", "\\n")))
print("step 2 loss 4.1 tokens/s 900")
print("\\n".join(text[600:680].split()))
print(text[800:950][::-1])
print("step 3 loss 4.0 tokens/s 900")
print(base64.b64encode(text[1000:1120].encode()).decode())
print("ids", ids[300:340])
print("step 4 loss 3.9 tokens/s 900")
for place in range(350, 365):
    print("step", place, "token", ids[place])
raise ValueError("after all: " + text[2000:2150])
"""


def repeats(log, ids):
    """Whether a log has 36 letters of a text in a row, forwards or backwards, or eight of its token ids."""

    def has_run(shown, wanted, size):
        return any(shown[at : at + size] in wanted for at in range(len(shown) - size + 1))

    letters = re.sub("[^a-z]", "", log.lower())
    text = "".join(WORDS[token] for token in ids).replace(" ", "")
    numbers = " ".join(re.findall(r"\b\d+\b", log))
    said = " ".join(map(str, ids))
    found = [match for match in re.findall(r"\d+(?: \d+){7}", numbers) if match in said]
    return has_run(letters, text, 36) or has_run(letters[::-1], text, 36) or bool(found)


def test_no_training_text_reaches_the_ledger_a_watcher_or_a_prompt(lab, mounts):
    ids = np.fromfile(mounts.train(0)["shard-01.bin"], "<u2").tolist()
    corpus = "".join(WORDS[token] for token in ids).encode()
    index = IndexBuilder(len(corpus))
    index.add([corpus])
    seen = SeenLines()
    redactor = Redactor(index=index.finish(), tokens=[word.encode() for word in WORDS])
    outcome, runs = measured(replace(lab, redactor=redactor, observer=seen), TELLS)
    assert outcome.verdict is Verdict.CRASH
    (run,) = [one for one in runs if one.phase is Phase.TRAIN]

    assert not repeats(run.log_tail, ids)
    shown = run.log_tail.split("\n")
    assert [line for line in shown if line.startswith("step ")] == [
        f"step {number} loss {loss} tokens/s 900" for number, loss in ((2, 4.1), (3, 4.0), (4, 3.9))
    ]
    assert "Traceback (most recent call last):" in shown, "the rest of the log is there"
    assert [line for line in shown if "/candidate/workload/train.py" in line]
    assert shown.count(WITHHELD) >= 25

    assert repeats(corpus[:150].decode(), ids) and repeats(str(ids[300:340]), ids), (
        "what is looked for can be found"
    )
    stored = b"".join(path.read_bytes() for path in lab.ledger.path.parent.glob("ledger.db*"))
    assert b"tokens/s 900" in stored
    for piece in (corpus[:40], corpus[200:240].upper(), corpus[800:840][::-1]):
        assert piece not in stored

    # The live view may miss the last lines of a program that ends; what it gets are figures.
    assert set(seen.lines) <= {
        f"step {number} loss {loss} tokens/s 900" for number, loss in ((1, 4.2), (2, 4.1), (3, 4.0), (4, 3.9))
    }
    failed = lab.ledger.experiment("test", 0)
    request = ProposalRequest(
        number=1,
        program="",
        profile="cpu",
        train_seconds=3,
        files={},
        history=(failed,),
        failed=failed,
        seed=0,
        journal=None,  # nobody is asked
    )
    prompt = show_task(request)
    assert f"<untrusted_log>\n{run.log_tail[:20]}" in prompt
    assert not repeats(prompt.partition("<untrusted_log>")[2], ids)
