"""`autoresearch doctor` as a user types it."""

from __future__ import annotations

import json
import os

import pytest

from runner.sandbox import images
from runner.storage.lock import exclusive
from tests.support.private_engine import copy_image, private_engine

pytestmark = pytest.mark.docker


def findings(result):
    return {one["name"]: one for one in map(json.loads, result.stdout.splitlines())}


def test_doctor_says_what_is_there_and_what_holds(torch_clone, engine, torch_image):
    with private_engine() as alone:  # beside a night of others it would leave the probes out
        copy_image(engine.client, torch_image, alone)
        examined = torch_clone("doctor", "--json", check=False, DOCKER_HOST=alone.url)
    found = findings(examined)
    assert "probes" not in found, found["probes"]
    assert found["docker"]["level"] == "ok"
    assert found["git"]["level"] == "ok"
    assert found["model"]["level"] == "ok"
    assert found["seccomp"]["level"] == "ok"
    assert found["watchdog"]["level"] == "ok", "its daemon was stopped, and PID 1 ended the run"
    problems = {name for name, one in found.items() if one["level"] == "problem"}
    assert all(name.endswith("-version") or name.startswith(("disk", "docker-")) for name in problems), problems
    assert examined.returncode == bool(problems)
    assert "looking around" in examined.stderr


def test_doctor_fails_without_an_engine(fresh_clone, tmp_path):
    ill = fresh_clone("doctor", check=False, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert ill.returncode == 1
    assert "make engine" in ill.stdout


def test_what_an_operator_accepts_is_no_failure(fresh_clone):
    found = findings(fresh_clone("doctor", "--fast", "--json", check=False))
    assert "seccomp" not in found, "--fast starts no container"
    problems = [name for name, one in found.items() if one["level"] == "problem"]
    lines = [f'{name} = "looked into it"' for name in {"engine-version", *problems}]
    (fresh_clone.root / "autoresearch.toml").write_text("[accept]\n" + "\n".join(lines) + "\n")
    again = fresh_clone("doctor", "--fast", "--json")
    levels = {name: one["level"] for name, one in findings(again).items() if name in problems}
    assert levels == dict.fromkeys(problems, "accepted")


def test_doctor_probes_nothing_without_a_base_image(fresh_clone, engine):
    if images.find_base(engine.client, "cuda") is not None:
        pytest.skip("the cuda base image is here")
    found = findings(fresh_clone("doctor", "--json", check=False, AUTORESEARCH_PROFILE="cuda"))
    assert (found["probes"]["level"], found["probes"]["remedy"]) == ("note", "autoresearch prepare")
    assert found["base-image"]["level"] == "note"


def test_doctor_probes_nothing_while_a_controller_works(fresh_clone):
    fresh_clone("doctor", "--fast", check=False)
    with exclusive(fresh_clone.state):
        found = findings(fresh_clone("doctor", "--json", check=False))
    assert found["probes"]["level"] == "note"
    assert str(os.getpid()) in found["probes"]["fact"]
    assert not {"seccomp", "watchdog"} & found.keys()
