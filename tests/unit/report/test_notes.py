"""What reports say about stopped runs; every reader of discards copes with one without a score."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.cli.display import verdict_line
from runner.cli.workspace import as_json
from runner.decision.early_stopping import NUM_FRACTIONS
from runner.proposers.researcher.digest import digest
from runner.proposers.researcher.experiments_tool import read
from runner.proposers.researcher.plateau import plateau
from runner.records import Curve, Experiment, Phase, RunEnd, RunRecord, StopReason, Verdict
from runner.report.explain import explain
from runner.report.findings import find
from runner.report.notes import certificate_line, certificates, early_line, early_stops, upper_limit
from runner.report.plot import progress_png
from runner.report.summary import summarize, summary_text
from runner.report.table import plain_lines, results_tsv
from tests.support.ledgers import open_experiment, record_trial
from tests.support.scripted_controller import TAG, controller, make_repository
from tests.support.synthetic_verdicts import FIGURES
from tests.support.trials import trials_of

REASON = "stopped at 50% of its time: its loss 3.250 is 0.250 above the champion's there; a chance of 0.4% to be"
REASON_TO_STOP = StopReason(fraction=0.5, loss=3.25, tip_loss=3.0, chance=0.004)


def run(phase, seed, end=RunEnd.FINISHED, seconds=20.0, stop_reason=None, bpb=None):
    curve = Curve(losses=(3.0,) * NUM_FRACTIONS, stop_reason=stop_reason) if phase is Phase.TRAIN else None
    return RunRecord(
        phase=phase, seed=seed, end=end, exit_code=None, wall_seconds=seconds, cpu_seconds=seconds,
        curve=curve, val_bpb=bpb,
    )  # fmt: skip


def baseline():
    trials = trials_of([run(Phase.TRAIN, 1), run(Phase.SCORE, 1, seconds=4.0, bpb=2.0)])
    return Experiment(
        number=0,
        hypothesis="baseline",
        proposer="p",
        verdict=Verdict.KEEP,
        val_bpb=2.0,
        sigma_bpb=0.01,
        trials=trials,
    )


def stopped(number):
    return Experiment(
        number=number, hypothesis=f"idea {number}", proposer="p", verdict=Verdict.DISCARD, reason=REASON,
        sigma_bpb=0.01, champion=0, category="optimizer",
        trials=trials_of([run(Phase.TRAIN, number, RunEnd.STOPPED, 10.0, REASON_TO_STOP)], first_id=number),
    )  # fmt: skip


def finished(number, stop_reason=REASON_TO_STOP, verdict=Verdict.DISCARD):
    changes = {
        "trials": (number,),
        "effect_bpb": 0.4,
    }
    figures = FIGURES.__class__(**{**FIGURES.__dict__, **changes})
    runs = [run(Phase.TRAIN, number, stop_reason=stop_reason), run(Phase.SCORE, number, bpb=2.5)]
    return Experiment(
        number=number, hypothesis="finished", proposer="p", verdict=verdict, champion=0, val_bpb=2.5,
        delta_bpb=0.5, sigma_bpb=0.01, figures=figures, trials=trials_of(runs, first_id=number),
    )  # fmt: skip


NIGHT = [
    baseline(),
    stopped(1),
    stopped(2),
    finished(3),
    finished(4, verdict=Verdict.ACCEPT),
    finished(5, stop_reason=None),
]


def test_stopped_and_finished_runs_are_counted_with_the_time_that_they_saved():
    found = early_stops(NIGHT)
    assert (found.stopped, found.saved_seconds) == (2, 28.0), "20 s of training, 4 s of scoring, 10 s spent"
    assert (found.finished, found.promising, found.wrong) == (2, 1, 0.5)
    assert early_line(found) == (
        "Stopped early: 2 unpromising runs, 28 s of training and scoring saved; of 2 finished anyway, 1 was "
        "accepted (wrong stops 50%, at most 95% with 90% confidence)."
    )


def test_nothing_is_said_where_every_run_was_promising_and_an_unknown_share_is_called_unknown():
    assert early_line(early_stops([baseline(), finished(1, stop_reason=None)])) is None
    assert "is unknown" in early_line(early_stops(NIGHT[:2]))
    assert early_stops(NIGHT[:2]).wrong is None


@pytest.mark.parametrize("trials", [1, 5, 22])
def test_the_upper_limit_has_its_closed_forms(trials):
    assert upper_limit(0, trials) == pytest.approx(1 - 0.1 ** (1 / trials))
    assert upper_limit(trials, trials) == pytest.approx(1.0)
    assert upper_limit(trials - 1, trials) == pytest.approx(0.9 ** (1 / trials))


def test_the_upper_limit_of_many_trials_is_near_the_share():
    assert 0.5 < upper_limit(5_000, 10_000) < 0.51


def test_every_reader_copes_with_a_discard_without_a_score(tmp_path):
    night = NIGHT[:3]
    assert REASON in explain(night[1]) and explain(night[1]).startswith("Discarded: stopped at 50%")
    assert REASON in verdict_line(night[1])
    assert "2 discarded" in summary_text(night)
    assert summarize(night).counts[Verdict.DISCARD] == 2
    assert len(plain_lines(night)) == 4
    assert results_tsv(night).splitlines()[2].split("\t")[1:4] == ["", "", "discard"]
    progress_png(night, tmp_path / "p.png", "t")
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert find(night).raw[-1].bpb == 2.0
    assert json.dumps(as_json(night[1], full=True))
    assert plateau(night, 2).tried == 2
    text = digest(night)
    assert text.count("stopped at 50% of its time") == 2, "the model learns why"
    assert "2 tried" in text
    assert "stopped at 50%" in read({"numbers": [1], "limit": 1}, night)
    assert "stopped at 50%" in read({"status": "discard", "limit": 9}, night)


def test_the_fates_of_accepted_edits_are_counted():
    def one(number, verdict, certifies=()):
        return Experiment(number=number, hypothesis="h", proposer="p", verdict=verdict, certifies=certifies)

    night = [baseline(), *(one(number, Verdict.ACCEPT) for number in range(1, 7))]
    assert certificate_line(certificates(night[:1])) is None
    night += [
        one(7, Verdict.UNCLEAR, (1, 2)), one(8, Verdict.KEEP, (1, 2, 3)), one(9, Verdict.DISCARD, (4,)),
        one(10, Verdict.INFRA, (5,)), one(11, None, (5, 6)),
    ]  # fmt: skip
    assert certificate_line(certificates(night)) == (
        "Accepted onto the tip: 6 edits; of these 3 certified, 1 rolled back, 2 on the tip now. "
        "Certificates: 1 of 4 kept."
    )


def test_status_and_show_report_a_stopped_run(tmp_path, monkeypatch):
    root = make_repository(tmp_path / "r")
    with controller(root) as made:
        number = open_experiment(made.ledger, champion=0)
        (trial,) = trials_of([run(Phase.TRAIN, 5, RunEnd.STOPPED, 10.0, REASON_TO_STOP)])
        record_trial(made.ledger, number, trial)
        made.ledger.close_experiment(TAG, number, verdict=Verdict.DISCARD, reason=REASON, sigma_bpb=0.01)
    monkeypatch.chdir(root)

    def say(*arguments):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    assert "Stopped early: 1 unpromising run" in say("status", "--tag", TAG)
    assert json.loads(say("status", "--tag", TAG, "--json"))["early_stop"]["stopped"] == 1
    assert REASON in say("show", "1", "--tag", TAG)
    shown = json.loads(say("show", "1", "--tag", TAG, "--json"))
    (trial,) = shown["trials"]
    (trained,) = trial["runs"]
    assert trial["outcome"] == trained["end"] == "stopped"
    assert trained["curve"]["stop_reason"]["chance"] == 0.004
    assert "wrote" in say("report", "--tag", TAG)
