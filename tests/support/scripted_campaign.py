"""A campaign with kept commits in real git and a real ledger; programs are scored by their text."""

from __future__ import annotations

import random
import re
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

from runner import edits
from runner.campaign import experiment, tip_control
from runner.campaign.candidate import commit_candidate
from runner.campaign.promotion import promote
from runner.campaign.studies import interleave
from runner.evaluation.trial import Sealed
from runner.records import Outcome, Phase, Proposal, Replace, Ruling, SealedScore, Trial, Verdict
from tests.support import scripted_controller
from tests.support.trials import CLEAN, run, scored

CONDITIONS = {"base_image": "b", "data": "d", "evaluation": "e"}


@contextmanager
def campaign(root, **settings):
    """The campaign of `scripted_controller.make_repository`, with settings that suit `ScriptedRuns`."""
    with scripted_controller.campaign(
        root,
        noise_prior_bpb=0.01,
        effect_scale_bpb=0.015,
        conditions=CONDITIONS,
        evaluator={"scratch": root / "scratch"},
        **settings,
    ) as made:
        yield made


def keep(campaign, old, new, path="workload/train.py"):
    """Accept one edit and certify it; returns the number of the certificate."""
    accept(campaign, old, new, path)
    return certify(campaign)


def accept(campaign, old, new, path="workload/train.py"):
    """Accept one edit on the tip; returns its number."""
    tip = tip_of(campaign)
    files = campaign.repository.read_workload(tip.commit)
    edit = Replace(path=path, old=old, new=new)
    after = edits.apply(files, [edit])
    proposal = Proposal(hypothesis=f"{old} to {new}", edits=(edit,), proposer="p")
    return _record(campaign, proposal, after, Verdict.ACCEPT, parent=tip)


def certify(campaign):
    """Certify the tip; returns the number of the certificate."""
    best, tip = campaign.champion, tip_of(campaign)
    accepted = [one.number for one in campaign.experiments if one.verdict is Verdict.ACCEPT]
    proposal = Proposal(
        hypothesis="certificate",
        edits=(),
        proposer="certificate",
        certifies=tuple(number for number in accepted if number > best.number),
    )
    files = campaign.repository.read_workload(tip.tried_commit)
    number = _record(campaign, proposal, files, Verdict.KEEP, parent=best)
    promote(campaign, campaign.experiments[number])
    return number


def tip_of(campaign):
    """The experiment whose tree is the tip."""
    accepted = [one for one in campaign.experiments if one.verdict is Verdict.ACCEPT]
    return max([campaign.champion, *accepted], key=lambda one: one.number)


def _record(campaign, proposal, files, verdict, *, parent):
    before = campaign.repository.read_workload(parent.commit)
    opened = campaign.open(proposal, diff=edits.diff(before, files), parent=parent.number)
    staged = commit_candidate(campaign, opened, files)
    campaign.ledger.set_candidate(
        campaign.tag, opened.number, commit=staged.commit, image_id="i", layer_digest="l"
    )
    ruling = Ruling(verdict=verdict, reason="r", val_bpb=1.9, delta_bpb=-0.1, sigma_bpb=0.01)
    campaign.close(opened.number, ruling)
    return opened.number


def propose(campaign, old="RATE = 0.02", new="RATE = 0.04", **proposal):
    """Open an idea of one edit of the tip, as a proposer's."""
    files = campaign.repository.read_workload(campaign.tip.commit)
    edit = Replace(path="workload/train.py", old=old, new=new)
    diff = edits.diff(files, edits.apply(files, [edit]))
    made = Proposal(**{"hypothesis": f"{old} to {new}", "edits": (edit,), "proposer": "p", **proposal})
    return campaign.open(made, diff=diff, parent=campaign.tip.number)


def branches(campaign):
    """Where the champion's branch and the tip's stand."""
    controller = campaign.controller
    return tuple(campaign.repository.branch_head(one) for one in (controller.branch, controller.tip_branch))


class Machine:
    """In place of `measure` in the loop: a score for each number of an experiment, recorded as the real one does.

    Args:
        scores: of trial after trial, by number; the last one is repeated. A trial stands for itself.
    """

    def __init__(self, monkeypatch, **scores):
        self.scores = {int(name[1:]): list(values) for name, values in scores.items()}
        self.calls = []
        for place in (experiment, tip_control):
            monkeypatch.setattr(place, "measure", self.measure)

    def measure(self, evaluator, request, book, policy, champion_claims):
        number = request.program.number
        script = self.scores[number]
        made = script.pop(0) if len(script) > 1 else script[0]
        asked = policy(made if isinstance(made, float) else 3.0)
        if isinstance(made, float):
            sealed, hashed = asked.seal_below_bpb is not None, f"{number}-{request.seed}"
            made = scored(made, request.seed, audited=asked.audit, sealed=sealed, claims_sha256=hashed)
        self.calls.append((number, request, asked, champion_claims))
        book.built(request.program, SimpleNamespace(id="i", layer_digest="l"))
        book.closed(book.opened(request.seed), replace(made, seed=request.seed))
        return made

    @property
    def numbers(self):
        """Whose trials were measured, in order."""
        return [number for number, *_ in self.calls]

    @property
    def seeds(self):
        """Under which seeds, in order."""
        return [request.seed for _, request, *_ in self.calls]


class ScriptedRuns:
    """In place of `measure`: a score for a program's text, with noise, and the same on the sealed rows.

    Args:
        score: the score of a text, or a trial that failed.
        noise: standard deviation of what is a trial's own.
        shared: … of what all programs have in common under a seed.
    """

    def __init__(self, monkeypatch, score, *, noise=0.001, shared=0.05, gap=lambda text: 0.01):
        self.score, self.noise, self.shared, self.gap = score, noise, shared, gap
        self.seeds, self.num_sealed = [], 0
        self.measured = []
        self.removed = []
        monkeypatch.setattr(interleave, "measure", self.measure)
        monkeypatch.setattr(
            interleave,
            "images",
            SimpleNamespace(remove_images=lambda _client, labels: self.removed.append(labels)),
        )

    def measure(self, evaluator, request, book, policy, champion_claims):
        text = request.program.files["workload/train.py"].decode()
        self.seeds.append(request.seed)
        score = self.score(text)
        if isinstance(score, Trial):
            return score
        bpb = score + self._noise(request.seed, text)
        limit = policy(bpb).seal_below_bpb
        if limit is not None and bpb <= limit:
            self.num_sealed += 1
            sealed = SealedScore(number=0, seed=request.seed, val_bpb=bpb, test_bpb=bpb + self.gap(text))
            book.sealed(Sealed(sealed, "h"))
        audit = run(Phase.AUDIT, request.seed, val_bpb=bpb, audit=replace(CLEAN, claimed_bpb=bpb))
        return Trial(seed=request.seed, outcome=Outcome.SCORED, val_bpb=bpb, claims_sha256="c", runs=(audit,))

    def _noise(self, seed, text):
        """The same in every test run, although seeds and the order of programs are drawn anew."""
        number = list(dict.fromkeys(self.seeds)).index(seed)
        again = self.measured.count((seed, text))
        self.measured.append((seed, text))
        common, own = (random.Random(f"{number} {words}") for words in ("", f"{again} {text}"))
        return common.gauss(0, self.shared) + own.gauss(0, self.noise)


def number_of(text, name):
    """`NAME = 0.5` in a program's text."""
    return float(re.search(rf"^{name} = (\S+)", text, re.MULTILINE)[1])


def crash(reason="training exited with code 1"):
    """A program that fails."""
    return Trial(seed=1, outcome=Outcome.CRASH, reason=reason)
