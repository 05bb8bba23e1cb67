"""The tour of `make demo`: packed patches that show every verdict once, as ordinary experiments.

Nothing is scripted: a stop says which verdict it is meant to show, and the pipeline measures what comes out. The
ledger says which stops are done, so the tour resumes after a kill where it was.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.decision.history import was_lucky
from runner.errors import ProposerError
from runner.proposers.replay import CHECKSUM, read_patch
from runner.records import Experiment, NoProposal, Proposal, ProposalRequest, Verdict

FOLDER = "examples/tour"
INDEX = "tour.toml"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One thing that the tour shows."""

    title: str
    meant: Verdict
    patches: tuple[Proposal, ...]
    repair: Proposal | None  # of its first patch, which is meant to crash
    until_lucky: bool  # whether its further patches are tried only as long as no edit was lucky

    def number_of(self, experiment: Experiment) -> int | None:
        """The index of an experiment's patch in this stop; that of a repair is -1; None for another stop's."""
        own = experiment.parameters.get(CHECKSUM)
        if self.repair is not None and own == self.repair.parameters[CHECKSUM]:
            return -1
        checksums = [one.parameters[CHECKSUM] for one in self.patches]
        return checksums.index(own) if own in checksums else None


@dataclass(frozen=True, kw_only=True)
class Tour:
    """The index of a folder of patches."""

    stops: tuple[Stop, ...]
    settings: Mapping[str, Any]
    your_turn: Path  # a patch that none of the stops uses

    @classmethod
    def read(cls, folder: Path) -> Tour:
        """Read `tour.toml` and the patches that it names.

        Raises:
            ProposerError: a file is missing or damaged.
        """
        try:
            index = tomllib.loads((folder / INDEX).read_text("utf-8"))
            stops = tuple(_stop(folder, one) for one in index["stop"])
            return cls(stops=stops, settings=index.get("settings", {}), your_turn=folder / index["your_turn"])
        except (OSError, ValueError, KeyError) as error:
            raise ProposerError(
                f"{folder / INDEX} cannot be used: {error}", f"git checkout -- {FOLDER}"
            ) from error

    def stop_of(self, experiment: Experiment) -> tuple[int, Stop] | None:
        """The stop that an experiment belongs to, with its number from 1; None for those of other proposers."""
        if experiment.proposer != TourProposer.name:
            return None
        return next(
            ((n, one) for n, one in enumerate(self.stops, 1) if one.number_of(experiment) is not None), None
        )


class TourProposer:
    """A proposer of the stops of a tour, in order."""

    name = "tour"
    model = None
    prefetches = False

    def __init__(self, tour: Tour) -> None:
        self.tour = tour

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose the next patch that is not in the ledger, or the repair of the one that has just crashed."""
        if request.failed is not None:
            found = self.tour.stop_of(request.failed)
            if found is None or found[1].repair is None:
                return NoProposal(reason="the tour has no repair for it", exhausted=False, proposer=self.name)
            return found[1].repair
        proposal = self._next(request.history)
        return proposal or NoProposal(reason="the tour is over", exhausted=True, proposer=self.name)

    @property
    def num_patches(self) -> int:
        """The number of experiments that the tour takes at most."""
        return sum(len(stop.patches) + (stop.repair is not None) for stop in self.tour.stops)

    def is_over(self, history: Sequence[Experiment]) -> bool:
        """Whether every stop was made."""
        return self._next(history) is None

    def _next(self, history: Sequence[Experiment]) -> Proposal | None:
        done = {
            one.parameters.get(CHECKSUM)
            for one in history
            # INFRA says nothing about the patch, so it is tried again.
            if one.proposer == self.name and one.verdict is not Verdict.INFRA
        }
        for stop in self.tour.stops:
            left = [one for one in stop.patches if one.parameters[CHECKSUM] not in done]
            satisfied = stop.until_lucky and len(left) < len(stop.patches) and any(map(was_lucky, history))
            if left and not satisfied:
                return left[0]
        return None


def _stop(folder: Path, entry: Mapping[str, Any]) -> Stop:
    repair = entry.get("repair")
    return Stop(
        title=entry["title"],
        meant=Verdict(entry["meant"]),
        patches=tuple(_read(folder / name) for name in entry["patches"]),
        repair=None if repair is None else _read(folder / repair),
        until_lucky=entry.get("until_lucky", False),
    )


def _read(path: Path) -> Proposal:
    return replace(read_patch(path), proposer=TourProposer.name)
