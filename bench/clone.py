"""A separate repository for a benchmark that reuses the prepared files of this clone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runner.storage.repository import Repository

ROOT = Path(__file__).resolve().parents[1]


def make_repository(root, files):
    """Write and commit files; sources, wheels and data are links to those of this clone.

    Args:
        root: a folder that does not exist yet.
        files: texts by path.
    """
    for name, text in {**files, ".gitignore": "/.autoresearch/\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".autoresearch").mkdir()
    for name in ("sources", "wheels", "data"):
        if (ROOT / ".autoresearch" / name).exists():
            (root / ".autoresearch" / name).symlink_to(ROOT / ".autoresearch" / name)
    for command in (
        ["init", "-q", "-b", "main", "."],
        ["add", "-A"],
        ["-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return Repository(root)
