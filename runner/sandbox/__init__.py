"""Containers for untrusted code: what they may use, how they are ended, and that nothing is left behind.

`engine` connects, `limits` builds and checks the arguments of a container, `session` runs one candidate
(train, then score), `prepare` runs the trusted data preparation, `orphans` finds what a crash left.
"""

from runner.sandbox.cleanup import remove_orphans
from runner.sandbox.engine import Engine, connect
from runner.sandbox.session import Session, open_session
from runner.sandbox.trusted import run_trusted

__all__ = ["Engine", "Session", "connect", "open_session", "remove_orphans", "run_trusted"]
