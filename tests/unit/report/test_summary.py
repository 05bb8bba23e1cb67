"""The campaign in one paragraph."""

from __future__ import annotations

from runner.report.summary import summary_text
from tests.support.synthetic_experiments import experiment


def test_the_summary_states_gain_counts_and_noise():
    made = [
        experiment(0, "keep", 2.0),
        experiment(1, "accept", 1.7),
        experiment(2, "keep", 1.75, delta_bpb=-0.2, certifies=(1,)),
        experiment(6, "discard", 1.85),
        experiment(7, "unclear", 1.85, certifies=(8,)),
        experiment(3, "crash", None),
        experiment(4, "invalid", 0.1),
        experiment(5, None, None),
    ]
    assert summary_text(made) == (
        "Baseline 2.0000 → champion 1.8000 bpb (-0.2000, -10.00%), experiment 2. 4 ideas: 1 kept, 1 accepted, "
        "1 discarded, 1 unclear, 1 crashed, 1 invalid; 2 certificates among them. Noise sigma 0.0100 bpb."
    )


def test_a_summary_without_improvement_or_baseline_says_so():
    assert summary_text([]) == "No baseline yet: nothing can be compared."
    assert "no experiments yet" in summary_text([experiment(0, "keep", 2.0)])
    assert "No certified improvement" in summary_text([experiment(0, "keep", 2.0), experiment(1)])
    assert "2 lost to infrastructure" in summary_text(
        [experiment(0, "keep", 2.0), experiment(1, "infra", None), experiment(2, "infra", None)]
    )
