"""A campaign with kept commits in real git and a real ledger; programs are scored by what stands in them."""

from __future__ import annotations

import random
import re
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

from runner import edits
from runner.campaign.experiment import commit_candidate, finish_keep
from runner.campaign.studies import interleave
from runner.evaluation.trial import Failure, Measurement
from runner.records import Proposal, Replace, SealedScore, Verdict
from tests.support.scripted_evaluator import TAG, laboratory

CONDITIONS = {"base_image": "b", "data": "d", "evaluation": "e"}


@contextmanager
def campaign(root, **settings):
    """Its laboratory, with a stand-in for the engine."""
    with laboratory(root, noise_prior_bpb=0.01, effect_scale_bpb=0.015, **settings) as lab:
        yield replace(lab, engine=SimpleNamespace(client=None), conditions=CONDITIONS, scratch=root / "scratch")


def keep(lab, old, new, path="workload/train.py"):
    """Keep one edit; returns its number."""
    made = lab.ledger.campaign(TAG)
    history = lab.ledger.experiments(TAG)
    best = [one for one in history if one.verdict is Verdict.KEEP][-1]
    files = lab.repository.read_workload(best.kept_commit)
    edit = Replace(path=path, old=old, new=new)
    after = edits.apply(files, [edit])
    proposal = Proposal(hypothesis=f"{old} to {new}", edits=(edit,), proposer="p")
    number = lab.ledger.open_experiment(TAG, proposal, diff=edits.diff(files, after), champion=best.number)
    staged = commit_candidate(lab, made, lab.ledger.experiment(TAG, number), after)
    lab.ledger.set_candidate(TAG, number, commit=staged.commit, image_id="i", layer_digest="l")
    lab.ledger.close_experiment(
        TAG, number, verdict=Verdict.KEEP, reason="r", val_bpb=1.9, delta_bpb=-0.1, sigma_bpb=0.01
    )
    finish_keep(lab, made, number)
    return number


class ScriptedRuns:
    """In place of `measure`: a score for a program's text, with noise, and the same on the sealed rows."""

    def __init__(self, monkeypatch, score, *, noise=0.001, gap=lambda text: 0.01):
        self.score, self.noise, self.gap = score, noise, gap
        self.random = random.Random(1)
        self.seeds, self.sealed = [], 0
        self.removed = []
        monkeypatch.setattr(interleave, "measure", self.measure)
        monkeypatch.setattr(interleave.images, "exists", lambda *_: True)
        monkeypatch.setattr(interleave.images, "build_candidate", self.build)
        monkeypatch.setattr(
            interleave.images, "remove_images", lambda _client, labels: self.removed.append(labels)
        )

    def build(self, _client, *, base_id, files, labels):
        return SimpleNamespace(id=files["workload/train.py"].decode())

    def measure(self, lab, *, build, number, seed, runs, examiner, champion):
        text = build()
        self.seeds.append(seed)
        score = self.score(text)
        if isinstance(score, Failure):
            return score
        bpb = score + self.random.gauss(0, self.noise)
        if examiner.wants_seal(bpb):
            self.sealed += 1
            runs.seal(SealedScore(number=0, seed=seed, val_bpb=bpb, test_bpb=bpb + self.gap(text)), "h")
        return Measurement(val_bpb=bpb, claims_sha256="c")


def number_of(text, name):
    """`NAME = 0.5` in a program's text."""
    return float(re.search(rf"^{name} = (\S+)", text, re.MULTILINE)[1])


def crash(reason="training exited with code 1"):
    """A program that fails."""
    return Failure(verdict=Verdict.CRASH, reason=reason)
