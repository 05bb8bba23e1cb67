"""The ledger: the only truth about a campaign. Git and Docker are reconciled from it at every start.

Every transition is written before the act that it announces and closed after it:

    experiment opened   → candidate staged in git → image built → trials → verdict → branch advanced
    trial opened        → trained, scored → claims committed → audited, sealed → trial closed
    conversation opened → its answers, its smoke tests → ended, with the experiment that came of it
    answer opened       → rest of its stream → answer closed

So an experiment without a verdict, a trial without an outcome, an open conversation, or a keep without a kept
commit is work that a killed controller left behind; `campaign` finishes it.

Order is that of each campaign's logical clock: one tick per opening, closing and keeping. Nothing relies on
experiment numbers, row ids or wall clocks for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from runner.errors import LedgerError
from runner.failpoints import Step
from runner.records import Experiment, Figures, Outcome, Proposal, Trial, TrialKind, Verdict
from runner.storage.clock import now
from runner.storage.conversations import Conversations
from runner.storage.database import Database
from runner.storage.rows import (
    RUN_COLUMNS,
    CampaignRow,
    Refused,
    experiment_of,
    figures_json,
    run_values,
    trial_of,
)

MAX_NUMBER = 2**62
"""More than any experiment's number."""


class Ledger:
    """All campaigns of one repository. Arguments and errors are those of `Database`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.database = Database(path, read_only=read_only)
        self.conversations = Conversations(self.database)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def controller(self) -> str:
        """Id of this state folder; labels of containers, volumes and images carry it."""
        value: str = self.database.read("SELECT value FROM meta WHERE key = 'controller'")[0][0]
        return value

    @contextmanager
    def _tick(self, step: Step, tag: str) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction that advances a campaign's logical clock; gives the connection and the new time."""
        with self.database.transaction(step) as db:
            row = db.execute(
                "UPDATE campaigns SET ticks = ticks + 1 WHERE tag = ? RETURNING ticks", (tag,)
            ).fetchone()
            if row is None:
                raise LedgerError(f"there is no campaign {tag!r} in {self.path}", "autoresearch status")
            yield db, int(row[0])

    # ------------------------------------------------------------------ campaigns

    def campaign(self, tag: str) -> CampaignRow | None:
        """The campaign of this name, if there is one."""
        for row in self.database.read("SELECT * FROM campaigns WHERE tag = ?", tag):
            return CampaignRow(
                tag=row["tag"],
                created_at=row["created_at"],
                base_commit=row["base_commit"],
                seed=row["seed"],
                target=row["target"],
                conditions=json.loads(row["conditions"]),
            )
        return None

    def campaigns(self) -> tuple[str, ...]:
        """Names of all campaigns, newest first."""
        return tuple(row[0] for row in self.database.read("SELECT tag FROM campaigns ORDER BY rowid DESC"))

    def campaign_of(self, commit: str) -> str | None:
        """Name of the newest campaign that tried or kept a commit."""
        rows = self.database.read(
            "SELECT tag FROM campaigns WHERE tag IN"
            " (SELECT tag FROM experiments WHERE ? IN (tried_commit, kept_commit)) ORDER BY rowid DESC LIMIT 1",
            commit,
        )
        return rows[0][0] if rows else None

    def create_campaign(self, *, tag: str, base_commit: str, conditions: Mapping[str, str]) -> CampaignRow:
        """Open a new campaign."""
        seed = int.from_bytes(os.urandom(7))
        with self.database.transaction(Step.CAMPAIGN_CREATED) as db:
            db.execute(
                "INSERT INTO campaigns (tag, created_at, base_commit, seed, target, conditions)"
                " VALUES (?, ?, ?, ?, 0, ?)",
                (tag, now(), base_commit, seed, json.dumps(dict(conditions), sort_keys=True)),
            )
        campaign = self.campaign(tag)
        assert campaign is not None
        return campaign

    def set_target(self, tag: str, target: int) -> None:
        """Set how many experiments are wanted in all."""
        with self.database.transaction(Step.TARGET_SET) as db:
            db.execute("UPDATE campaigns SET target = ? WHERE tag = ?", (target, tag))

    def delete_campaign(self, tag: str) -> None:
        """Delete a campaign with its experiments, trials, bookings and answers."""
        with self.database.transaction(Step.CAMPAIGN_DELETED) as db:
            db.execute("DELETE FROM campaigns WHERE tag = ?", (tag,))

    # ---------------------------------------------------------------- experiments

    def open_experiment(
        self,
        tag: str,
        proposal: Proposal,
        *,
        diff: str,
        champion: int | None,
        parent: int | None = None,
        retry_of: int | None = None,
        refused: Refused | None = None,
        conversation: int | None = None,
    ) -> int:
        """Record a proposal before anything is done with it, with what it cost; return its number.

        Args:
            refused: why its edits cannot be applied; it is closed at once.
            conversation: that led to it; it ends here, and its cost is the experiment's from now on.
        """
        with self._tick(Step.EXPERIMENT_OPENED, tag) as (db, seq):
            (number,) = db.execute(
                "SELECT coalesce(max(number), -1) + 1 FROM experiments WHERE tag = ?", (tag,)
            ).fetchone()
            columns = {
                "tag": tag,
                "number": number,
                "opened_at": now(),
                "opened_seq": seq,
                "closed_at": None if refused is None else now(),
                "closed_seq": None if refused is None else seq,
                "hypothesis": proposal.hypothesis,
                "category": proposal.category,
                "proposer": proposal.proposer,
                "model": proposal.model,
                "parameters": json.dumps(dict(proposal.parameters)),
                "retry_of": retry_of,
                "certifies": json.dumps(proposal.certifies),
                "champion": champion,
                "parent": parent,
                "diff": diff,
                "verdict": None if refused is None else refused.verdict,
                "reason": None if refused is None else refused.reason,
            }
            _insert(db, "experiments", columns)
            if conversation is not None:
                self.conversations.end_with(db, conversation, int(number), proposal.transcript)
        return int(number)

    def set_candidate(self, tag: str, number: int, *, commit: str, image_id: str, layer_digest: str) -> None:
        """Record the commit and the image that an experiment runs."""
        columns = {"tried_commit": commit, "image_id": image_id, "layer_digest": layer_digest}
        with self.database.transaction(Step.CANDIDATE_RECORDED) as db:
            self._update(db, tag, number, columns, "verdict IS NULL")

    def close_experiment(
        self,
        tag: str,
        number: int,
        *,
        verdict: Verdict,
        reason: str,
        val_bpb: float | None = None,
        delta_bpb: float | None = None,
        sigma_bpb: float | None = None,
        figures: Figures | None = None,
    ) -> None:
        """Record the verdict with the figures that it rests on; a verdict is final.

        Raises:
            LedgerError: it has a verdict already.
        """
        with self._tick(Step.EXPERIMENT_CLOSED, tag) as (db, seq):
            columns = {
                "closed_at": now(),
                "closed_seq": seq,
                "verdict": verdict,
                "reason": reason,
                "val_bpb": val_bpb,
                "delta_bpb": delta_bpb,
                "sigma_bpb": sigma_bpb,
                "figures": figures_json(figures),
            }
            self._update(db, tag, number, columns, "verdict IS NULL")

    def excuse(self, tag: str, crashes: Mapping[int, str]) -> None:
        """Turn crashes into infra, all at once, the only change that a verdict ever sees: the tip crashed alike.

        Args:
            crashes: the new reason of each experiment, by its number.

        Raises:
            LedgerError: one of them is no crash.
        """
        with self._tick(Step.CRASHES_EXCUSED, tag) as (db, _):
            for number, reason in crashes.items():
                columns = {"verdict": Verdict.INFRA, "reason": reason}
                self._update(db, tag, number, columns, "verdict = 'crash'")

    def set_kept(self, tag: str, number: int, commit: str) -> None:
        """Record that the branch now stands at this experiment's commit.

        Raises:
            LedgerError: it is no keep, or its commit is recorded already.
        """
        with self._tick(Step.KEEP_RECORDED, tag) as (db, seq):
            columns = {"kept_commit": commit, "kept_seq": seq}
            self._update(db, tag, number, columns, "verdict = 'keep' AND kept_commit IS NULL")

    def _update(
        self, db: sqlite3.Connection, tag: str, number: int, columns: Mapping[str, Any], condition: str
    ) -> None:
        """Change one experiment, provided that it is in the state for it."""
        assignments = ", ".join(f"{name} = ?" for name in columns)
        changed = db.execute(
            f"UPDATE experiments SET {assignments} WHERE tag = ? AND number = ? AND {condition}",  # noqa: S608
            (*columns.values(), tag, number),
        ).rowcount
        if changed != 1:
            raise LedgerError(
                f"experiment {number} of {tag} cannot take {', '.join(columns)}: it is closed, or does not exist",
                f"autoresearch show {number}",
            )

    def num_experiments(self, tag: str) -> int:
        """Return how many experiments a campaign has, the baseline and an open one included."""
        (row,) = self.database.read("SELECT coalesce(max(number), -1) + 1 FROM experiments WHERE tag = ?", tag)
        return int(row[0])

    def experiments(self, tag: str, first: int = 0, last: int = MAX_NUMBER) -> tuple[Experiment, ...]:
        """Experiments of a campaign in order, each with its closed trials and its cost.

        Only crashes and keeps come with the logs of their trainings, since logs are most of a ledger.

        Args:
            first: number of the first one.
            last: number of the last one; no other rows are read.
        """
        return self._experiments("number BETWEEN ? AND ?", tag, first, last)

    def kept_experiments(self, tag: str, first: int = 0) -> tuple[Experiment, ...]:
        """The same of those with the verdict keep alone, the baseline included."""
        return self._experiments("verdict = 'keep' AND number >= ?", tag, first)

    def lineage(self, tag: str) -> tuple[Experiment, ...]:
        """Everything that says what the tip is: keeps, accepted edits, certificates; without trials and costs."""
        wanted = "tag = ? AND (verdict IN ('keep', 'accept') OR certifies <> '[]')"
        rows = self.database.read(f"SELECT * FROM experiments WHERE {wanted} ORDER BY number", tag)  # noqa: S608
        return tuple(experiment_of(row, (), 0.0) for row in rows)

    def experiment(self, tag: str, number: int) -> Experiment | None:
        """One experiment, with all its logs."""
        return next(iter(self._experiments("number = ?", tag, number, logs="TRUE")), None)

    def _experiments(
        self, condition: str, *values: object, logs: str = "verdict IN ('keep', 'crash')"
    ) -> tuple[Experiment, ...]:
        """Experiments that fulfill a condition.

        Args:
            values: the tag, and those of the condition.
            logs: the condition under which their logs are read.
        """
        read, wanted = self.database.read, f"experiments.tag = ? AND {condition}"
        its_trials = (
            "experiments ON experiments.tag = trials.tag AND experiment = number"
            f" WHERE {wanted} AND outcome IS NOT NULL"
        )
        columns = ", ".join(f"runs.{name}" for name in RUN_COLUMNS if name != "log_tail")
        query = (
            f"SELECT trial, {columns}, iif({logs}, log_tail, '') AS log_tail"  # noqa: S608
            f" FROM runs JOIN trials ON trials.id = trial JOIN {its_trials} ORDER BY trial, position"
        )
        runs = {trial: list(rows) for trial, rows in groupby(read(query, *values), key=lambda row: row["trial"])}
        trials: dict[int, list[Trial]] = {}
        for row in read(
            f"SELECT trials.* FROM trials JOIN {its_trials} ORDER BY trials.opened_seq",  # noqa: S608
            *values,
        ):
            trials.setdefault(row["experiment"], []).append(trial_of(row, runs.get(row["id"], ())))
        # No join: SQLite would carry the range over to `usage`, and scan all of it for each experiment.
        cost = "SELECT coalesce(sum(cost_usd), 0.0) FROM usage WHERE tag = experiments.tag AND experiment = number"
        query = f"SELECT *, ({cost}) AS cost_usd FROM experiments WHERE {wanted} ORDER BY number"  # noqa: S608
        return tuple(
            experiment_of(row, trials.get(row["number"], ()), row["cost_usd"]) for row in read(query, *values)
        )

    # --------------------------------------------------------------------- trials

    def open_trial(self, tag: str, number: int, kind: TrialKind, seed: int) -> int:
        """Announce a trial before its first container; return the id to close it with."""
        with self._tick(Step.TRIAL_OPENED, tag) as (db, seq):
            columns = {"tag": tag, "experiment": number, "kind": kind, "seed": seed, "opened_at": now()}
            return _insert(db, "trials", {**columns, "opened_seq": seq})

    def commit_claims(self, trial_id: int, trial: Trial) -> None:
        """Record the runs of a trial so far and the hash of its claims. Only then are audit positions drawn.

        Raises:
            LedgerError: the trial is closed.
        """
        with self.database.transaction(Step.CLAIMS_COMMITTED) as db:
            changed = db.execute(
                "UPDATE trials SET claims_sha256 = ?, val_bpb = ? WHERE id = ? AND outcome IS NULL",
                (trial.claims_sha256, trial.val_bpb, trial_id),
            ).rowcount
            if changed != 1:
                raise _no_open_trial(trial_id)
            _insert_runs(db, trial_id, trial)

    def close_trial(self, tag: str, trial_id: int, trial: Trial) -> None:
        """Record how a trial ended, with its runs.

        Raises:
            LedgerError: that is recorded already.
        """
        with self._tick(Step.TRIAL_CLOSED, tag) as (db, seq):
            changed = db.execute(
                "UPDATE trials SET closed_at = ?, closed_seq = ?, outcome = ?, reason = ?, val_bpb = ?,"
                " claims_sha256 = ?, sealed = ? WHERE id = ? AND tag = ? AND outcome IS NULL",
                (
                    *(now(), seq, trial.outcome, trial.reason, trial.val_bpb),
                    *(trial.claims_sha256, int(trial.sealed), trial_id, tag),
                ),
            ).rowcount
            if changed != 1:
                raise _no_open_trial(trial_id)
            _insert_runs(db, trial_id, trial)

    def close_lost_trials(self, tag: str) -> int:
        """Close trials that a killed controller left open as lost; return how many."""
        with self._tick(Step.LOST_TRIALS_CLOSED, tag) as (db, seq):
            cursor = db.execute(
                "UPDATE trials SET closed_at = ?, closed_seq = ?, outcome = ?, reason = ?, val_bpb = NULL"
                " WHERE tag = ? AND outcome IS NULL",
                (now(), seq, Outcome.LOST, "the controller was killed", tag),
            )
        return cursor.rowcount


def _insert(db: sqlite3.Connection, table: str, columns: Mapping[str, Any]) -> int:
    names, places = ", ".join(columns), ", ".join("?" * len(columns))
    cursor = db.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(columns.values()))  # noqa: S608
    return cursor.lastrowid or 0


def _insert_runs(db: sqlite3.Connection, trial_id: int, trial: Trial) -> None:
    """Add the runs that are not recorded yet: a run is final once it has ended."""
    places = ", ".join("?" * (2 + len(RUN_COLUMNS)))
    db.executemany(
        f"INSERT INTO runs (trial, position, {', '.join(RUN_COLUMNS)}) VALUES ({places})"  # noqa: S608
        " ON CONFLICT (trial, position) DO NOTHING",
        [(trial_id, position, *run_values(run)) for position, run in enumerate(trial.runs)],
    )


def _no_open_trial(trial_id: int) -> LedgerError:
    return LedgerError(f"trial {trial_id} has ended already, or does not exist", "autoresearch doctor")
