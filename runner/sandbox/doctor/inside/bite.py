"""A candidate that takes all it can get, up to a bound, reports the amounts, and takes memory until it is killed.

The bounds keep the machine safe where a cap is missing.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TASK: Mapping[str, Any] = globals()["TASK"]
MEBI = 1 << 20
BEYOND_BYTES = 16 * MEBI
BEYOND = 64
"""Amount taken beyond a cap that does not hold."""
FLOOD_BYTES = 8 * MEBI


def fill(folder: str, cap_bytes: int) -> int:
    """Write files, each of limited size, until their file system is full; returns the bytes written."""
    taken, piece = 0, bytes(MEBI // 4)
    paths: list[Path] = []
    try:
        while taken < cap_bytes + BEYOND_BYTES:
            paths.append(Path(folder, f"fill{len(paths)}"))
            with paths[-1].open("wb", buffering=0) as file:
                for _ in range(16):
                    taken += file.write(piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    return taken


def litter(folder: str, cap: int) -> int:
    """Create files in a folder until the inodes are used up; returns their number."""
    made = 0
    try:
        while made < cap + BEYOND:
            os.close(os.open(f"{folder}/litter{made}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            made += 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    for number in range(made):
        Path(f"{folder}/litter{number}").unlink()
    return made


def multiply(cap: int) -> int:
    """Start threads, which count as processes, until no more can start; returns their number and this one."""
    threading.stack_size(64 * 1024)
    enough = threading.Event()
    made: list[threading.Thread] = []
    try:
        while len(made) < cap + BEYOND:
            thread = threading.Thread(target=enough.wait)
            thread.start()
            made.append(thread)
    except RuntimeError:
        pass  # can't start new thread
    enough.set()
    for thread in made:
        thread.join()
    return len(made) + 1


def hold(cap: int) -> int:
    """Open files until no more can be opened; returns their number."""
    held: list[int] = []
    try:
        while len(held) < cap + BEYOND:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for fd in held:
        os.close(fd)
    return len(held)


def stretch(cap_bytes: int) -> str:
    """Extend a file beyond the size limit without writing to it; returns the name of the error, or `done`."""
    path = Path("/tmp/stretch")  # noqa: S108  a tmpfs of this container alone
    path.touch()
    try:
        os.truncate(path, cap_bytes + 1)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    finally:
        path.unlink()
    return "done"


def main() -> None:
    """Take everything in turn. The report follows the flood, of which only the end may be kept; memory is last."""
    report = {
        "probe": "bite",
        "output_bytes": fill("/out", TASK["output_bytes"]),
        "output_inodes": litter("/out", TASK["output_inodes"]),
        "scratch_bytes": fill("/tmp", TASK["scratch_bytes"]),  # noqa: S108
        "shm_bytes": fill("/dev/shm", TASK["shm_bytes"]),  # noqa: S108
        "processes": multiply(TASK["pids"]),
        "descriptors": hold(TASK["descriptors"]),
        "stretched": stretch(TASK["file_bytes"]),
    }
    for _ in range(FLOOD_BYTES // 1024):
        sys.stdout.write("x" * 1023 + "\n")
    print(json.dumps(report), flush=True)
    taken: list[bytes] = []
    while len(taken) * 16 * MEBI < TASK["memory_bytes"] + 256 * MEBI:
        taken.append(b"x" * (16 * MEBI))


main()
