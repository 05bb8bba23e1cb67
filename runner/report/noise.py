"""What repeated runs of the baseline say, and what a campaign takes for its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from runner.config import Config
from runner.decision.history import noise_groups, scored, scores
from runner.decision.keep_rule import PRIOR_WEIGHT, noise_freedom, pooled_sigma
from runner.records import Experiment


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Figures of the baseline's audited runs, and the pooled noise of its campaign, in bpb."""

    scores_bpb: tuple[float, ...]
    mean_bpb: float | None
    sd_bpb: float | None  # None with fewer than two runs
    sigma_bpb: float  # σ̂: prior, and all repeated runs of the campaign
    freedom: float  # degrees of freedom of σ̂, those of the prior among them
    prior_freedom: float = PRIOR_WEIGHT


def sum_up_noise(experiments: Sequence[Experiment], config: Config) -> Noise:
    """Put the figures together; the first experiment is the baseline."""
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
    """For people."""
    count = len(noise.scores_bpb)
    own = f"{count} run{'' if count == 1 else 's'} of the baseline"
    if noise.mean_bpb is not None:
        own += f": mean {noise.mean_bpb:.4f}"
    if noise.sd_bpb is not None:
        own += f", standard deviation {noise.sd_bpb:.4f} bpb"
    return (
        f"{own}; noise sigma of the campaign {noise.sigma_bpb:.4f} with {noise.freedom:g} degrees of freedom, "
        f"{noise.prior_freedom:g} of them the prior's"
    )
