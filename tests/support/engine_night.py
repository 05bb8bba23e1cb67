"""A whole controller on a tiny workload at any engine's socket, in this process or in one of its own.

    python tests/support/engine_night.py SITE.json SLEEP VALUES...

runs one experiment for each value and says on stdout what it does, one JSON list a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import structlog

from runner import config as settings
from runner.campaign import night
from runner.campaign.campaign import Controller
from runner.records import Experiment
from runner.sandbox import Engine, connect, remove_orphans
from tests.support import short_pauses
from tests.support.constant_workload import boost
from tests.support.fake_proposers import ScriptedProposer
from tests.support.machine import Ground, open_controller

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Operator:
    """An observer that writes down what it is told, and acts on it: once for each thing it waits for."""

    told: list[list[object]] = field(default_factory=list)
    acts: list[tuple[str, Callable[[], object], bool]] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)

    def when(self, words: str, act: Callable[[], object], *, at_once: bool = False) -> None:
        """Do this when something that is told holds these words: on another thread, unless `at_once`."""
        self.acts.append((words, act, at_once))

    def hear(self, *facts: object) -> None:
        """Take one fact."""
        self.told.append(list(facts))
        sentence = " ".join(map(str, facts))
        for one in [one for one in self.acts if one[0] in sentence]:
            self.acts.remove(one)
            if one[2]:
                one[1]()
            else:
                self.threads.append(Thread(target=one[1]))
                self.threads[-1].start()

    def notes(self, words: str) -> int:
        """How many notes hold these words."""
        return sum(fact[0] == "note" and words in str(fact[1]) for fact in self.told)

    def note(self, message: str) -> None:
        self.hear("note", message)

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        self.hear("begin", done, target)

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        self.hear("phase", number, name)

    def line(self, text: str) -> None:
        """Ignore."""

    def opened(self, experiment: Experiment) -> None:
        pass

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        self.hear("closed", experiment.number, str(experiment.verdict))


@dataclass(frozen=True, kw_only=True)
class Site:
    """All that a controller process must know; travels as JSON."""

    socket: str
    repository: str
    data: str
    locked: str
    base_image: str
    settings: dict[str, Any]
    request_seconds: float = 20.0
    quick_seconds: float = 2.0

    def connect(self) -> Engine:
        """The engine, with short limits."""
        return connect(self.socket, request_seconds=self.request_seconds, quick_seconds=self.quick_seconds)

    @contextmanager
    def opened(self, observer: Operator):
        """The controller of this site, in this process."""
        engine = self.connect()
        ground = Ground(engine=engine, data=Path(self.data), locked=Path(self.locked), base_image=self.base_image)
        config = settings.load(ROOT, {"profile": "cpu", "tag": "test", "max_disturbance": 1}, environ={})
        config = config.model_copy(update=self.settings)
        with open_controller(ground, Path(self.repository), config, observer=observer) as controller:
            yield controller
            engine.client.close()

    @contextmanager
    def controller(self, sleep: float, *values: float):
        """A controller in a process of its own, killed at the end; each idea trains for `sleep` seconds."""
        path = Path(self.repository).with_name("site.json")
        path.write_text(json.dumps(asdict(self)))
        with subprocess.Popen(
            [sys.executable, __file__, path, str(sleep), *map(str, values)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self, sleep: float, *values: float) -> list[list[Any]]:
        """All that one controller says, from its start to the end of its night."""
        with self.controller(sleep, *values) as controller:
            told = [json.loads(line) for line in controller.stdout]
            assert controller.wait(60) == 0, told
        return told


def run(
    controller: Controller,
    script: Iterable[Any],
    stop: night.StopSwitch | None = None,
    *,
    by_number: bool = True,
    **changes: Any,
):
    """A night over a script, one experiment for each idea unless `more` says otherwise.

    Returns why it ended, its experiments, and the proposer.
    """
    script = list(script)
    proposer = ScriptedProposer(script, by_number=by_number)
    reason = night.run(controller, proposer, stop or night.StopSwitch(), **{"more": len(script), **changes})
    return reason, controller.ledger.experiments("test"), proposer


class Speaker(Operator):
    """Says everything on stdout."""

    def hear(self, *facts: object) -> None:
        print(json.dumps(facts), flush=True)


def main() -> None:
    """One controller, from its first look for what an earlier one left, to the end of its night."""
    site = Site(**json.loads(Path(sys.argv[1]).read_text()))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    short_pauses.shorten()
    ideas = [boost(float(value), sleep=float(sys.argv[2])) for value in sys.argv[3:]]
    with site.opened(Speaker()) as controller:
        engine, ledger = controller.evaluator.engine, controller.ledger
        print(json.dumps(["orphans", remove_orphans(engine, ledger.controller)]), flush=True)
        begun = len(ledger.experiments("test")) - 1  # an interrupted one is finished without being counted
        night.run(controller, ScriptedProposer(ideas, by_number=True), night.StopSwitch(), more=len(ideas) - begun)


if __name__ == "__main__":
    main()
