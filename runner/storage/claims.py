"""Claims of champions, by hash: an audit looks hardest where a candidate claims to beat its champion."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog

from runner.storage.files import replace_file

log = structlog.get_logger()


def save(folder: Path, claims: bytes, *, keep: str | None = None) -> None:
    """Write claims under their hash, and remove all others.

    Args:
        keep: hash of older claims that stay: those of the champion that is not yet replaced.

    Raises:
        DiskFullError: no room.
    """
    name = _name(hashlib.sha256(claims).hexdigest())
    replace_file(folder / name, claims)
    for path in folder.iterdir():
        if path.name not in (name, keep and _name(keep)):
            path.unlink(missing_ok=True)


def load(folder: Path, sha256: str) -> bytes | None:
    """The claims of this hash; None when they are gone or damaged: an audit then draws uniformly."""
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
