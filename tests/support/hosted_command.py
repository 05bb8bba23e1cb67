"""`autoresearch` as a user types it, with candidates that run in this process instead of in containers.

    python tests/support/hosted_command.py COMMAND...

For nights in which the proposer is the subject. The candidate is a program of the test's own: its `train.py` sets
`BOOST`, the logit of token 0, which is all that is scored and audited. The proposer, git, ledger, judge and audit
are real.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runner import proposers
from runner.cli import main
from runner.evaluation import smoke_test, trial
from runner.records import RunEnd
from tests.support import scripted_autoresearch, scripted_night, short_pauses
from tests.support.scripted_night import ScriptedSession

SMOKE_SECONDS, TRAIN_SECONDS = 2, 5


def run_program(text: str, deadline_seconds: float) -> tuple[float | None, str]:
    """Execute a `train.py`; returns its `BOOST`, None when it fails, and what it printed."""
    os.environ["DEADLINE_SECONDS"] = str(deadline_seconds)
    printed, names = StringIO(), {"__name__": "__main__"}
    with redirect_stdout(printed):
        try:
            exec(compile(text, "/candidate/workload/train.py", "exec"), names)
        except Exception:
            print(traceback.format_exc())
            return None, printed.getvalue()
    return names["BOOST"], printed.getvalue()


class HostedSession(ScriptedSession):
    """What a session says of a program: it is run at the start of its training."""

    def __init__(self, program, evaluation):
        boost, self.log = run_program(program, TRAIN_SECONDS)
        super().__init__("BOOST = 'crash'" if boost is None else f"BOOST = {boost}", evaluation)

    def train(self, seed, **options):
        run = super().train(seed, **options)
        return run if run.end is RunEnd.FINISHED else replace(run, log_tail=self.log)


def check(_evaluator, files, _number, _leaving):
    """The smoke test of an idea."""
    boost, printed = run_program(files["workload/train.py"].decode(), SMOKE_SECONDS)
    return f"it failed after 0.1 s with exit code 1\n{printed}" if boost is None else ""


def host_candidates():
    """Put this process in the place of engine and containers; the proposer stays."""
    create = proposers.create
    scripted_autoresearch.script_the_machine()
    proposers.create = create
    folder, known = Path(os.environ["IMAGES"]), scripted_night.evaluation()

    @contextmanager
    def open_session(_engine, *, image_id, **_):
        yield HostedSession((folder / image_id).read_text(), known)

    trial.open_session, smoke_test.check = open_session, check


if __name__ == "__main__":
    host_candidates()
    short_pauses.shorten(proposers=True)
    main()
