"""Rows of the ledger as records, and records as columns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from runner.records import (
    AuditRecord,
    Curve,
    Experiment,
    Figures,
    Outcome,
    Phase,
    RunEnd,
    RunRecord,
    Trial,
    TrialKind,
    Usage,
    Verdict,
)

_AUDIT, _CURVE, _FIGURES = TypeAdapter(AuditRecord), TypeAdapter(Curve), TypeAdapter(Figures)

RUN_COLUMNS = (
    "phase", "opened_at", "closed_at", "end", "exit_code", "wall_seconds", "cpu_seconds", "others_cpu_seconds",
    "clock_mhz", "log_tail", "val_bpb", "claims_sha256", "audit", "curve",
)  # fmt: skip
"""Columns of `runs` besides its key."""


@dataclass(frozen=True, kw_only=True)
class CampaignRow:
    """One row of `campaigns`."""

    tag: str
    created_at: str
    base_commit: str
    seed: int
    target: int
    conditions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An experiment that is closed as it is opened."""

    reason: str
    verdict: Verdict = Verdict.INVALID


def run_values(run: RunRecord) -> tuple[object, ...]:
    """Values of `RUN_COLUMNS`."""
    values = {name: getattr(run, name) for name in RUN_COLUMNS}
    values["audit"] = None if run.audit is None else _AUDIT.dump_json(run.audit).decode()
    values["curve"] = None if run.curve is None else _CURVE.dump_json(run.curve).decode()
    return tuple(values.values())


def run_of(row: sqlite3.Row, seed: int) -> RunRecord:
    """The run of a row of `runs`."""
    return RunRecord(
        phase=Phase(row["phase"]),
        seed=seed,
        end=RunEnd(row["end"]),
        exit_code=row["exit_code"],
        wall_seconds=row["wall_seconds"],
        cpu_seconds=row["cpu_seconds"],
        others_cpu_seconds=row["others_cpu_seconds"],
        clock_mhz=row["clock_mhz"],
        log_tail=row["log_tail"],
        val_bpb=row["val_bpb"],
        claims_sha256=row["claims_sha256"],
        audit=None if row["audit"] is None else _AUDIT.validate_json(row["audit"]),
        curve=None if row["curve"] is None else _CURVE.validate_json(row["curve"]),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
    )


def trial_of(row: sqlite3.Row, runs: Iterable[sqlite3.Row]) -> Trial:
    """The trial of a row of `trials`.

    Args:
        runs: its rows of `runs`, in order.
    """
    return Trial(
        id=row["id"],
        kind=TrialKind(row["kind"]),
        seed=row["seed"],
        outcome=Outcome(row["outcome"]),
        reason=row["reason"],
        val_bpb=row["val_bpb"],
        claims_sha256=row["claims_sha256"],
        sealed=bool(row["sealed"]),
        opened_seq=row["opened_seq"],
        closed_seq=row["closed_seq"],
        runs=tuple(run_of(run, row["seed"]) for run in runs),
    )


def experiment_of(row: sqlite3.Row, trials: Iterable[Trial], cost_usd: float) -> Experiment:
    """The experiment of a row of `experiments`.

    Args:
        trials: its closed ones of both kinds, in the order in which they were opened.
    """
    trials = tuple(trials)
    own = tuple(one for one in trials if one.kind is TrialKind.CANDIDATE)
    trainings = [one.training for one in own if one.training is not None]
    return Experiment(
        number=row["number"],
        hypothesis=row["hypothesis"],
        proposer=row["proposer"],
        verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
        reason=row["reason"],
        category=row["category"],
        model=row["model"],
        parameters=json.loads(row["parameters"]),
        retry_of=row["retry_of"],
        certifies=tuple(json.loads(row["certifies"])),
        diff=row["diff"],
        champion=row["champion"],
        parent=row["parent"],
        tried_commit=row["tried_commit"],
        kept_commit=row["kept_commit"],
        val_bpb=row["val_bpb"],
        delta_bpb=row["delta_bpb"],
        sigma_bpb=row["sigma_bpb"],
        cost_usd=cost_usd,
        started_at=row["opened_at"],
        ended_at=row["closed_at"],
        image_id=row["image_id"],
        layer_digest=row["layer_digest"],
        figures=None if row["figures"] is None else _FIGURES.validate_json(row["figures"]),
        log_tail=trainings[-1].log_tail if trainings else "",
        trials=own,
        control_trials=tuple(one for one in trials if one.kind is TrialKind.CONTROL),
        opened_seq=row["opened_seq"],
        closed_seq=row["closed_seq"] or 0,
        kept_seq=row["kept_seq"] or 0,
    )


def figures_json(figures: Figures | None) -> str | None:
    """The column `figures`."""
    return None if figures is None else _FIGURES.dump_json(figures).decode()


def usage_values(usage: Usage) -> Mapping[str, Any]:
    """Columns of `usage` that a response fills."""
    return {
        "model": usage.model,
        "request_id": usage.request_id,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cost_usd": usage.cost_usd,
    }
