"""The checkpoint's way from the training container into the next one. Standard library only: PID 1 imports it.

Before a candidate is scored or audited, its checkpoint is copied to a file system of this container alone. The
volume that training wrote to stays in a folder that only root can enter. Even a read-only volume would be a
channel: reading leaves marks in it (a hole that was read becomes a page), and the next container could find
them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

CHECKPOINT = "checkpoint"
"""Name of the one file that training publishes in `$OUT_DIR`."""
PUBLISHED = Path("/root/out") / CHECKPOINT
"""The published file, in a folder that the candidate cannot enter."""
COPY = Path("/tmp/out") / CHECKPOINT  # noqa: S108  a tmpfs of this container alone
"""The copy that is scored."""
EXIT_OUT_OF_MEMORY = 6
"""Exit code of a candidate without room for a batch: the same checkpoint may be asked again, for fewer rows."""
CHUNK_BYTES = 1 << 24


def take_over(published: Path, copy: Path) -> None:
    """Copy what training published, if it is a regular file that fits, with read permission only.

    The published file no longer changes: no container writes to it any more. If its owner made it unreadable,
    there is no copy, because PID 1 has no right to override modes.

    Raises:
        PermissionError: the candidate can enter the folder above the volume.
    """
    if published.parents[1].stat().st_mode & 0o077:
        raise PermissionError(f"{published.parents[1]} is open to the candidate")
    copy.parent.mkdir(mode=0o755)
    copy.parent.chmod(0o755)
    try:
        source = os.open(published, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        facts = os.fstat(source)
        room = os.statvfs(copy.parent)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > room.f_bavail * room.f_frsize:
            return
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            while os.sendfile(target, source, None, CHUNK_BYTES):
                pass
            os.fchmod(target, 0o444)
        finally:
            os.close(target)
    except OSError:
        copy.unlink(missing_ok=True)
    finally:
        os.close(source)
