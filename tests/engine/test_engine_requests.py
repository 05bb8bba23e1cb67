"""Requests that fail in every way, in front of the real engine: none of them decides about a candidate."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import docker
import pytest

from runner.campaign import night
from runner.errors import BaseGoneError, DiskFullError, EngineAwayError, EngineError, ImageError, Interrupted
from runner.records import Phase, RunEnd, Verdict
from runner.sandbox import engine_outage, images
from runner.sandbox.engine import LABEL
from tests.support.constant_workload import boost
from tests.support.engine_night import Operator, run
from tests.support.faulty_engine import Fault

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
]


LOOK = r"GET .*/containers/[0-9a-f]+/json"


def phases(experiment):
    return [run.phase for run in experiment.runs]


def test_a_night_goes_on_through_every_kind_of_failed_request(faulty_site, faulty):
    operator = Operator()
    everything = [fault for fault in Fault if fault not in (Fault.HANG_AFTER, Fault.FULL)]

    def breaking(value, *faults, **changes):
        """An idea during which these requests fail."""

        def step(_request):
            assert not faulty.away, "an idea was asked for while the engine was away"
            assert not faulty.pending, "a fault that never occurred proves nothing"
            for request, *kinds in faults:
                faulty.fail(request, *kinds)
            return boost(value, **changes)

        return step

    operator.when("phase 1 train", lambda: faulty.fail(LOOK, *everything))
    operator.when("closed 7", lambda: setattr(faulty, "away", True), at_once=True)
    operator.when("minutes for the engine", lambda: setattr(faulty, "away", False))
    script = [
        breaking(3.0, sleep=2.0),
        breaking(3.1, (r"POST .*/containers/create", Fault.HANG_AFTER), (r"POST .*/start", Fault.CLOSED)),
        breaking(3.2, (r"POST .*/containers/create", Fault.ERROR, Fault.ERROR)),
        breaking(3.3, (r"POST .*/commit", Fault.ERROR, Fault.ERROR)),
        breaking(3.4, (r"POST .*/attach", Fault.HANG), (r"POST .*/volumes/create", Fault.NONSENSE)),
        breaking(
            3.5,
            (r"GET .*/logs.*follow=1", Fault.CLOSED, Fault.ERROR),
            (r"GET .*/logs.*follow=0", Fault.ERROR, Fault.TRUNCATED),
            (r"DELETE .*/containers/", Fault.ERROR, Fault.CLOSED),
            (r"DELETE .*/volumes/", Fault.CONFLICT),
        ),
        breaking(3.6, (r"GET .*/images/.*/json", Fault.DRIP), (r"POST .*/commit", Fault.TRUNCATED)),
        breaking(3.7),
    ]
    with faulty_site.opened(operator) as controller:
        _, rows, _ = run(controller, script)
    assert [row.verdict for row in rows[1:]] == [
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.INFRA,
        Verdict.INFRA,
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.DISCARD,
    ]
    assert phases(rows[1]) == [Phase.TRAIN, Phase.SCORE], "looking at it failed ten times and cost no run"
    assert phases(rows[6]) == [Phase.TRAIN, Phase.SCORE]
    for row in rows[3:5]:
        assert row.reason.startswith("quarantined after two equal failures: ")
        assert row.val_bpb is None
    assert operator.notes("the Docker engine is back") == 1


def test_five_in_a_row_that_no_attempt_helps_end_the_night(faulty_site, faulty, monkeypatch):
    monkeypatch.setattr("runner.campaign.measurement.FAULT_PAUSE_SECONDS", 0.0)
    faulty.fail("POST .*/commit", Fault.ERROR, times=1000)
    with faulty_site.opened(Operator()) as controller:
        with pytest.raises(EngineError, match=r"5 experiments in a row .*the disk of the engine burns"):
            run(controller, [boost(3.0 + number / 10) for number in range(9)])
        assert [row.verdict for row in controller.ledger.experiments("test")[1:]] == [Verdict.INFRA] * 5


@pytest.mark.parametrize("request_line", ["POST .*/commit", "POST .*/volumes/create", "POST .*/containers/create"])
def test_a_full_disk_of_the_engine_ends_the_night_and_with_room_it_goes_on(faulty_site, faulty, request_line):
    faulty.fail(request_line, Fault.FULL)
    with faulty_site.opened(Operator()) as controller:
        with pytest.raises(DiskFullError, match="no space left on the engine's disk"):
            run(controller, [boost(3.0)])
        assert controller.ledger.experiment("test", 1).verdict is None, "it is not the idea's fault"
        _, rows, _ = run(controller, [])
    assert [row.verdict for row in rows[1:]] == [Verdict.DISCARD]


def test_an_engine_that_stays_away_ends_the_night_before_an_idea_is_paid_for(faulty_site, faulty, monkeypatch):
    monkeypatch.setattr(engine_outage, "PATIENCE_SECONDS", 1.0)
    with faulty_site.opened(Operator()) as controller:
        faulty.away = True
        with pytest.raises(EngineAwayError, match="stayed away"):
            run(controller, [lambda _: pytest.fail("asked for an idea")])
        assert len(controller.ledger.experiments("test")) == 1


def test_a_person_who_asks_to_stop_is_not_kept_waiting_for_the_engine(faulty_site, faulty):
    stop = night.StopSwitch()
    operator = Operator()
    operator.when("minutes for the engine", lambda: setattr(stop, "requested", True))
    operator.when("phase 1 start", lambda: setattr(faulty, "away", True), at_once=True)
    with faulty_site.opened(operator) as controller:
        with pytest.raises(Interrupted, match="while the Docker engine was away"):
            run(controller, [boost(3.0)], stop)
        assert controller.ledger.experiment("test", 1).verdict is None, (
            "it is not the idea's fault, and goes on later"
        )
        faulty.away = False
        _, rows, proposer = run(controller, [])
        assert [row.verdict for row in rows[1:]] == [Verdict.DISCARD]
        assert proposer.requests == []


def test_a_controller_killed_before_it_knew_the_id_leaves_a_container_that_the_next_one_finds(
    faulty_site, faulty, engine, site
):
    held, built = [], threading.Event()

    def hold():
        held.extend(faulty.fail("POST .*/containers/create", Fault.HANG_AFTER))
        built.set()

    faulty.before("POST .*/commit", hold)
    with faulty_site.controller(0.0, 3.0) as controller:
        assert built.wait(60)
        assert held[0].hit.wait(60)
        controller.kill()
    with site.opened(Operator()) as controller:
        label = {"label": f"{LABEL}controller={controller.ledger.controller}"}
        (made,) = engine.client.api.containers(all=True, filters=label)
        assert made["State"] == "created"
        assert controller.ledger.experiment("test", 1).verdict is None
    told = site.finish(0.0, 3.0)
    assert told[0] == ["orphans", 2], "the container and its volume"
    assert told[-1] == ["closed", 1, "discard"]
    assert engine.client.api.containers(all=True, filters=label) == []


def test_containers_volumes_and_images_removed_under_a_running_experiment_are_made_again(
    faulty_site, faulty, engine
):
    operator = Operator()
    api = engine.client.api
    labels = []

    def remove(kind):
        filters = {"label": [*labels, f"{LABEL}kind={kind}"]}
        (container,) = api.containers(all=True, filters=filters)
        api.remove_container(container["Id"], force=True)

    def remove_image():
        api.remove_image(controller.ledger.experiment("test", 3).image_id, force=True)

    def remove_volume():
        (volume,) = api.volumes(filters={"label": labels})["Volumes"]
        api.remove_volume(volume["Name"])

    def watched(request):
        faulty.before("POST .*/commit", lambda: faulty.before("POST .*/containers/create", remove_volume))
        return boost(3.3)

    operator.when("phase 1 train", lambda: remove("train"))
    operator.when("phase 2 train", lambda: remove("score"))
    operator.when("phase 3 start", remove_image, at_once=True)
    with faulty_site.opened(operator) as controller:
        labels.append(f"{LABEL}controller={controller.ledger.controller}")
        _, rows, _ = run(controller, [boost(3.0, sleep=2.0), boost(3.1, sleep=2.0), boost(3.2), watched])
    assert [row.verdict for row in rows[1:]] == [Verdict.DISCARD] * 4
    assert phases(rows[1]) == [Phase.TRAIN, Phase.TRAIN, Phase.SCORE]
    assert rows[1].runs[0].end is RunEnd.LOST
    assert operator.notes("one of our containers was removed by another program; running it again") == 1
    assert operator.notes("experiment 2: ") == 1, "the scorer is missed while it waits, or while it warms up"
    assert operator.notes("experiment 3: ") == 1
    assert operator.notes("the output volume was removed by another program; running it again") == 1


def test_a_base_image_that_is_pruned_is_built_again_and_the_night_goes_on(site, engine):
    api = engine.client.api
    made = []

    def another_base():
        # A child of its own: the real base belongs to everybody here.
        container = api.create_container(image=site.base_image, command=["true"])
        made.append(api.commit(container["Id"], changes=[f"LABEL test={len(made)}"])["Id"])
        api.remove_container(container["Id"])
        return made[-1]

    def pruned(_request):
        """All that `docker system prune -af` takes between two experiments."""
        images.remove_images(engine.client, {"controller": controller.ledger.controller})
        with contextlib.suppress(docker.errors.ImageNotFound):  # without a tag, it goes with its last child
            api.remove_image(made[-1], force=True)
        return boost(3.0)

    operator = Operator()
    with replace(site, base_image=another_base()).opened(operator) as controller:
        controller.evaluator.base.rebuild = another_base
        _, rows, _ = run(controller, [pruned, boost(3.1)])
        assert [row.verdict for row in rows[1:]] == [Verdict.DISCARD] * 2
        assert operator.notes("by another program: building it again") == 1
        assert controller.evaluator.base_image == made[1] != made[0]

        def refuse():
            raise ImageError("no registry answers", "sudo make prepare, once")

        controller.evaluator.base.rebuild = refuse
        with pytest.raises(BaseGoneError, match="cannot be built again: no registry answers"):
            run(controller, [boost(3.0), boost(3.1), pruned], more=1)
        assert controller.ledger.experiment("test", 3).verdict is None, "it is not the idea's fault"
        images.remove_images(engine.client, {"controller": controller.ledger.controller})
