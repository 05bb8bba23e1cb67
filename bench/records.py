"""Time of reading and writing the records of a long campaign.

    python bench/records.py [--experiments 10000 100000]

Fills a synthetic ledger (one to three trials an experiment, audits, curves, figures), then measures what commands
and the loop need: all records, one experiment, the last fifty, and one experiment's writes with their reloads.
Prints seconds, and ratios between the two sizes: what grows with the campaign, and what does not.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.campaign.campaign import Campaign, Controller
from runner.decision import history
from runner.records import (
    AuditRecord,
    Curve,
    Figures,
    Outcome,
    Phase,
    Proposal,
    RunEnd,
    RunRecord,
    Trial,
    TrialKind,
    Verdict,
)
from runner.storage.ledger import Ledger

TAG = "bench"
AUDIT = AuditRecord(
    claimed_bpb=1.7, num_positions=8192, mean_nats=1e-5, se_nats=1e-4, upper_nats=2e-4, exceedances=(0, 0, 0, 0),
    repeat=0.0, suffix=1e-6, neighbors=1e-6,
)  # fmt: skip
CURVE = Curve(losses=tuple(6.0 - 0.2 * k for k in range(12)))
LOG = "\n".join(f"step {n} loss 3.14159 tokens/s 31,000" for n in range(50))


def trial(rng, seed, *, audited):
    """A scored trial with runs as a night has them."""
    score = rng.gauss(1.7, 0.01)
    runs = [
        RunRecord(
            phase=Phase.TRAIN, seed=seed, end=RunEnd.DEADLINE, exit_code=None, wall_seconds=300.0,
            cpu_seconds=299.0, others_cpu_seconds=0.5, log_tail=LOG, curve=CURVE,
        ),
        RunRecord(
            phase=Phase.SCORE, seed=seed, end=RunEnd.FINISHED, exit_code=0, wall_seconds=13.0, cpu_seconds=12.9,
            val_bpb=score, claims_sha256="0" * 64,
        ),
    ]  # fmt: skip
    if audited:
        runs.append(
            RunRecord(
                phase=Phase.AUDIT, seed=seed, end=RunEnd.FINISHED, exit_code=0, wall_seconds=26.0,
                cpu_seconds=25.0, val_bpb=score, claims_sha256="0" * 64, audit=AUDIT,
            )
        )  # fmt: skip
    return Trial(
        seed=seed, outcome=Outcome.SCORED, val_bpb=score, claims_sha256="0" * 64, sealed=False, runs=tuple(runs)
    )


def one_experiment(campaign, rng, number):
    """Everything that an experiment writes, as the controller writes it: opened, trials, closed, reloaded."""
    proposal = Proposal(hypothesis=f"idea {number}: a little of this", edits=(), proposer="bench")
    opened = campaign.open(proposal, diff="+x = 1\n-x = 2\n" * 10)
    write_trials(campaign.ledger, rng, number)
    campaign.reload(number)
    close(campaign.ledger, rng, number)
    campaign.reload(number)
    return opened


def write_trials(ledger, rng, number):
    """One to three trials."""
    for _ in range(1 if number % 3 else 3):
        made = trial(rng, rng.randrange(2**31), audited=number % 3 == 0)
        opened = ledger.open_trial(TAG, number, TrialKind.CANDIDATE, made.seed)
        ledger.commit_claims(opened, made)
        ledger.close_trial(TAG, opened, made)


def close(ledger, rng, number):
    """The verdict: the first one and every fiftieth is kept."""
    figures = Figures(
        trials=(1,), pool=(1, 2), delta_bpb=rng.gauss(0, 0.01), se_bpb=0.008, sigma_bpb=0.008, better=0.5,
        effect_bpb=0.0, low_bpb=-0.01, high_bpb=0.01, first_delta_bpb=rng.gauss(0, 0.01), first_se_bpb=0.01,
    )  # fmt: skip
    keep = number % 50 == 0
    ledger.close_experiment(
        TAG, number, verdict=Verdict.KEEP if keep else Verdict.DISCARD, reason="better", val_bpb=1.7,
        delta_bpb=-0.01, sigma_bpb=0.008, figures=figures if number else None,
    )  # fmt: skip
    if keep:
        ledger.set_kept(TAG, number, "0" * 40)


def fill(path, num_experiments):
    """A ledger with so many experiments. Durability is switched off meanwhile: this is not what is measured."""
    rng = random.Random(1)
    with Ledger(path) as ledger:
        ledger.create_campaign(tag=TAG, base_commit="0" * 40, conditions={})
        ledger.database._db.execute("PRAGMA synchronous=OFF")
        for number in range(num_experiments):
            proposal = Proposal(hypothesis=f"idea {number}: a little of this", edits=(), proposer="bench")
            ledger.open_experiment(TAG, proposal, diff="+x = 1\n-x = 2\n" * 10, champion=0 if number else None)
            write_trials(ledger, rng, number)
            close(ledger, rng, number)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("ANALYZE")


def timed(repeats, act):
    """Median seconds of some calls."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def measure(path, num_experiments):
    """Seconds by what is done."""
    rng = random.Random(2)
    with Ledger(path) as ledger:
        controller = Controller(
            config=None, ledger=ledger, repository=None, evaluator=None, sealed_text=None, conditions={},
            observer=None,
        )  # fmt: skip
        began = time.perf_counter()
        campaign = Campaign(controller, ledger.campaign(TAG))
        opened = time.perf_counter() - began
        last = num_experiments - 1
        found = {
            "read everything (start of a night)": opened,
            "one experiment (show)": timed(20, lambda: ledger.experiment(TAG, last)),
            "the last fifty (log --last 50)": timed(20, lambda: ledger.experiments(TAG, last - 49)),
            "control due?": timed(5, lambda: history.control_due(campaign.experiments, campaign.champion, 20)),
            "noise of the campaign": timed(5, lambda: history.noise_groups(campaign.experiments)),
        }
        number = num_experiments
        taken = []
        for number in range(num_experiments, num_experiments + 20):
            began = time.perf_counter()
            one_experiment(campaign, rng, number)
            taken.append(time.perf_counter() - began)
        found["ledger time of one experiment (writes and reloads)"] = sorted(taken)[10]
    return found


def main():
    """Measure both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, nargs="+", default=[10_000, 100_000])
    sizes = parser.parse_args().experiments
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / f"{size}.db"
            fill(path, size)
            found[size] = measure(path, size)
            print(f"{size:,} experiments, {path.stat().st_size / 2**20:.0f} MiB")
    for what in found[sizes[0]]:
        seconds = [found[size][what] for size in sizes]
        print(f"{what:52s}" + "".join(f"{one:10.4f} s" for one in seconds) + f"   ×{seconds[-1] / seconds[0]:.1f}")


if __name__ == "__main__":
    main()
