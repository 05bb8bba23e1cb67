"""The event log: one JSON object per line, whatever happened to the process that wrote the last one."""

from __future__ import annotations

import json
import os
from pathlib import Path


class EventLog:
    """A log file for structlog that appends whole lines.

    A line that was cut off by a kill or a full disk stays as it is, and the next event starts a new line. An event
    that cannot be written does not end a night; once there is room again, a line reports how many are missing. The
    ledger is the record that counts, and its failures are raised at once.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._lost = 0

    def write(self, line: str) -> None:
        """Append one event with its line end."""
        if self._lost:
            missing = json.dumps({"event": "events_lost", "level": "warning", "number": self._lost})
            if self._append(f"{missing}\n"):
                self._lost = 0
        self._lost += not self._append(line)

    def flush(self) -> None:
        """Do nothing: no event is buffered."""

    def _append(self, line: str) -> bool:
        data = b"\n" * self._torn + line.encode("utf-8", "replace")
        try:
            written = os.write(self._file, data)
        except OSError:
            return False
        self._torn = written < len(data) and (written > 1 or not self._torn)
        return written == len(data)
