"""Short notes on a campaign: runs stopped early, certificates, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from runner.config import Config
from runner.decision.early_stopping import first_training, is_promising
from runner.decision.history import ROLLED_BACK, noise_groups, scored, scores
from runner.decision.keep_rule import PRIOR_WEIGHT, noise_freedom, pooled_sigma
from runner.records import Experiment, Phase, RunEnd, RunRecord, Verdict
from runner.report.effort import duration
from runner.report.summary import BASELINE, counted

CONFIDENCE = 0.90
"""Of the upper limit of the share of wrong stops."""


@dataclass(frozen=True, kw_only=True)
class EarlyStops:
    """Savings of early stopping, and how often it was wrong.

    A random share of the unpromising runs is finished anyway (`early_stop_holdout`). The share of accepted ones
    among these is an unbiased estimate of the share of wrong stops.
    """

    stopped: int  # first runs that were ended early
    saved_seconds: float  # of training and scoring, against the baseline's
    finished: int  # unpromising runs that were finished anyway, and scored
    promising: int  # of these, accepted
    wrong_at_most: float | None  # upper limit of the share of wrong stops; None: none was finished

    @property
    def wrong(self) -> float | None:
        """Estimated share of wrong stops; None while there is nothing to estimate it from."""
        return self.promising / self.finished if self.finished else None


def early_stops(experiments: Sequence[Experiment]) -> EarlyStops:
    """Count the runs that were stopped, and those that were finished anyway."""
    usual = usual_seconds(experiments)
    stopped = [run for one in experiments if (run := stopped_run(one)) is not None]
    finished = [one for one in experiments if one.figures is not None and _has_stop_reason(first_training(one))]
    promising = sum(is_promising(one) for one in finished)
    return EarlyStops(
        stopped=len(stopped),
        saved_seconds=sum(max(0.0, usual - (run.wall_seconds or 0.0)) for run in stopped),
        finished=len(finished),
        promising=promising,
        wrong_at_most=upper_limit(promising, len(finished)) if finished else None,
    )


def early_line(stops: EarlyStops) -> str | None:
    """Describe early stopping for people; None when every run was promising."""
    if not stops.stopped and not stops.finished:
        return None
    runs = counted(stops.stopped, "unpromising run")
    line = f"Stopped early: {runs}, {duration(stops.saved_seconds)} of training and scoring saved; "
    if stops.wrong is None or stops.wrong_at_most is None:
        return line + "none was finished anyway so far, so the share of wrong stops is unknown."
    promising = "1 was" if stops.promising == 1 else f"{stops.promising} were"
    return line + (
        f"of {stops.finished} finished anyway, {promising} accepted "
        f"(wrong stops {stops.wrong:.0%}, at most {stops.wrong_at_most:.0%} with {CONFIDENCE:.0%} confidence)."
    )


def stopped_run(experiment: Experiment) -> RunRecord | None:
    """Return the training that was stopped early, for which its experiment was discarded without a score."""
    if experiment.verdict is not Verdict.DISCARD or not experiment.runs:
        return None
    last = experiment.runs[-1]
    return last if last.end is RunEnd.STOPPED else None


def upper_limit(successes: int, trials: int) -> float:
    """Return the exact one-sided upper limit of a share (Clopper and Pearson).

    It is the largest p with P(X ≤ successes) ≥ 1 − `CONFIDENCE` for a binomial X of so many trials.
    """
    from scipy.special import betaincinv  # lazy: most campaigns have nothing to compute

    return 1.0 if successes >= trials else float(betaincinv(successes + 1, trials - successes, CONFIDENCE))


def _has_stop_reason(training: RunRecord | None) -> bool:
    return training is not None and training.curve is not None and training.curve.stop_reason is not None


def usual_seconds(experiments: Sequence[Experiment]) -> float:
    """Sum up the mean durations of the baseline's training and scoring."""
    runs = [run for one in experiments if one.number == BASELINE for run in one.runs]
    return sum(
        fmean(times)
        for phase in (Phase.TRAIN, Phase.SCORE)
        if (times := [run.wall_seconds for run in runs if run.phase is phase and run.wall_seconds is not None])
    )


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Verdicts on the tips of a campaign, and what became of the accepted edits."""

    tried: int
    kept: int
    accepted: int  # edits
    certified: int  # of these, in a champion
    rolled_back: int


def certificates(experiments: Sequence[Experiment]) -> Certificates:
    """Count the certificates that have a verdict."""
    judged = [
        (one.verdict, one.certifies) for one in experiments if one.is_certificate and one.verdict is not None
    ]
    return count_certificates(judged, sum(one.verdict is Verdict.ACCEPT for one in experiments))


def count_certificates(judged: Sequence[tuple[Verdict, tuple[int, ...]]], accepted: int) -> Certificates:
    """Count certificates, given verdict and edits of each.

    Args:
        accepted: number of accepted edits.
    """
    kept = [edits for verdict, edits in judged if verdict is Verdict.KEEP]
    return Certificates(
        tried=len(judged),
        kept=len(kept),
        accepted=accepted,
        certified=sum(map(len, kept)),
        rolled_back=sum(len(edits) for verdict, edits in judged if verdict in ROLLED_BACK),
    )


def certificate_line(found: Certificates) -> str | None:
    """Describe certificates for people; None when nothing was accepted."""
    if not found.accepted:
        return None
    waiting = found.accepted - found.certified - found.rolled_back
    return (
        f"Accepted onto the tip: {counted(found.accepted, 'edit')}; of these {found.certified} certified, "
        f"{found.rolled_back} rolled back, {waiting} on the tip now. "
        f"Certificates: {found.kept} of {found.tried} kept."
    )


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Figures of the baseline's audited trials, and the pooled noise of its campaign, in bpb."""

    scores_bpb: tuple[float, ...]
    mean_bpb: float | None
    sd_bpb: float | None  # None with fewer than two trials
    sigma_bpb: float  # σ̂: prior, and all repeated trials of the campaign
    freedom: float  # degrees of freedom of σ̂, including those of the prior
    prior_freedom: float = PRIOR_WEIGHT


def measure_noise(experiments: Sequence[Experiment], config: Config) -> Noise:
    """Compute the noise of a campaign; the first experiment is the baseline."""
    baseline = experiments[0]
    found = scores(scored((*baseline.trials, *baseline.control_trials), audited=True))
    groups = noise_groups(experiments)
    return Noise(
        scores_bpb=found,
        mean_bpb=fmean(found) if found else None,
        sd_bpb=stdev(found) if len(found) > 1 else None,
        sigma_bpb=pooled_sigma(groups, config.noise_prior_bpb),
        freedom=noise_freedom(groups),
    )


def noise_line(noise: Noise) -> str:
    """Describe the noise for people."""
    own = f"{counted(len(noise.scores_bpb), 'trial')} of the baseline"
    if noise.mean_bpb is not None:
        own += f": mean {noise.mean_bpb:.4f}"
    if noise.sd_bpb is not None:
        own += f", standard deviation {noise.sd_bpb:.4f} bpb"
    return (
        f"{own}; noise sigma of the campaign {noise.sigma_bpb:.4f} with {noise.freedom:g} degrees of freedom, "
        f"{noise.prior_freedom:g} of them from the prior"
    )
