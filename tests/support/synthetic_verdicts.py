"""Figures of a verdict and of a clean audit, for tests that need some but not certain ones."""

from __future__ import annotations

from runner.records import AuditRecord, Figures

CLEAN = AuditRecord(
    claimed_bpb=1.0, num_positions=8, mean_nats=0.0, se_nats=0.0, upper_nats=0.0, exceedances=(0, 0, 0, 0),
    repeat=None, suffix=None, neighbors=None,
)  # fmt: skip
FIGURES = Figures(
    trials=(22, 25, 28), pool=(3, 12), delta_bpb=-0.0123, se_bpb=0.0031, sigma_bpb=0.0071, better=0.97,
    effect_bpb=-0.01, low_bpb=-0.015, high_bpb=-0.005,
)  # fmt: skip
