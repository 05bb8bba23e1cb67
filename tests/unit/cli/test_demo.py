"""What the tour says of the machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.cli.demo import Story
from runner.config import load
from runner.records import Phase
from tests.support.synthetic_experiments import experiment
from tests.support.trials import run, scored


@pytest.mark.parametrize(("others", "said"), [(None, ""), (0.05, ""), (0.64, "other programs used 64%")])
def test_a_number_that_a_busy_machine_has_a_part_in_is_not_told_without_it(capsys, others, said):
    config = load(Path("/nonexistent"), {"profile": "cpu", "cpus": 1, "max_disturbance": 0.1}, environ={})
    trainings = [run(Phase.TRAIN, others_cpu_seconds=others), run(Phase.SCORE, val_bpb=2.1)]
    disturbed = experiment(3, "discard", 2.1, champion=0, trials=(scored(2.1, runs=tuple(trainings)),))
    controller = SimpleNamespace(
        observer=SimpleNamespace(closed=lambda *_: None),
        config=config,
        ledger=SimpleNamespace(experiments=lambda _: (disturbed,)),
    )
    Story(controller, SimpleNamespace(stops=(), stop_of=lambda _: None)).closed(disturbed, None)
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and ("the machine was busy" in told) is bool(said)
