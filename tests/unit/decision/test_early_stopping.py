"""Early stopping: the calibration, its limits, and how a watch uses it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import stdtr

from runner.config import load
from runner.decision import early_stopping, effect_prior, exploration
from runner.decision.early_stopping import NUM_FRACTIONS, Line, calibrate, fraction, promising_boundary, sampled
from runner.decision.exploration import Change
from runner.decision.keep_rule import Action, Belief
from runner.decision.memory import Memory
from runner.decision.tip import TipRule
from runner.decision.tip_state import NO_EVIDENCE, Level, Tip
from runner.evaluation import trial
from runner.evaluation.evaluator import Evaluator, Program, TrialRequest
from runner.evaluation.loss_monitor import MAX_HEARD, LossMonitor
from runner.evaluation.outcome import Failure, training_failure
from runner.evaluation.outcome import contention as disturbance
from runner.records import Curve, Experiment, Outcome, Phase, RunEnd, RunRecord, StopReason, Verdict
from runner.sandbox import core_meter
from runner.untrusted import training_loss
from tests.support.silent_observer import SilentObserver
from tests.support.synthetic_trainings import BOUNDARY, NATS, SE, SEED, SIGMA, World, level
from tests.support.trials import failed

AT = NUM_FRACTIONS // 2 - 1  # half of the time


def calibrated(experiments, **changes):
    settings = {"boundary_bpb": BOUNDARY, "early_stop_threshold": 0.05, "early_stop_min_trials": 12, **changes}
    return calibrate(experiments, experiments[0], SEED, **settings)


def first_stop(calibration, losses):
    """The reason why the first fraction that finds a curve unpromising does so."""
    reasons = (calibration.stop_reason(index, losses[index]) for index in range(NUM_FRACTIONS - 1))
    return next((stop_reason for stop_reason in reasons if stop_reason is not None), None)


# ------------------------------------------------------------------------------ mathematics


@pytest.mark.parametrize("t", [-30.0, -3.0, -0.5, 0.0, 1.0, 4.0])
def test_a_chance_has_the_closed_forms_of_student_t(t):
    def chance(freedom):
        """At the mean gap, where a prediction has the leverage 1 + 1/n."""
        num = freedom + 2
        line = Line(intercept=0.0, slope=1.0, spread_bpb=1.0, num=num, mean_gap=0.0, squares=1.0, cut=1.0, seen=())
        return line.chance(0.0, t * math.sqrt(1 + 1 / num))

    assert chance(1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
    assert chance(2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)
    normal = (1 + math.erf(t / math.sqrt(2))) / 2
    assert chance(100_000) == pytest.approx(normal, abs=1e-4)


def test_the_line_is_that_of_least_squares_with_its_prediction_interval():
    night = World(1).campaign(40)
    line = calibrated(night).lines[AT]
    points = early_stopping.points(night)
    x = np.clip([one.gaps[AT] for one in points], -line.cut, line.cut)
    end = max(
        early_stopping.CUT * np.median([abs(one.delta_bpb) for one in points]), early_stopping.DELTA_CUT * SE
    )
    y = np.clip([one.delta_bpb for one in points], -end, end)
    slope, intercept = np.polyfit(x, y, 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    s = math.sqrt(((y - intercept - slope * x) ** 2).sum() / (len(x) - 2))
    gap = 0.5 * line.cut
    se = s * math.sqrt(1 + 1 / len(x) + (gap - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    expected = stdtr(len(x) - 2, (BOUNDARY - intercept - slope * gap) / se)
    assert replace(line, seen=()).chance(gap, BOUNDARY) == pytest.approx(expected)


def test_a_curve_is_the_mean_of_what_was_heard_since_the_fraction_before():
    heard = [(0.01, 7.0), (0.02, 5.0), (0.5, 3.0), (0.999, 2.0), (1.0, 4.0), (1.2, 99.0)]
    losses = sampled(heard)
    assert len(losses) == NUM_FRACTIONS
    assert (losses[0], losses[6], losses[-1]) == (6.0, 3.0, 3.0)
    assert all(loss is None for loss in (*losses[1:6], *losses[7:-1]))
    assert [fraction(index) for index in (0, NUM_FRACTIONS - 1)] == [1 / NUM_FRACTIONS, 1.0]


# -------------------------------------------------------------------------------- decisions


def test_no_run_is_unpromising_before_enough_candidates_are_finished():
    night = World(2).campaign(12)
    assert calibrated(night[:12]) is None, "eleven candidates"
    assert calibrated(night) is not None
    assert calibrated(night, early_stop_threshold=0.0) is None, "switched off"
    assert calibrated(night, boundary_bpb=None) is None


def test_a_much_worse_run_is_unpromising_and_one_that_equals_the_champion_is_not():
    known = calibrated(World(3).campaign(60))
    worse = tuple(loss + NATS * 10 * SIGMA for loss in known.tip)
    stop_reason = known.stop_reason(AT, worse[AT])
    assert stop_reason is not None and stop_reason.chance < 0.02
    assert stop_reason.loss - stop_reason.tip_loss == pytest.approx(NATS * 10 * SIGMA)
    assert first_stop(known, known.tip) is None
    assert first_stop(known, [None] * NUM_FRACTIONS) is None, "a run that prints nothing is not stopped"


def test_no_run_is_unpromising_in_the_first_quarter_of_the_time():
    known = calibrated(World(3).campaign(60))
    early = [index for index in range(NUM_FRACTIONS) if fraction(index) < 0.25]
    assert early and all(known.stop_reason(index, 1000.0) is None for index in early)
    assert known.stop_reason(early[-1] + 1, 1000.0) is not None


def stops_of(seeds, num_finished, effect, **changes):
    """Thirty candidates for each campaign: how many are stopped, how many wrongly, and the share of time saved."""
    wrong = stops = 0
    saved = 0.0
    for seed in seeds:
        world = World(seed)
        night = world.campaign(num_finished)
        known = calibrated(night, **changes)
        mean = level(night[0])
        for _ in range(30):
            losses, bpb = world.training(effect(world))
            assert first_stop(known, known.tip) is None
            if (stop_reason := first_stop(known, losses)) is not None:
                stops, saved, wrong = (
                    stops + 1,
                    saved + 1 - stop_reason.fraction,
                    wrong + (bpb - mean < known.boundary_bpb),
                )
    return stops, wrong, saved / (30 * len(seeds))


def test_stops_are_wrong_no_more_often_than_the_threshold_says():
    """Candidates that change nothing, where only a clear improvement would be promising."""
    changes = {"boundary_bpb": -0.9 * SE, "early_stop_threshold": 0.02}
    stops, wrong, _ = stops_of(range(100, 135), 60, lambda world: 0.0, **changes)
    assert stops > 100, "the twin: something is stopped at all"
    assert wrong <= 0.02 * stops + 2


def test_stops_of_a_usual_mix_are_rarely_wrong_and_save_time():
    stops, wrong, saved = stops_of(range(500, 530), 40, World.effect)
    assert wrong <= 0.08 * stops, "as the documentation says for thresholds of 5 %"
    assert saved > 0.2, "a share of the training time of all"


def test_late_bloomers_make_it_careful():
    plain, warned = (calibrated(World(4).campaign(40, late=late)) for late in (0, 4))
    bad = [None if loss is None else loss + NATS * 5 * SIGMA for loss in plain.tip]
    assert first_stop(plain, bad) is not None
    warned_bad = [None if loss is None else loss + NATS * 5 * SIGMA for loss in warned.tip]
    assert first_stop(warned, warned_bad) is None, "four of forty came back from there"


def test_where_a_larger_gap_ends_better_no_run_is_stopped():
    world = World(5)
    champion = world.champion()
    made = [world.training(0.002 * index, late=True) for index in range(1, 40)]
    night = [champion, *(world.candidate(at + 1, *one, champion) for at, one in enumerate(made))]
    known = calibrated(night)
    assert known is None or first_stop(known, [1000.0] * (NUM_FRACTIONS - 1)) is None


@pytest.mark.parametrize(
    ("gap", "bpb"), [(1e9, 1.0), (-3.0, 1.5), (0.01, 99.0), (1e9, 0.9)], ids=["high", "low", "worst", "best"]
)
def test_a_liar_makes_no_other_run_unpromising(gap, bpb):
    world = World(6)
    night = world.campaign(40)
    known = calibrated(night)
    lie = tuple(max(0.0, loss + gap) for loss in known.tip)
    lied = calibrated([*night, world.candidate(len(night), lie, bpb, night[0])])
    for sigmas in np.linspace(-3, 3, 61):
        loss = known.tip[AT] + NATS * sigmas * SIGMA
        assert known.stop_reason(AT, loss) is not None or lied is None or lied.stop_reason(AT, loss) is None


def test_the_boundary_is_that_of_an_accepted_edit():
    prior = effect_prior.prior(0.5 * SIGMA)
    belief = Belief(prior=prior, weights=prior.weights, sigma_bpb=SIGMA)
    at = Level(mean=1.0, variance=(SIGMA / 2) ** 2)
    known = Tip(champion=0, seed=SEED, level=at, champion_level=at, log_shares=NO_EVIDENCE)

    def is_accepted(delta, **change):
        judged = exploration.judge(TipRule(), belief, known, 1.0 + delta, Change(**change))
        return judged.action is Action.ACCEPT

    boundary = promising_boundary(is_accepted, SIGMA)
    assert is_accepted(boundary - 1e-9) and not is_accepted(boundary + 1e-9)
    assert -SIGMA < boundary < 0
    simpler = promising_boundary(lambda delta: is_accepted(delta, lines_added=-3, simplification=True), SIGMA)
    assert simpler > boundary, "a simplification may be a little worse"
    assert promising_boundary(lambda _: False, SIGMA) is None
    assert promising_boundary(lambda _: True, SIGMA) is None


def test_a_training_is_compared_with_that_of_its_tip_under_the_same_seed():
    """What the seed does to a loss cancels: other seeds of the champion say nothing."""
    world = World(8)
    night = world.campaign(20)
    own, other = night[0].trials[0], world.trial((9.0,) * NUM_FRACTIONS, 1.0)
    elsewhere = replace(night[0], trials=(own, replace(other, seed=SEED + 1)))
    assert early_stopping.reference_curve(elsewhere, SEED) == own.training.curve.losses
    again = replace(night[0], trials=(own,), control_trials=(world.trial((1.0,) * NUM_FRACTIONS, 1.0),))
    mean = tuple((a + 1.0) / 2 for a in own.training.curve.losses)
    assert early_stopping.reference_curve(again, SEED) == pytest.approx(mean)
    assert early_stopping.reference_curve(again, SEED, own.closed_seq + 1) == own.training.curve.losses


# ------------------------------------------------------------------------------- the watch


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watch(draw=1.0, finish=0.1, known=None):
    clock = Clock()
    known = calibrated(World(3).campaign(60)) if known is None else known
    made = LossMonitor(10.0, known, finish, clock=clock, draw=lambda: draw)
    return made, clock


def hear(made, clock, loss, until):
    """Print ten lines a second."""
    while clock.now < until:
        clock.now = round(clock.now + 0.1, 6)
        made.hear(f"step 1 loss {loss} tokens/s 9")
        if made.gives_up():
            return clock.now
    return None


def test_an_unpromising_run_is_given_up_for_good_and_its_curve_says_why():
    made, clock = watch()
    made.start()
    assert 2.5 <= hear(made, clock, 9.0, until=9.0) <= 2.6, "at the first quarter"
    made.hear("step 2 loss 0.1 tokens/s 9")
    clock.now = 7.0
    assert made.gives_up()
    curve = made.curve()
    assert curve.stop_reason.fraction == 0.25 and curve.stop_reason.loss == pytest.approx(9.0)
    assert curve.losses[2] == 9.0 and curve.losses[-1] is None


def test_an_unpromising_run_that_was_drawn_is_finished_and_says_so():
    made, clock = watch(draw=0.05)
    made.start()
    assert hear(made, clock, 9.0, until=10.0) is None
    assert made.curve().stop_reason.fraction == 0.25, "drawn once, not at every fraction"


def test_a_run_that_is_silent_or_lies_without_numbers_is_not_given_up():
    made, clock = watch()
    assert not made.gives_up(), "its clock has not begun"
    made.start()
    for line in ("", "step 1 loss nan tokens/s 9", "step 1 loss inf tokens/s 9", "loss 1e300", "step x loss 9"):
        made.hear(line)
    clock.now = 5.0
    assert not made.gives_up()
    assert made.curve() is None


def test_no_run_is_given_up_without_a_calibration_or_at_the_end():
    made, clock = watch(known=None)
    made.calibration = None
    made.start()
    assert hear(made, clock, 9.0, until=10.0) is None
    assert made.curve().stop_reason is None
    made, clock = watch()
    made.start()
    clock.now = 9.99
    made.hear("step 1 loss 9.0 tokens/s 9")
    clock.now = 10.0
    assert not made.gives_up()


def test_only_the_first_lines_of_a_program_that_prints_without_end_count():
    made, _ = watch()
    made.start()
    for _ in range(MAX_HEARD + 10):
        made.hear("step 1 loss 1.0 tokens/s 9")
    assert len(made._heard) == MAX_HEARD


@pytest.mark.parametrize(
    ("line", "loss"),
    [
        ("step 120 loss 3.214 tokens/s 31000 elapsed 2", 3.214),
        ("step 1 loss 999999999.999999999 tokens/s 1", 1e9),
        ("step 1 loss nan tokens/s 1", None),
        ("step 1 loss -3.0 tokens/s 1", None),
        ("nothing", None),
    ],
)
def test_a_loss_is_a_bounded_number_or_none(line, loss):
    assert training_loss(line) == (None if loss is None else pytest.approx(loss))


# ------------------------------------------------------------------------------ the ledger's


def stopped_run(others=0.0, seed=3):
    stop_reason = StopReason(fraction=0.45, loss=3.21, tip_loss=2.91, chance=0.004)
    return RunRecord(
        phase=Phase.TRAIN, seed=seed, end=RunEnd.STOPPED, exit_code=None, wall_seconds=9.0, cpu_seconds=9.0,
        others_cpu_seconds=others, curve=Curve(losses=(3.2,) * NUM_FRACTIONS, stop_reason=stop_reason),
    )  # fmt: skip


def test_a_recorded_stop_has_its_reason_unless_others_disturbed_it():
    config = load(Path("/nonexistent"), {"profile": "cpu"}, environ={})
    assert training_failure(stopped_run(), config) == Failure(
        Outcome.STOPPED,
        "stopped at 45% of its time: its loss 3.210 is 0.300 above the tip's there; "
        "a chance of 0.4% to be accepted",
    )
    assert disturbance(stopped_run(), config) is None
    assert disturbance(stopped_run(others=5.0), config).outcome is Outcome.CONTENDED
    assert training_failure(replace(stopped_run(), end=RunEnd.DEADLINE), config) is None


def test_a_stopped_trial_counts_for_the_next_control_and_teaches_nothing_about_effects():
    config = load(Path("/nonexistent"), {"profile": "cpu"}, environ={})
    night = World(7).campaign(3)
    stopped = failed(Outcome.STOPPED, SEED, runs=[stopped_run()], closed_seq=900)
    one = Experiment(
        number=4, hypothesis="h", proposer="p", verdict=Verdict.DISCARD, champion=0, parent=0, trials=(stopped,),
        closed_seq=901,
    )  # fmt: skip
    before, after = (Memory(some, config) for some in (night, [*night, one]))
    assert before.tip.number == after.tip.number
    assert not before.control_due(4)
    assert after.control_due(4) or night[3].verdict is Verdict.ACCEPT
    before, after = before.belief(), after.belief()
    assert before.weights.tolist() == after.weights.tolist() and before.sigma_bpb == after.sigma_bpb


# ------------------------------------------------------------------------------- the trial


@pytest.mark.parametrize(
    ("busy", "tolerate", "outcome"),
    [(9.0, False, Outcome.STOPPED), (18.0, False, Outcome.CONTENDED), (18.0, True, Outcome.STOPPED)],
)
def test_a_stop_that_others_may_have_caused_is_repeated_as_any_training_is(monkeypatch, busy, tolerate, outcome):
    class Session:
        def train(self, seed, on_line, on_start, on_end, gives_up):
            assert gives_up is not None
            on_start()
            on_line("step 1 loss 9.0 tokens/s 9")
            on_end()
            return replace(stopped_run(), cpu_seconds=9.0, others_cpu_seconds=None, curve=None)

    seen = iter([0.0, busy])  # core seconds of everybody
    monkeypatch.setattr(core_meter, "busy_seconds", lambda _: next(seen))
    monkeypatch.setattr(trial, "open_session", lambda *_, **__: nullcontext(Session()))
    evaluator = Evaluator(
        config=load(Path("/nonexistent"), {"profile": "cpu"}, environ={}),
        engine=None, base=SimpleNamespace(id=""),
        mounts=SimpleNamespace(locked=None), observer=SilentObserver(), controller="c",
        rows=SimpleNamespace(val_targets=np.zeros(1)), redactor=SimpleNamespace(redact=lambda text: text),
        scratch=None, claims=None,
    )  # fmt: skip
    request = TrialRequest(
        program=Program(number=1, files={}, commit="c"), seed=3,
        early_stop=calibrated(World(3).campaign(60)), tolerate_contention=tolerate,
    )  # fmt: skip
    with trial.open_trial(evaluator, request, "image", runs := []) as running:
        made = running.claim()
    assert (made.outcome, made.val_bpb) == (outcome, None)
    assert [(run.end, run.curve.losses[0]) for run in runs] == [(RunEnd.STOPPED, 9.0)]
    assert made.runs == tuple(runs)
