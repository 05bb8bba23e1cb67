"""Sums over a whole campaign, computed by SQLite: what `status` shows without reading every experiment.

Each figure is one that `runner.report` computes from experiments too, and a test holds the two equal. What is rare
among runs is looked up in the partial indexes of `runs`, hence the order of the joins.
"""

from __future__ import annotations

import json
from collections import Counter

from runner.records import Verdict
from runner.storage.database import Database


class Aggregates:
    """Aggregates of one campaign. Every method raises what `Database` raises."""

    def __init__(self, database: Database, tag: str) -> None:
        self._read = database.read
        self._tag = tag

    def verdicts(self) -> Counter[Verdict]:
        """The number of experiments that ended with each verdict, the baseline not counted."""
        rows = self._read(
            "SELECT verdict, count(*) FROM experiments"
            " WHERE tag = ? AND verdict IS NOT NULL AND number > 0 GROUP BY verdict",
            self._tag,
        )
        return Counter({Verdict(verdict): count for verdict, count in rows})

    def newest_sigma_bpb(self) -> float | None:
        """The newest noise figure that a verdict used."""
        rows = self._read(
            "SELECT sigma_bpb FROM experiments"
            " WHERE tag = ? AND verdict IS NOT NULL AND sigma_bpb IS NOT NULL ORDER BY number DESC LIMIT 1",
            self._tag,
        )
        return float(rows[0][0]) if rows else None

    def lowest_claim(self) -> tuple[int, float] | None:
        """The lowest claimed score that an idea or the baseline was judged by, with its number."""
        rows = self._read(
            "SELECT number, runs.val_bpb FROM runs CROSS JOIN trials ON trials.id = trial"
            " CROSS JOIN experiments ON experiments.tag = trials.tag AND number = experiment"
            " WHERE phase = 'score' AND runs.val_bpb IS NOT NULL AND experiments.tag = ? AND kind = 'candidate'"
            " AND outcome IS NOT NULL AND verdict IN ('keep', 'accept', 'discard', 'unclear')"
            " AND experiments.val_bpb IS NOT NULL AND certifies = '[]'"
            " ORDER BY runs.val_bpb LIMIT 1",
            self._tag,
        )
        return (int(rows[0][0]), float(rows[0][1])) if rows else None

    def strikes(self) -> Counter[int]:
        """The number of challengers of each champion, by its number, the audit has refused."""
        rows = self._read(
            "SELECT champion, count(DISTINCT number) FROM runs CROSS JOIN trials ON trials.id = trial"
            " CROSS JOIN experiments ON experiments.tag = trials.tag AND number = experiment"
            " WHERE experiments.tag = ? AND kind = 'candidate' AND verdict = 'invalid'"
            " AND champion IS NOT NULL AND outcome IS NOT NULL AND json_extract(audit, '$.finding') IS NOT NULL"
            " GROUP BY champion",
            self._tag,
        )
        return Counter(dict(tuple(row) for row in rows))

    def stopped_early(self, usual_seconds: float) -> tuple[int, float]:
        """Return how many experiments were stopped early, and the seconds saved against a usual trial's."""
        (row,) = self._read(
            "SELECT count(*), coalesce(sum(max(0.0, ? - coalesce(wall_seconds, 0.0))), 0.0) FROM runs"
            " CROSS JOIN trials ON trials.id = trial"
            " CROSS JOIN experiments ON experiments.tag = trials.tag AND number = experiment WHERE end = 'stopped'"
            " AND trials.tag = ? AND kind = 'candidate' AND outcome = 'stopped' AND verdict = 'discard'",
            *(usual_seconds, self._tag),
        )
        return int(row[0]), float(row[1])

    def finished_anyway(self) -> tuple[int, int]:
        """Return how many unpromising trials were finished and judged, and how many of these were accepted."""
        (row,) = self._read(
            "SELECT count(*), coalesce(sum(verdict = 'accept'), 0)"
            " FROM runs CROSS JOIN trials ON trials.id = trial"
            " CROSS JOIN experiments ON experiments.tag = trials.tag AND number = experiment"
            " WHERE json_extract(curve, '$.stop_reason') IS NOT NULL AND end <> 'stopped'"
            " AND trials.tag = ? AND kind = 'candidate'"
            " AND outcome = 'scored' AND figures IS NOT NULL",
            self._tag,
        )
        return int(row[0]), int(row[1])

    def certificates(self) -> list[tuple[Verdict, tuple[int, ...]]]:
        """Verdict and edits of each certificate that was judged."""
        rows = self._read(
            "SELECT verdict, certifies FROM experiments"
            " WHERE tag = ? AND verdict IS NOT NULL AND certifies <> '[]' ORDER BY number",
            self._tag,
        )
        return [(Verdict(verdict), tuple(json.loads(certifies))) for verdict, certifies in rows]
