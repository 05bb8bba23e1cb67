"""Containers for untrusted code: what they may use, how they are ended, and that nothing is left behind.

`engine` connects, over `transport`; `engine_outage` waits while the engine is away. `container_spec` builds the
arguments of a container, `containers` creates and removes it, and `inspection` and `kernel_limits` check that its
limits hold. `session` runs one candidate: `training` trains, `responder` scores and answers audits, with `streams`
and `supervision` below them; `core_meter` counts what other programs use. `reservation` chooses cores and the GPU,
and keeps other campaigns away. `trusted` runs the data preparation, `gpu_scrub` clears the memory of the GPU,
`cleanup` removes what a crash left, and `host` reads facts of this machine.
"""

from runner.sandbox.cleanup import remove_orphans, swept_when_interrupted
from runner.sandbox.engine import Engine, connect
from runner.sandbox.session import Session, open_session
from runner.sandbox.trusted import run_trusted

__all__ = [
    "Engine",
    "Session",
    "connect",
    "open_session",
    "remove_orphans",
    "run_trusted",
    "swept_when_interrupted",
]
