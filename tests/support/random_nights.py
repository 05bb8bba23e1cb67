"""A random campaign in a ledger: every verdict, several trials, controls, audits, stops, certificates, kills."""

from __future__ import annotations

from dataclasses import replace

from runner.records import Curve, Figures, Outcome, Phase, Proposal, RunEnd, StopReason, TrialKind, Verdict
from tests.support.ledgers import TAG, record_trial
from tests.support.trials import CLEAN, failed, run, scored

REFUSED = replace(CLEAN, finding="not_causal", reason="r")
STOP = Curve(losses=(1.0,) * 12, stop_reason=StopReason(fraction=0.5, loss=2.0, tip_loss=1.0, chance=0.01))
OUTCOMES = {
    Verdict.CRASH: Outcome.CRASH, Verdict.INVALID: Outcome.INVALID, Verdict.INFRA: Outcome.LOST,
}  # fmt: skip


def random_night(ledger, rng, num_experiments):
    """Write a campaign; yields the number of each experiment that has just changed."""
    champion, edits = 0, []
    for number in range(num_experiments):
        certifies = tuple(edits) if rng.random() < 0.3 else ()
        proposal = Proposal(hypothesis=f"idea {number}", edits=(), proposer="p", certifies=certifies)
        parent = champion if certifies or not edits else edits[-1]
        lineage = {"champion": champion, "parent": parent} if number else {"champion": None}
        assert ledger.open_experiment(TAG, proposal, diff="", **lineage) == number
        yield number
        verdict = rng.choice(_possible(certifies)) if number else Verdict.KEEP
        stopped = verdict is Verdict.DISCARD and rng.random() < 0.3
        for index in range(1 if stopped else rng.randint(1, 3)):
            if rng.random() < 0.2 and number:
                record_trial(ledger, champion, _scored(rng, kind=TrialKind.CONTROL))
                yield champion
            record_trial(
                ledger,
                number,
                _stopped(rng) if stopped else _trial(rng, verdict, unpromising=not index and rng.random() < 0.2),
            )
            yield number
        has_score = verdict in (Verdict.KEEP, Verdict.ACCEPT, Verdict.DISCARD, Verdict.UNCLEAR) and not stopped
        figures = _figures(rng) if number and has_score else None
        ledger.close_experiment(
            TAG, number, verdict=verdict, reason="r", val_bpb=rng.gauss(2.0, 0.1) if has_score else None,
            delta_bpb=0.1 if figures else None, sigma_bpb=rng.choice([None, rng.random()]), figures=figures,
        )  # fmt: skip
        yield number
        if verdict is Verdict.ACCEPT:
            edits.append(number)
        elif certifies and verdict not in (Verdict.UNCLEAR, Verdict.INFRA):
            edits = []
        if verdict is Verdict.KEEP:
            ledger.set_kept(TAG, number, f"{number:040}")
            champion = number
            yield number


def _possible(certifies):
    """Verdicts on a certificate, or on an idea."""
    never = Verdict.ACCEPT if certifies else Verdict.KEEP
    return [verdict for verdict in Verdict if verdict is not never]


def _scored(rng, **fields):
    return scored(rng.gauss(2.0, 0.1), rng.randrange(2**31), audited=rng.random() < 0.7, **fields)


def _stopped(rng):
    training = run(Phase.TRAIN, 1, RunEnd.STOPPED, curve=STOP, wall_seconds=rng.random())
    return failed(Outcome.STOPPED, runs=[training])


def _trial(rng, verdict, *, unpromising):
    seed = rng.randrange(2**31)
    if verdict in OUTCOMES:
        runs = [run(Phase.TRAIN, seed), run(Phase.SCORE, seed, val_bpb=rng.random())]
        if verdict is Verdict.INVALID:
            runs.append(run(Phase.AUDIT, seed, audit=rng.choice([REFUSED, CLEAN])))
        return failed(OUTCOMES[verdict], seed, runs=runs[: rng.randint(1, 3)])
    if rng.random() < 0.1:
        return failed(Outcome.CONTENDED, seed)
    return _scored(rng, curve=STOP if unpromising else None)


def _figures(rng):
    return Figures(
        trials=tuple(range(rng.randint(1, 2))), pool=(2,), delta_bpb=rng.gauss(0, 0.1), se_bpb=0.01,
        sigma_bpb=0.01, better=rng.random(), effect_bpb=rng.gauss(0, 0.001), low_bpb=-0.5, high_bpb=-0.5,
    )  # fmt: skip
