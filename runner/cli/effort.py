"""Money and time of a campaign, as `status` and the end of a night show them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.cli.workspace import Workspace
    from runner.records import Experiment, UsageTotals
    from runner.storage.ledger import CampaignRow, Ledger


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What went into a campaign."""

    experiments: tuple[Experiment, ...]
    usage: UsageTotals
    target: int
    profile: str | None
    budget_usd: float | None  # 0: no limit; None: not known

    def as_json(self) -> dict[str, Any]:
        """Plain data; null where no model was asked, and where no time has passed."""
        from runner.report.duty import NUM_LAST, duty
        from runner.report.money import count_money

        whole = duty(self.experiments)
        spent = count_money(self.experiments, self.usage, target=self.target, budget_usd=self.budget_usd)
        times = {
            "share": whole.share(),
            "last_share": duty(self.experiments, last=NUM_LAST).share(),
            "seconds": whole.seconds,
            "paused_seconds": whole.paused_seconds,
        }
        return {
            "money": asdict(spent) if self.usage.num_responses else None,
            "duty": times if whole.total_seconds else None,
        }

    def lines(self) -> list[str]:
        """For people, as far as there is something to tell."""
        from runner.report.duty import NUM_LAST, duty, duty_line
        from runner.report.money import count_money, money_lines

        recent = duty(self.experiments, last=NUM_LAST) if len(self.experiments) > NUM_LAST + 1 else None
        line = duty_line(duty(self.experiments), recent, duty_word(self.profile))
        spent = count_money(self.experiments, self.usage, target=self.target, budget_usd=self.budget_usd)
        return [*([] if line is None else [line]), *money_lines(spent)]


def count_effort(ledger: Ledger, tag: str, profile: str | None, budget_usd: float | None) -> Effort:
    """Read what went into a campaign."""
    campaign = ledger.campaign(tag)
    return Effort(
        experiments=ledger.experiments(tag),
        usage=ledger.usage_totals(tag),
        target=0 if campaign is None else campaign.target,
        profile=profile,
        budget_usd=budget_usd,
    )


def read_effort(workspace: Workspace, campaign: CampaignRow) -> Effort:
    """The same for a command that has no settings: the budget is what file and environment say now.

    A night may have had another one from its command line; the ledger does not know.
    """
    profile = campaign.conditions.get("profile")
    return count_effort(workspace.ledger, campaign.tag, profile, _budget(workspace.repository.root, profile))


def duty_word(profile: str | None) -> str:
    """What the share of time in training is called."""
    return "GPU duty" if profile == "cuda" else "training duty"


def _budget(directory: Path, profile: str | None) -> float | None:
    from runner import config

    try:
        return config.load(directory, {}, fallbacks={} if profile is None else {"profile": profile}).budget_usd
    except ConfigError:  # no reason to hide the other figures
        return None
