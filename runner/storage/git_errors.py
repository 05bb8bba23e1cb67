"""Failures of git as errors with a remedy."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from shlex import quote

from runner.errors import DiskFullError, RepositoryError, remedy_of


class ObjectGoneError(RepositoryError):
    """A `git gc --prune=now` removed an object before a ref named it, or its folder before it was in there.

    Writing the object again repairs that.
    """


def cannot_open(path: Path, stderr: str) -> RepositoryError:
    """The error for a folder in which git finds no repository that it can read."""
    if "dubious ownership" in stderr:
        command = re.search(r"git config --global --add safe\.directory .+", stderr)
        return RepositoryError(
            f"{path} belongs to another user, and git refuses to work in it",
            command.group() if command else f"git config --global --add safe.directory {quote(str(path))}",
        )
    if "not a git repository" in stderr:
        return RepositoryError(f"{path} is not inside a git repository", "run this inside the clone")
    newer = re.search(r"fatal: (unknown repository extension.+|Expected git repo version.+)", stderr, re.DOTALL)
    if newer:
        return RepositoryError(
            f"this git is too old for {path}: {' '.join(newer.group(1).split())}",
            "git --version, then install a newer git",
        )
    return RepositoryError(f"git cannot open {path}: {first_line(stderr)}", f"git -C {quote(str(path))} status")


def refusal(command: str, stderr: str) -> RepositoryError | DiskFullError:
    """The error for a git command that failed."""
    lock = re.search(r"'(.+\.lock)': File exists", stderr)
    if lock:
        return RepositoryError(
            f"git {command} found a lock: {lock.group(1)}",
            f"when no other git is running: rm {quote(lock.group(1))}",
        )
    if "cannot lock references" in stderr:  # reftable: one lock for all refs, and git does not name it
        return RepositoryError(
            f"git {command} found the references locked",
            "when no other git is running: rm $(git rev-parse --git-common-dir)/reftable/tables.list.lock",
        )
    clash = re.search(r"'refs/heads/([^']+)' exists; cannot create", stderr)
    if clash:
        name = clash.group(1)
        return RepositoryError(
            f"a branch named {name} is in the way of the campaign's branch", f"git branch -m {name} NAME"
        )
    if re.search(r"unable to (create temporary|write) file .*No such file or directory", stderr):
        return ObjectGoneError(f"git {command} cannot store an object: {first_line(stderr)}", "git fsck")
    if re.search(r"nonexistent object|is unavailable|bad object|not a valid object|invalid object", stderr):
        return ObjectGoneError(f"git {command} misses an object: {first_line(stderr)}", "git fsck")
    failed = f"git {command} failed: {first_line(stderr)}"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in stderr:
            kind = DiskFullError if number in (errno.ENOSPC, errno.EDQUOT) else RepositoryError
            return kind(failed, remedy_of(OSError(number, "")))
    return RepositoryError(failed, "git fsck")


def first_line(text: str) -> str:
    """The first line that says something, without git's prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^(error|fatal): ", "", lines[0]) if lines else "it gave no reason"
