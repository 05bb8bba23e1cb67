"""Wake a stopped process, even when the process that stopped it has died.

    python -I fuse.py PID SECONDS

Prints `ready`, waits until its stdin ends or the time is over, and continues the process. Stdin ends when the
program that stopped the process closes it, or dies.
"""

from __future__ import annotations

import os
import select
import signal
import sys


def main() -> None:
    """Wait, then wake the process."""
    process = os.pidfd_open(int(sys.argv[1]))  # not the number: another process could have it by then
    print("ready", flush=True)
    select.select([0], [], [], float(sys.argv[2]))
    signal.pidfd_send_signal(process, signal.SIGCONT)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main()
