"""Files made under sudo: they belong to the person who typed it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def give_to_caller(folder: Path) -> None:
    """Give everything that root owns in a folder to the user who called sudo; does nothing without sudo.

    Building the base image may need root once. What it leaves in the clone must not lock its owner out.

    Not covered: a folder that does not belong to that user, and files with several hard links, which stay as they
    are; files of a command that was killed, until the next one under sudo.
    """
    try:
        user, group = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return
    if os.geteuid() != 0 or user == 0 or folder.stat().st_uid != user:
        return
    for _, folders, files, descriptor in os.fwalk(folder):
        for name in (*folders, *files):
            with suppress(OSError):  # it was removed meanwhile
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if found.st_uid == 0 and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1):
                    os.chown(name, user, group, dir_fd=descriptor, follow_symlinks=False)
