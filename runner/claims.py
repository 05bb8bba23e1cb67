"""Claims of champions, by hash: an audit looks hardest where a candidate claims to beat its champion."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import structlog

from runner.errors import DiskFullError

log = structlog.get_logger()


def save(folder: Path, claims: bytes, *, keep: str | None = None) -> None:
    """Write claims under their hash, and remove all others.

    Args:
        keep: hash of older claims that stay: those of the champion that is not yet replaced.

    Raises:
        DiskFullError: no room.
    """
    name = _name(hashlib.sha256(claims).hexdigest())
    partial = folder / f"{name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(claims)
        partial.replace(folder / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DiskFullError(f"the claims cannot be written to {folder}: {error}", "free some disk") from error
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
