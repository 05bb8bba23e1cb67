"""The file system that holds a path, as the kernel names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

# Other machines, or the host of this virtual one, may use these too: processes there share no memory with ours.
# `fuse` itself is any program, and `fuse.sshfs` one of many.
_SHARED = re.compile(
    r"nfs\d*|cifs|smb\d*|smbfs|9p|v9fs|virtiofs|drvfs|afs|ceph|glusterfs|lustre|gpfs|beegfs|orangefs|pvfs2|gfs2?|ocfs2"
    r"|vboxsf|vmhgfs|prl_fs|fakeowner|fuse(?:\..+)?"
)
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """One mounted file system."""

    kind: str  # "ext4", "nfs4"
    source: str  # "/dev/sda1", "server:/home"

    @property
    def is_shared(self) -> bool:
        """Whether programs outside of this machine may use it too: a network, a virtual machine's host, WSL."""
        return _SHARED.fullmatch(self.kind) is not None

    def __str__(self) -> str:
        return f"{self.kind} ({self.source})"


def file_system_of(path: Path, mountinfo: str) -> FileSystem | None:
    """Find the file system of an absolute path without links; None when the text does not say.

    Args:
        mountinfo: text of /proc/self/mountinfo.
    """
    found, depth = None, -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount, file_system = before.split(), after.split()
        if len(mount) < 5 or len(file_system) < 2:
            continue
        point = Path(unescaped(mount[4]))
        # Of several at one place, the last one hides the others.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = FileSystem(kind=file_system[0], source=unescaped(file_system[1])), len(point.parts)
    return found


def this_file_system(path: Path) -> FileSystem | None:
    """Find the file system of a path on this machine."""
    try:
        return file_system_of(path.resolve(), MOUNTINFO.read_text("utf-8", "surrogateescape"))
    except OSError:  # no /proc
        return None


def unescaped(text: str) -> str:
    """Decode a path of mountinfo, where blanks are octal."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
