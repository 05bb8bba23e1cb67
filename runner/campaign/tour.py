"""The demo: the stops of the tour, then some experiments of the offline proposer, in one campaign."""

from __future__ import annotations

from dataclasses import replace

from runner.campaign import night
from runner.campaign.campaign import Controller
from runner.campaign.stop_switch import StopSwitch
from runner.proposers.optuna import OptunaProposer
from runner.proposers.tour import TourProposer

AFTER_THE_TOUR = 2
"""Experiments of the offline proposer that follow the tour, unless the person wants another number."""
LATER = 8
"""The same at each further start."""


def run(controller: Controller, guide: TourProposer, stop: StopSwitch, experiments: int | None) -> str:
    """Make the stops that the ledger does not have yet, then let the offline proposer go on; return why it ended.

    Args:
        experiments: of the offline proposer; None: a few.
    """
    ledger, tag = controller.ledger, controller.config.tag
    resumed = not guide.is_over([one for one in ledger.experiments(tag) if one.verdict is not None])
    wanted = experiments if experiments is not None else AFTER_THE_TOUR if resumed else LATER
    if resumed:
        reason = night.run(controller, guide, stop, more=guide.num_patches)
        if stop.requested:
            return reason
        done = sum(one.number > 0 and one.verdict is not None for one in ledger.experiments(tag))
        ledger.set_target(tag, done + wanted)
    config = controller.config.model_copy(update={"experiments": wanted})
    return night.run(replace(controller, config=config), OptunaProposer(), stop)
