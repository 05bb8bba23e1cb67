"""Attempts: small acts, each in a process of its own, with an outcome that the test knows beforehand."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

SUCCEEDED = "SUCCEEDED"
"""Outcome of an act that returned nothing; one that returned something has that as its outcome."""
LIMIT_SECONDS = 10


@dataclass(frozen=True)
class Attempt:
    """One act."""

    name: str
    act: Callable[[], object]
    outcomes: tuple[str, ...]  # names of errors or signals; any of these
    control: str | None
    """Where it has another outcome: `root` in an open container, the `host`, or nowhere that is at hand."""


class Group:
    """Attempts that share a container."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}

    def attempt(
        self, name: str, *outcomes: str, control: str | None = None
    ) -> Callable[[Callable[[], object]], Callable[[], object]]:
        """Register a function."""

        def register(act: Callable[[], object]) -> Callable[[], object]:
            self.add(name, act, *outcomes, control=control)
            return act

        return register

    def add(self, name: str, act: Callable[[], object], *outcomes: str, control: str | None = None) -> None:
        """Register an act."""
        assert name not in self.attempts and outcomes and "\t" not in name
        self.attempts[name] = Attempt(name, act, outcomes, control)

    def run(self, names: object = None) -> str:
        """Make every attempt, or those named; one line each: name, tab, outcome."""
        chosen = self.attempts if names is None else names
        return "".join(f"{name}\t{outcome(self.attempts[name].act)}\n" for name in chosen)  # type: ignore[attr-defined]


def outcome(act: Callable[[], object]) -> str:
    """What becomes of an act in a child: its result, the name of its error, or of the signal that ended it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            os.write(write, _named(act).encode()[:200])
        os._exit(0)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(LIMIT_SECONDS)  # nothing here takes a second; a child that hangs must not hide the others
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    os.set_blocking(read, False)  # a grandchild may still hold the other end
    with contextlib.suppress(BlockingIOError):
        said = os.read(read, 200).decode("ascii", "replace")
    os.close(read)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said or "NOTHING"


def _named(act: Callable[[], object]) -> str:
    try:
        result = act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except BaseException as error:
        return type(error).__name__
    return SUCCEEDED if result is None else str(result)
