"""Scores on the sealed test rows: for people, never for a proposer or a verdict.

They live in tables of their own, behind an object of their own. An import contract allows this module to the
command line and to those who write it; reports get the scores as plain arguments.
"""

from __future__ import annotations

import json
from typing import Any

from runner.failpoints import Step
from runner.records import SealedScore
from runner.storage.clock import now
from runner.storage.database import Database


class SealedScores:
    """Sealed scores of a ledger. Every method raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, tag: str, score: SealedScore, claims_sha256: str) -> None:
        """Record a score; a second one of the same trial replaces it."""
        with self._database.transaction(Step.SCORE_SEALED) as db:
            db.execute(
                "INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)",
                (tag, score.number, score.seed, score.val_bpb, score.test_bpb, claims_sha256, now()),
            )

    def of(self, tag: str) -> tuple[SealedScore, ...]:
        """Sealed scores of a campaign's champions, by experiment. A tip that was not certified is none of them."""
        rows = self._database.read(
            "SELECT sealed.* FROM sealed JOIN experiments USING (tag, number)"
            " WHERE tag = ? AND verdict = 'keep' ORDER BY number, sealed.rowid",
            tag,
        )
        return tuple(
            SealedScore(number=row["number"], seed=row["seed"], val_bpb=row["val_bpb"], test_bpb=row["test_bpb"])
            for row in rows
        )

    def attempts(self, programs_sha256: str) -> list[dict[str, Any]]:
        """Earlier attempts to confirm a claim about two programs, oldest first."""
        rows = self._database.read(
            "SELECT attempt FROM confirmations WHERE programs_sha256 = ? ORDER BY number", programs_sha256
        )
        return [json.loads(row["attempt"]) for row in rows]

    def record_attempt(self, programs_sha256: str, number: int, attempt: dict[str, Any]) -> None:
        """Record an attempt, or replace its earlier state; it counts against every later one.

        Args:
            number: of the attempt at these programs, from 1.
        """
        with self._database.transaction(Step.ATTEMPT_RECORDED) as db:
            db.execute(
                "INSERT OR REPLACE INTO confirmations VALUES (?, ?, ?, ?)",
                (programs_sha256, number, now(), json.dumps(attempt, sort_keys=True)),
            )
