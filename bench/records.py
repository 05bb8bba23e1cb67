"""Time of reading and writing the records of a long campaign.

    python bench/records.py [--experiments 10000 100000]

Fills synthetic ledgers (every verdict, explorations, certificates, controls, audits, curves, logs, three responses
of a language model each), then measures commands as they are typed, the start of a night, and one experiment's
transitions, each a durable transaction with the update of the campaign in memory. Beside these stands the time
that the disk takes for one fsync of a page, measured between them (TMPDIR chooses the disk). Prints seconds, and
ratios between the sizes: what grows with a campaign.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner import config
from runner.campaign import certificate
from runner.campaign.budget import budget_reason
from runner.campaign.campaign import Campaign, Controller
from runner.records import (
    AuditRecord,
    Curve,
    Figures,
    Outcome,
    Phase,
    Proposal,
    Ruling,
    RunEnd,
    RunRecord,
    StopReason,
    Trial,
    TrialKind,
    Usage,
    Verdict,
)
from runner.storage.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
TAG = "bench"
BLOCK = 1_000
"""Experiments that are written through the ledger; longer campaigns repeat them."""
SECONDS = 400
"""From one experiment to the next."""
COMMANDS = (("show", "{last}"), ("log", "--last", "50"), ("status",))
USAGE = Usage(
    model="bench", request_id=None, input_tokens=2_000, output_tokens=2_000, cache_read_tokens=20_000,
    cache_write_tokens=0, cost_usd=0.01,
)  # fmt: skip
NUM_RESPONSES = 3
"""Of the language model, in each conversation."""
AUDIT = AuditRecord(
    claimed_bpb=1.7, num_positions=8192, mean_nats=1e-5, se_nats=1e-4, upper_nats=2e-4, exceedances=(0, 0, 0, 0),
    repeat=0.0, suffix=1e-6, neighbors=1e-6,
)  # fmt: skip
REFUSAL = AuditRecord(
    claimed_bpb=1.2, num_positions=8192, mean_nats=0.1, se_nats=1e-4, upper_nats=0.1, exceedances=(9, 9, 9, 9),
    repeat=0.0, suffix=0.3, neighbors=1e-6, finding="suffix", reason="its claims depend on later tokens",
)  # fmt: skip
LOSSES = tuple(6.0 - 0.2 * k for k in range(12))
STOP = StopReason(fraction=0.25, loss=6.0, tip_loss=5.0, chance=0.001)
LOG = "\n".join(f"step {n} loss 3.14159 tokens/s 31,000" for n in range(50))


def trial(rng, number, *, outcome=Outcome.SCORED, audited=False, seed=None):
    """A trial with runs as a night has them; by default under the exploration seed."""
    seed, score = exploration_seed(number) if seed is None else seed, rng.gauss(1.7, 0.01)
    stopped = outcome is Outcome.STOPPED
    runs = [
        RunRecord(
            phase=Phase.TRAIN, seed=seed, exit_code=None, wall_seconds=75.0 if stopped else 300.0,
            end=RunEnd.STOPPED if stopped else RunEnd.FAILED if outcome is Outcome.CRASH else RunEnd.DEADLINE,
            cpu_seconds=299.0, others_cpu_seconds=0.5, log_tail=LOG, opened_at=at(number, 10),
            closed_at=at(number, 310), curve=Curve(losses=LOSSES, stop_reason=STOP if stopped else None),
        ),
    ]  # fmt: skip
    if outcome in (Outcome.SCORED, Outcome.INVALID):
        runs.append(
            RunRecord(
                phase=Phase.SCORE, seed=seed, end=RunEnd.FINISHED, exit_code=0, wall_seconds=13.0,
                cpu_seconds=12.9, val_bpb=score, claims_sha256="0" * 64, opened_at=at(number, 310),
                closed_at=at(number, 323),
            )
        )  # fmt: skip
    if audited or outcome is Outcome.INVALID:
        runs.append(
            RunRecord(
                phase=Phase.AUDIT, seed=seed, end=RunEnd.FINISHED, exit_code=0, wall_seconds=26.0,
                cpu_seconds=25.0, val_bpb=score, claims_sha256="0" * 64,
                audit=REFUSAL if outcome is Outcome.INVALID else AUDIT, opened_at=at(number, 323),
                closed_at=at(number, 349),
            )
        )  # fmt: skip
    is_scored = outcome is Outcome.SCORED
    return Trial(
        seed=seed, outcome=outcome, val_bpb=score if is_scored else None, runs=tuple(runs),
        claims_sha256="0" * 64 if is_scored else None, reason=None if is_scored else "it failed",
    )  # fmt: skip


def exploration_seed(number):
    """That of the first trial of the champion before an experiment."""
    return max(0, number - 1) // 50 * 50


def at(number, seconds):
    """The time so long after the begin of an experiment."""
    began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number * SECONDS + seconds)
    return began.isoformat()


def is_certificate(number):
    """Every fiftieth experiment, but for the baseline."""
    return number > 0 and number % 50 == 0


def verdict_of(number):
    """Of fifty experiments one is a certificate, four are accepted, three crash, and one is refused."""
    kind = number % 50
    return (
        Verdict.KEEP
        if kind == 0
        else Verdict.CRASH
        if kind < 4
        else Verdict.INVALID
        if kind < 5
        else Verdict.ACCEPT
        if 15 <= kind < 19
        else Verdict.DISCARD
    )


def lineage(number):
    """Champion, parent, and certified edits of an experiment."""
    if number == 0:
        return {"champion": None, "parent": None}
    champion = (number - 1) // 50 * 50
    accepted = [one for one in range(champion + 15, champion + 19) if one < number]
    return {"champion": champion, "parent": champion if number % 50 == 0 or not accepted else accepted[-1]}


def trials_of(rng, number):
    """The trials of an experiment; ten in fifty are stopped early."""
    verdict, stopped = verdict_of(number), 5 <= number % 50 < 15
    if verdict in (Verdict.CRASH, Verdict.INVALID):
        return [trial(rng, number, outcome=Outcome(verdict.value))]
    if stopped:
        return [trial(rng, number, outcome=Outcome.STOPPED)]
    if verdict is Verdict.KEEP:
        return [trial(rng, number, audited=True, seed=number + place) for place in range(3)]
    return [trial(rng, number, audited=verdict is Verdict.ACCEPT)]


def ruling_of(rng, number):
    """The verdict of an experiment."""
    verdict, scored = verdict_of(number), number % 50 == 0 or number % 50 >= 15
    figures = Figures(
        trials=(1,), pool=(1, 2), delta_bpb=rng.gauss(0, 0.01), se_bpb=0.008, sigma_bpb=0.008, better=0.5,
        effect_bpb=-0.001 if verdict is Verdict.ACCEPT else 0.0, low_bpb=-0.01, high_bpb=0.01,
    )  # fmt: skip
    return Ruling(
        verdict=verdict, reason="better", val_bpb=1.7 if scored else None, delta_bpb=-0.01 if scored else None,
        sigma_bpb=0.008, figures=figures if scored and number else None,
    )  # fmt: skip


def record(ledger, number, kind, made, timed):
    """One trial, as the controller writes it."""
    with timed("trial opened"):
        opened = ledger.open_trial(TAG, number, kind, made.seed)
    if made.outcome is Outcome.SCORED:
        with timed("claims committed"):
            ledger.commit_claims(opened, made)
    with timed("trial closed"):
        ledger.close_trial(TAG, opened, made)


def ask(conversations, number, timed):
    """The conversation that leads to an experiment; returns its id."""
    conversation = conversations.open(TAG, "bench", seen=number - 1).id
    for turn in range(NUM_RESPONSES):
        with timed("before a request: budget spent?"):
            budget_reason(conversations, TAG, 1e6)
        with timed("response booked and kept"):
            booking = conversations.open_answer(conversation, turn=turn, request_sha256="0" * 64, usage=USAGE)
            conversations.close_answer(booking, USAGE, {})
    return conversation


@contextmanager
def untimed(_):
    """Measure nothing."""
    yield


def fill(path, num_experiments):
    """A ledger with so many experiments. Durability is switched off meanwhile: this is not what is measured."""
    rng = random.Random(1)
    with Ledger(path) as ledger:
        ledger.create_campaign(tag=TAG, base_commit="0" * 40, conditions={"profile": "cpu"})
        ledger.database._db.execute("PRAGMA synchronous=OFF")
        for number in range(min(num_experiments, BLOCK)):
            conversation = None if is_certificate(number) else ask(ledger.conversations, number, untimed)
            ledger.open_experiment(
                TAG, idea(number), diff="+x = 1\n-x = 2\n" * 10, **lineage(number), conversation=conversation
            )
            for made in trials_of(rng, number):
                record(ledger, number, TrialKind.CANDIDATE, made, untimed)
                if is_certificate(number):
                    other = trial(rng, number, audited=True, seed=made.seed)
                    record(ledger, number - 50, TrialKind.CONTROL, other, untimed)
            ledger.close_experiment(TAG, number, **vars(ruling_of(rng, number)))
            if number % 50 == 0:
                ledger.set_kept(TAG, number, "0" * 40)
            if number % 50 in (20, 40):  # controls of the tip
                record(
                    ledger, number // 50 * 50 + 18, TrialKind.CONTROL, trial(rng, number, audited=True), untimed
                )
    with closing(sqlite3.connect(path)) as db:
        repeat(db, num_experiments)


def idea(number):
    """A proposal."""
    certified = tuple(range(number - 35, number - 31)) if is_certificate(number) else ()
    return Proposal(hypothesis=f"idea {number}: a little of this", edits=(), proposer="bench", certifies=certified)


def repeat(db, num_experiments):
    """Repeat the experiments that are there, with later numbers and times."""
    (ticks,) = db.execute("SELECT ticks FROM campaigns").fetchone()
    (num_trials,) = db.execute("SELECT max(id) FROM trials").fetchone()
    time_at = "strftime('%Y-%m-%dT%H:%M:%S+00:00', {0}, '+{1} seconds')"
    db.create_function("at", 2, at, deterministic=True)
    db.execute("UPDATE experiments SET opened_at = at(number, 0), closed_at = at(number, 350)")
    for block in range(1, num_experiments // BLOCK):
        shift = {
            "number": block * BLOCK, "experiment": block * BLOCK, "champion": block * BLOCK,
            "parent": block * BLOCK,
            "id": block * num_trials, "trial": block * num_trials, "opened_seq": block * ticks,
            "closed_seq": block * ticks, "kept_seq": block * ticks,
        }  # fmt: skip
        responses = {"id": block * BLOCK * NUM_RESPONSES, "experiment": block * BLOCK}
        for table, condition in (
            ("experiments", f"number < {BLOCK}"), ("trials", f"id <= {num_trials}"),
            ("runs", f"trial <= {num_trials}"), ("usage", f"id <= {BLOCK * NUM_RESPONSES}"),
        ):  # fmt: skip
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            shifts = responses if table == "usage" else shift
            values = [
                f"{name} + {shifts[name]}" if name in shifts
                else time_at.format(name, block * BLOCK * SECONDS) if name in ("opened_at", "closed_at")
                else name
                for name in names
            ]  # fmt: skip
            db.execute(f"INSERT INTO {table} SELECT {', '.join(values)} FROM {table} WHERE {condition}")
    # The first of a block repeats the baseline; it is a certificate of the block before.
    db.execute(
        "UPDATE experiments SET champion = number - 50, parent = number - 50,"
        " certifies = json_array(number - 35, number - 34, number - 33, number - 32)"
        " WHERE number > 0 AND number % 1000 = 0"
    )
    db.execute("UPDATE campaigns SET ticks = ?", (ticks * max(1, num_experiments // BLOCK),))
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def measure_commands(folder, num_experiments):
    """Median seconds and median processor seconds of each command, the start of its process included."""
    found = {}
    for command in COMMANDS:
        words = [word.format(last=num_experiments - 1) for word in command]
        taken = []
        for _ in range(5):
            began, used = time.perf_counter(), used_by_children()
            subprocess.run(
                [sys.executable, "-m", "runner", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""},
            )  # fmt: skip
            taken.append((time.perf_counter() - began, used_by_children() - used))
        name = "autoresearch " + " ".join(command).format(last="ID")
        found[name], found[f"{name} (processor)"] = (sorted(column)[2] for column in zip(*taken, strict=True))
    return found


def used_by_children():
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_loop(path, num_experiments):
    """Seconds of each transition of an experiment with one trial, and of the disk beneath them."""
    rng, taken = random.Random(2), defaultdict(list)

    @contextmanager
    def timed(name):
        began = time.perf_counter()
        yield
        taken[name].append(time.perf_counter() - began)

    with Ledger(path) as ledger, (path.parent / "floor").open("wb", buffering=0) as floor:
        controller = Controller(
            config=config.load(ROOT, {"profile": "cpu"}, environ={}), ledger=ledger, repository=None,
            evaluator=None, sealed_text=None, conditions={}, observer=None,
        )  # fmt: skip
        used = time.process_time()
        with timed("start of a night: all records read"):
            campaign = Campaign(controller, ledger.campaign(TAG))
        taken["start of a night (processor)"].append(time.process_time() - used)
        for number in range(num_experiments, num_experiments + 49):
            with timed("one fsync of this disk"):
                floor.write(bytes(4096))
                os.fsync(floor.fileno())
            step(campaign, rng, number, timed)
    return taken


def step(campaign, rng, number, timed):
    """One experiment: what the loop asks before it, and everything that it writes."""
    with timed("before an idea: control due? certificate due?"):
        campaign.memory.control_due(20)
        certificate.is_due(campaign, 100.0)
    conversation = ask(campaign.ledger.conversations, number, timed)
    with timed("experiment opened"):
        parent = campaign.tip.number
        opened = campaign.open(
            idea(number), diff="+x = 1\n-x = 2\n" * 10, parent=parent, conversation=conversation
        )
    with timed("belief for its comparison"):
        campaign.memory.belief(opened.opened_seq)
    with timed("candidate recorded"):
        campaign.ledger.set_candidate(TAG, number, commit="0" * 40, image_id="0" * 64, layer_digest="0" * 64)
        campaign.reload(number)
    for made in trials_of(rng, number):
        record(campaign.ledger, number, TrialKind.CANDIDATE, made, timed)
    with timed("campaign in memory after a trial"):
        campaign.reload(number)
    with timed("experiment closed"):
        campaign.close(number, ruling_of(rng, number))


def main():
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, nargs="+", default=[10_000, 100_000])
    sizes = parser.parse_args().experiments
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            folder = Path(name) / str(size)
            path = folder / ".autoresearch" / "ledger.db"
            git = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(folder))
            subprocess.run(["git", "init", "-q", str(folder)], check=True)
            subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "bench"], check=True)
            fill(path, size)
            print(f"{size:,} experiments, {path.stat().st_size / 2**20:.0f} MiB", flush=True)
            for what, seconds in measure_commands(folder, size).items():
                found[what].append(seconds)
            taken = measure_loop(path, size)
            fsync = sorted(taken["one fsync of this disk"])[24]
            for what, seconds in taken.items():
                median = sorted(seconds)[len(seconds) // 2]
                found[what].append(median)
                print(f"  {what:45s} {median:8.4f} s, worst {max(seconds):8.4f} s, {median / fsync:6.1f} fsyncs")
            print(f"  memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")
    for what, seconds in found.items():
        ratio = seconds[-1] / seconds[0]
        print(f"{what:45s}" + "".join(f"{one:10.4f} s" for one in seconds) + f"   ×{ratio:.1f}")


if __name__ == "__main__":
    main()
