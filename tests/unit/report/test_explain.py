"""Explanations of verdicts and audits: every case has a sentence, hostile text is harmless."""

from __future__ import annotations

import pytest

from runner.records import AuditRecord, RunEnd
from runner.report.explain import audit_lines, explain, strikes_line
from tests.support.synthetic_experiments import experiment, run
from tests.support.trials import trials_of

FAILED = run(end=RunEnd.FAILED, exit_code=1)
OUT_OF_MEMORY = run(end=RunEnd.OUT_OF_MEMORY)
LOST = run(end=RunEnd.LOST)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (experiment(0, "keep", 2.0), ["The baseline", "2.0000", "0.0100"]),
        (experiment(3, None, None), ["Still running"]),
        (experiment(3, "keep", 1.8, delta_bpb=-0.05, champion=1), ["Kept", "better than experiment 1", "5.0 t"]),
        (experiment(3, "discard", 1.8, delta_bpb=-0.01), ["Discarded", "too little to distinguish from luck"]),
        (experiment(3, "discard", 1.8, delta_bpb=0.05, sigma_bpb=None), ["0.0500 worse than the champion"]),
        (experiment(3, "crash", None, trials=trials_of([OUT_OF_MEMORY])), ["Crashed", "ran out of memory"]),
        (
            experiment(3, "crash", None, retry_of=2, trials=trials_of([FAILED]), log_tail="x\nKeyError\n"),
            ["exit code 1 after 20 s", "retry of experiment 2", "log ends with: KeyError"],
        ),
        (experiment(3, "invalid", None, reason="claims above zero."), ["Invalid: claims above zero."]),
        (experiment(3, "infra", None, trials=trials_of([LOST])), ["says nothing about the idea", "vanished"]),
        (
            experiment(3, "discard", 1.8, champion=2, delta_bpb=0.02, reason="not better"),
            ["not better: val_bpb 1.8000 is 0.0200 worse than experiment 2"],
        ),
    ],
)  # fmt: skip
def test_a_verdict_is_explained(one, words):
    text = explain(one)
    assert all(word in text for word in words), text
    assert text.endswith((".", "KeyError"))


@pytest.mark.parametrize("end", RunEnd)
def test_every_way_to_end_has_a_sentence(end):
    assert explain(experiment(3, "crash", None, trials=trials_of([run(end=end)])))


def test_an_explanation_of_hostile_text_is_harmless():
    text = explain(experiment(3, "crash", None, reason="\x1b[2J\nx", log_tail="\u202eboo\x1b]0;t\x07"))
    assert text.isprintable()
    assert "\u202e" not in text


AUDIT = AuditRecord(
    claimed_bpb=1.5, num_positions=8192, mean_nats=-1e-6, se_nats=2e-6, upper_nats=2.3e-6,
    exceedances=(4, 3, 2, 1), repeat=1e-7, suffix=0.31, neighbors=None,
    finding="not_causal", reason="not causal: x",
)  # fmt: skip


def test_an_audit_shows_every_figure_and_its_reason():
    text = "\n".join(audit_lines(AUDIT))
    for word in ("1.500000", "8,192", "-1e-06", "2e-06", "4, 3, 2, 1", "1e-07", "0.31", "not measured"):
        assert word in text
    assert text.endswith("not causal: x")


def test_strikes_name_the_champions_whose_challengers_were_refused():
    assert strikes_line({}) is None
    assert (
        strikes_line({4: 1, 0: 2})
        == "Refused by the audit: 2 challengers of experiment 0, 1 challenger of experiment 4."
    )


def test_refused_challengers_of_many_champions_are_summed_up():
    line = strikes_line(dict.fromkeys(range(9), 2))
    assert line.startswith(
        "Refused by the audit: 8 challengers of 4 earlier champions, 2 challengers of experiment 4,"
    )
    assert line.endswith("2 challengers of experiment 8.") and line.count("experiment") == 5
