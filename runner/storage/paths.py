"""The layout of the state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.config import STATE_DIR


@dataclass(frozen=True)
class StatePaths:
    """Everything that the controller writes outside of git and Docker.

    .autoresearch/
    ├── ledger.db              every campaign of this repository
    ├── controller.lock        held by the one running controller
    ├── logs/<tag>.jsonl       events, one JSON object a line
    ├── locked/<hash>/         pinned copies of locked_eval, mounted into containers
    ├── sources/               downloaded corpora
    ├── data/<key>/            prepared data sets: train/ val/ test/ tokenizer/ manifest.json
    ├── wheels/<hash>/         packages for the images
    ├── claims/<tag>/          the champion's claims, by hash; audits draw against them
    ├── audits/                rows of the audit that runs now
    ├── probes/                tasks of `autoresearch doctor` while it probes
    ├── noise/<profile>.json   what `autoresearch calibrate` measured
    └── reports/<tag>/         results.tsv, findings.tsv, progress.png; what `ablate` and `record` wrote
    """

    root: Path

    @classmethod
    def of(cls, repository_root: Path) -> StatePaths:
        """The state folder of a repository."""
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
        """Claims of a campaign's champion."""
        return self.root / "claims" / tag

    @property
    def rewritten(self) -> tuple[Path, ...]:
        """Folders whose files are replaced as a whole; a killed controller may leave a part beside one."""
        return tuple(self.root / name for name in ("claims", "noise", "reports"))

    @property
    def audits(self) -> Path:
        """Rows of the audit that runs now."""
        return self.root / "audits"

    @property
    def probes(self) -> Path:
        """Tasks of the doctor's probes, while they run."""
        return self.root / "probes"

    def noise(self, profile: str) -> Path:
        """What honest models showed on this machine."""
        return self.root / "noise" / f"{profile}.json"

    def log(self, tag: str) -> Path:
        """Event log of a campaign."""
        return self.root / "logs" / f"{tag}.jsonl"

    def report(self, tag: str) -> Path:
        """Folder for the files that people look at in the morning."""
        return self.root / "reports" / tag
