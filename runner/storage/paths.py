"""The layout of the state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.config import STATE_DIR


@dataclass(frozen=True)
class StatePaths:
    """The files that the controller writes outside git and Docker.

    .autoresearch/
    ├── ledger.db              every campaign of this repository
    ├── controller.lock        held by the one running controller
    ├── logs/<tag>.jsonl       events, one JSON object per line
    ├── locked/<hash>/         pinned copies of locked_eval, mounted into containers
    ├── sources/               downloaded corpora
    ├── data/<key>/            prepared data sets: train/ val/ test/ tokenizer/ manifest.json
    ├── wheels/<hash>/         packages for the images
    ├── claims/<tag>/          the champion's claims, by hash; audits draw against them
    ├── audits/                rows of the running audit
    ├── probes/                tasks of the doctor's probes while they run
    ├── noise/<profile>.json   noise figures of `autoresearch calibrate`
    └── reports/<tag>/         results.tsv, findings.tsv, progress.png; output of `ablate` and `confirm`
    """

    root: Path

    @classmethod
    def of(cls, repository_root: Path) -> StatePaths:
        """The state folder of the repository at `repository_root`."""
        return cls(repository_root / STATE_DIR)

    @property
    def ledger(self) -> Path:
        """The database."""
        return self.root / "ledger.db"

    @property
    def data(self) -> Path:
        """Prepared data sets."""
        return self.root / "data"

    def claims(self, tag: str) -> Path:
        """Claims of a campaign's champions, by hash."""
        return self.root / "claims" / tag

    @property
    def rewritten(self) -> tuple[Path, ...]:
        """Folders of atomically written files, in which a killed controller may leave partial ones."""
        return tuple(self.root / name for name in ("claims", "noise", "reports"))

    @property
    def audits(self) -> Path:
        """Rows of the running audit."""
        return self.root / "audits"

    @property
    def probes(self) -> Path:
        """Tasks of the doctor's probes while they run."""
        return self.root / "probes"

    def noise(self, profile: str) -> Path:
        """Noise figures of a profile, measured with honest models on this machine."""
        return self.root / "noise" / f"{profile}.json"

    def log(self, tag: str) -> Path:
        """Event log of a campaign."""
        return self.root / "logs" / f"{tag}.jsonl"

    def report(self, tag: str) -> Path:
        """Reports of a campaign for people to read."""
        return self.root / "reports" / tag
