"""Claims of champions, stored by hash: audits concentrate where a candidate claims to beat its champion."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog

from runner.storage.files import replace_file

log = structlog.get_logger()


def save(folder: Path, claims: bytes, *, keep: str | None = None) -> None:
    """Write claims under their hash, and remove all others.

    Args:
        folder: the campaign's claims (`StatePaths.claims`).
        claims: the raw bytes that a candidate handed in.
        keep: hash of older claims to spare, those of the champion that is not yet replaced.

    Raises:
        DiskFullError: there is no room, or the file cannot be written.
    """
    name = _name(hashlib.sha256(claims).hexdigest())
    replace_file(folder / name, claims)
    for path in folder.iterdir():
        if path.name not in (name, keep and _name(keep)):
            path.unlink(missing_ok=True)


def load(folder: Path, sha256: str) -> bytes | None:
    """The claims with this hash, or None if they are missing or damaged: the audit then draws uniformly."""
    try:
        claims = (folder / _name(sha256)).read_bytes()
    except OSError:
        claims = b""
    if hashlib.sha256(claims).hexdigest() != sha256:
        log.warning("claims_missing", sha256=sha256)
        return None
    return claims


def _name(sha256: str) -> str:
    return f"{sha256}.f32"
