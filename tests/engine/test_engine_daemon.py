"""The daemon killed, restarted, stopped, replaced: on a private engine, with the real base image."""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from runner.records import Phase, RunEnd, Verdict
from runner.sandbox import images, remove_orphans
from runner.sandbox.engine import LABEL
from runner.sandbox.supervision import Reports
from runner.storage.ledger import Ledger
from tests.support.constant_workload import boost
from tests.support.engine_night import Operator, run
from tests.support.private_engine import copy_image, private_engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

DEADLINE = 3.0  # train_seconds of the site
LATE = 2.0


@pytest.fixture(scope="module")
def private(engine, base_image):
    """An engine that has the base image and nothing else."""
    with private_engine() as one:
        copy_image(engine.client, base_image, one)
        yield one


@pytest.fixture
def private_site(site, private):
    """A site on that engine."""
    return replace(site, socket=private.url)


def left(site, engine):
    """Names of containers and volumes of a site on an engine."""
    with Ledger(Path(site.repository) / ".autoresearch" / "ledger.db") as ledger:
        label = {"label": f"{LABEL}controller={ledger.controller}"}
    containers = engine.client.api.containers(all=True, filters=label)
    return [one["Id"] for one in containers] + [
        one["Name"] for one in engine.client.api.volumes(filters=label)["Volumes"] or []
    ]


def assert_nothing_stays(site, private):
    """No container is left; a volume that a killed daemon thinks is mounted goes once it was restarted."""
    private.kill(signal.SIGTERM)
    private.start()
    engine = site.connect()
    with Ledger(Path(site.repository) / ".autoresearch" / "ledger.db") as ledger:
        remove_orphans(engine, ledger.controller)
    assert left(site, engine) == []
    engine.client.close()


def training(private):
    """Processes of a training: PID 1, launcher and what they started."""
    processes = private.contained()
    return [
        pid for pid, line in processes.items() if " train" in line or ("launcher" in line and " score" not in line)
    ]


def test_a_night_survives_what_happens_to_its_daemon(private_site, private, engine, monkeypatch):
    operator = Operator()
    line = Reports.line

    def heard(self, text):
        line(self, text)
        if '"started"' in text:
            operator.hear("report", "started")

    monkeypatch.setattr(Reports, "line", heard)
    monkeypatch.setattr("runner.sandbox.responder.SETTLE_SECONDS", 1.0)
    away = private.socket.with_name("away.sock")

    def restart(number):
        private.kill(number)
        operator.when("minutes for the engine", private.start)

    def when_started(words, act):
        """Once a candidate computes, in the phase that is told by these words."""
        operator.when(words, lambda: operator.when("report started", act), at_once=True)

    def stop_beyond_the_deadline():
        began = time.monotonic()
        private.send(signal.SIGSTOP)
        try:
            while training(private):
                assert time.monotonic() - began < DEADLINE + LATE, "PID 1 did not end it"
                time.sleep(0.05)
            stopped.append(time.monotonic() - began)
        finally:
            private.send(signal.SIGCONT)

    def take_socket():
        private.socket.rename(away)
        operator.when("minutes for the engine", lambda: away.rename(private.socket))

    def replace_socket():
        private.socket.rename(away)
        private.socket.symlink_to(engine.url.removeprefix("unix://"))
        operator.when("another Docker engine", lambda: away.rename(private.socket))

    stopped = []
    operator.when("phase 1 train", lambda: restart(signal.SIGKILL))
    when_started("phase 2 score", lambda: restart(signal.SIGKILL))
    when_started("phase 3 audit", lambda: restart(signal.SIGKILL))
    operator.when("phase 4 train", lambda: restart(signal.SIGTERM))
    operator.when("phase 5 train", stop_beyond_the_deadline)
    operator.when("closed 5", take_socket, at_once=True)
    operator.when("closed 6", replace_socket, at_once=True)

    def asked(_request):
        assert private.answers(), "an idea was asked for while the engine was away"
        return boost(3.0 + _request.number / 10, before=0.0)

    script = [
        boost(3.0, sleep=2.5),
        boost(3.1, pause=2.0),
        boost(0.0, pause=1.0),
        boost(3.2, before=0.0, sleep=2.5),
        boost(3.3, before=0.0, sleep=60),
        asked,
        asked,
    ]
    with private_site.opened(operator) as controller:
        _, rows, _ = run(controller, script)
        for thread in operator.threads:
            thread.join(30)
    assert [row.verdict for row in rows[1:]] == [
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.ACCEPT,
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.DISCARD,
        Verdict.DISCARD,
    ]
    assert rows[3].runs[-1].phase is Phase.AUDIT and rows[3].runs[-1].audit.finding is None
    for number in (1, 2, 3, 4):
        assert RunEnd.LOST in {one.end for one in rows[number].runs}, f"the fault of {number} was not felt"
    assert [one.end for one in rows[5].runs] == [RunEnd.DEADLINE, RunEnd.FINISHED], "its one training counts"
    assert len(stopped) == 1
    assert operator.acts == []
    assert operator.notes("another Docker engine") == 1
    assert left(private_site, engine) == [], "nothing of ours ever came to the other engine"
    assert_nothing_stays(private_site, private)


def await_training(controller):
    """Read what a controller says until its first experiment trains."""
    for line in controller.stdout:
        if json.loads(line)[:3] == ["phase", 1, "train"]:
            return
    raise AssertionError("it never trained")


def test_no_training_outlives_its_deadline_with_controller_and_daemon_dead(private_site, private):
    with private_site.controller(60, 3.0) as controller:
        await_training(controller)
        began = time.monotonic()
        private.kill()
        controller.kill()
    assert training(private), "it runs on without them"
    while training(private):
        assert time.monotonic() - began < DEADLINE + LATE
        time.sleep(0.05)
    private.start()
    told = private_site.finish(60, 3.0)
    assert told[0][0] == "orphans" and told[0][1] >= 2
    assert told[-1] == ["closed", 1, "discard"]
    assert_nothing_stays(private_site, private)


def test_a_machine_that_restarts_loses_one_measurement_and_nothing_else(private_site, private):
    with private_site.controller(1, 3.0, 3.1) as controller:
        await_training(controller)
        controller.kill()
        private.crash()
    assert private.contained() == {}
    private.start()
    told = private_site.finish(1, 3.0, 3.1)
    assert [fact for fact in told if fact[0] == "closed"] == [["closed", 1, "discard"], ["closed", 2, "discard"]]
    assert_nothing_stays(private_site, private)


@pytest.fixture
def own_base(private_site, private):
    """Make a base image that nothing protects, above the one of all tests, which a running container protects."""
    with closing(docker.DockerClient(base_url=private.url)) as client:
        api = client.api
        guard = api.create_container(image=private_site.base_image, command=["sleep", "600"])["Id"]
        api.start(guard)

        def make():
            container = api.create_container(image=private_site.base_image, command=["true"])["Id"]
            made = api.commit(container, changes=["LABEL test=base"])["Id"]
            api.remove_container(container)
            return made

        yield client, make
        api.remove_container(guard, force=True)


def test_a_prune_of_everything_in_the_middle_of_a_night_costs_a_build_and_no_run(private_site, own_base):
    client, make = own_base
    gone = []

    def prune():
        """Do what `docker system prune -af` does."""
        client.containers.prune()
        client.networks.prune()
        deleted = client.images.prune(filters={"dangling": False})["ImagesDeleted"] or []
        gone.append({one["Deleted"] for one in deleted if "Deleted" in one})
        client.api.prune_builds()

    operator = Operator()
    operator.when("phase 1 train", prune, at_once=True)
    operator.when("closed 1", prune, at_once=True)
    base = make()
    with replace(private_site, base_image=base).opened(operator) as controller:
        controller.evaluator.base.rebuild = make
        _, rows, _ = run(controller, [boost(3.0, sleep=0.5), boost(3.1)])
        images.remove_images(controller.evaluator.engine.client, {"controller": controller.ledger.controller})
    assert base not in gone[0] and base in gone[1], "images in use stay, and all others go"
    assert operator.notes("by another program: building it again") == 1
    assert [row.verdict for row in rows[1:]] == [Verdict.DISCARD] * 2
    assert RunEnd.LOST not in {one.end for row in rows for one in row.runs}
