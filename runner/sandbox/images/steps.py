"""Steps of a set-up: what each does, how long it took, and a log of what foreign tools print."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = "logs/setup.log"
"""In the state folder; `make` writes the output of pip there, too."""


@contextmanager
def step(on_progress: Callable[[str], None], doing: str) -> Iterator[None]:
    """Say what is done, and afterwards how long it took.

    Args:
        doing: with an estimate in parentheses: `building the base image (about 60 seconds)`.
    """
    began = time.monotonic()
    on_progress(doing)
    yield
    on_progress(f"… done in {time.monotonic() - began:.0f} s")


def keep_output(state_dir: Path, tool: str, output: str) -> None:
    """Append what a tool printed to the log."""
    path = state_dir / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"\n== {tool}\n{output}\n")
