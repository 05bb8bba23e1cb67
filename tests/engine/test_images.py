"""Images on a real engine: candidates on a base of a few bytes, and the contents of the real base."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import uuid
from pathlib import Path

import docker
import pytest

from runner.errors import BaseGoneError, ImageError
from runner.sandbox import images
from runner.sandbox.engine import LABEL
from runner.sandbox.images import builder, cleanup
from tests.support.layers import FILES, members

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(engine):
    return engine.client


@pytest.fixture(scope="module")
def scratch_base(client):
    """Imports a tiny base; all that carries its test's label goes at the end."""
    run = uuid.uuid4().hex

    def make(name: str = "a") -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder in ("candidate", "etc"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            tar.addfile(tarfile.TarInfo(f"etc/{name}"))
        answer = client.api.import_image_from_data(
            buffer.getvalue(), changes=["ENV PATH=/opt/x", f"LABEL {LABEL}test={run} {LABEL}name={name}", "CMD []"]
        )
        return json.loads(answer.splitlines()[-1])["status"]

    yield make
    images.remove_images(client, {"test": run, "kind": "candidate"})
    images.remove_images(client, {"test": run})


@pytest.fixture
def owner(client):
    """Labels of one test's candidates."""
    name = uuid.uuid4().hex
    yield {"campaign": name, "experiment": "1"}
    images.remove_images(client, {"campaign": name})


def saved_layer(client, image_id: str) -> bytes:
    """The candidate's layer as the engine hands it out: compressed where containerd stores it."""
    stream = io.BytesIO(b"".join(client.images.get(image_id).save()))
    with tarfile.open(fileobj=stream) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
        layer = tar.extractfile(manifest[0]["Layers"][-1]).read()
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def test_two_builds_of_the_same_files_have_the_same_layers(client, scratch_base, owner):
    base_id = scratch_base()
    one = images.build_candidate(client, base_id=base_id, files=FILES, labels={**owner, "commit": "1"})
    two = images.build_candidate(
        client, base_id=base_id, files=dict(reversed(FILES.items())), labels={**owner, "commit": "2"}
    )
    assert one.layers == two.layers
    assert one.layer_digest == one.layers[-1]
    assert one.id != two.id


def test_the_layer_digest_does_not_depend_on_the_base(client, scratch_base, owner):
    files = {"workload/train.py": b"print(1)\n"}
    built = [
        images.build_candidate(client, base_id=scratch_base(name), files=files, labels={**owner, "commit": name})
        for name in ("a", "b")
    ]
    assert built[0].layer_digest == built[1].layer_digest
    assert built[0].layers != built[1].layers


def test_the_stored_layer_holds_the_candidate_and_no_time(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    layer = saved_layer(client, built.id)
    assert "sha256:" + hashlib.sha256(layer).hexdigest() == built.layer_digest
    entries = members(layer)
    assert {entry.mtime for entry in entries} == {0}
    assert {entry.name for entry in entries if entry.isreg()} == {f"candidate/{path}" for path in FILES}


def test_instructions_to_a_builder_inside_workload_are_inert(client, scratch_base, owner):
    files = {
        **FILES,
        "workload/Dockerfile": b"FROM scratch\nENV LD_PRELOAD=/candidate/workload/evil.so\nENTRYPOINT evil\n",
        "workload/.dockerignore": b"*\n",
        "workload/candidate.tar": images.layer_tar({"workload/planted.py": b""}),
    }
    base_id = scratch_base()
    built = images.build_candidate(client, base_id=base_id, files=files, labels={**owner, "commit": "1"})
    before, after = (client.api.inspect_image(one)["Config"] for one in (base_id, built.id))
    for name in ("Env", "Entrypoint", "User", "OnBuild", "Volumes", "WorkingDir"):
        assert (after.get(name) or None) == (before.get(name) or None)
    names = {entry.name for entry in members(saved_layer(client, built.id)) if entry.isreg()}
    assert names == {f"candidate/{path}" for path in files}


def test_a_candidate_is_found_by_campaign_commit_and_base(client, scratch_base, owner):
    base_id, other_base = scratch_base(), scratch_base("b")
    built = images.build_candidate(client, base_id=base_id, files=FILES, labels={**owner, "commit": "c" * 40})

    def find(base_id=base_id, campaign=owner["campaign"], commit="c" * 40):
        return images.find_candidate(client, base_id=base_id, campaign=campaign, commit=commit)

    assert find() == built
    assert find(commit="c" * 39) is None
    assert find(campaign=owner["campaign"][:-1]) is None
    assert find(base_id=other_base) is None


def test_a_candidate_carries_its_labels_and_is_no_base(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    labels = client.api.inspect_image(built.id)["Config"]["Labels"]
    assert (
        labels.items()
        >= {LABEL + name: value for name, value in {**owner, "commit": "1", "kind": "candidate"}.items()}.items()
    )


def test_an_image_that_is_not_its_base_plus_one_layer_is_refused(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    with pytest.raises(ImageError, match="plus one layer"):
        images.candidate._checked_image(client, built.id, scratch_base("b"))


@pytest.mark.parametrize(
    ("instruction", "message"),
    [("ENV A=b", "differs from its base in Env"), ('CMD ["/evil"]', "another command")],
)
def test_an_image_with_another_configuration_than_its_base_is_refused(
    client, scratch_base, owner, instruction, message
):
    base_id = scratch_base()
    context = [
        ("Dockerfile", f"FROM {base_id}\nADD x.tar /\n{instruction}\n".encode()),
        ("x.tar", images.layer_tar(FILES)),
    ]
    labels = {f"{LABEL}campaign": owner["campaign"]}
    changed = builder.build(
        client,
        builder.context_tar(context),
        builder.Build(doing="testing", labels=labels, timeout_seconds=60),
    )
    with pytest.raises(ImageError, match=message):
        images.candidate._checked_image(client, changed, base_id)


def test_a_missing_base_is_one_clear_error(client, owner):
    with pytest.raises(BaseGoneError, match="was removed"):
        images.build_candidate(client, base_id="sha256:" + "0" * 64, files=FILES, labels=owner)


def test_only_images_with_all_the_labels_are_removed(client, scratch_base, owner):
    base_id = scratch_base()
    ids = [
        images.build_candidate(
            client, base_id=base_id, files={"workload/a": commit.encode()}, labels={**owner, "commit": commit}
        ).id
        for commit in ("1", "11")
    ]
    assert images.remove_images(client, {"campaign": owner["campaign"], "commit": "1"}) == 1
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(ids[0])
    assert client.images.get(ids[1])
    assert images.remove_images(client, {"campaign": owner["campaign"]}) == 1
    assert images.remove_images(client, {"campaign": owner["campaign"]}) == 0


def test_a_base_with_candidates_on_it_stays_and_the_error_names_it(client, scratch_base, owner):
    base_id = scratch_base(owner["campaign"])
    client.api.tag(base_id, "autoresearch-test", owner["campaign"])
    own = client.api.inspect_image(base_id)["Config"]["Labels"][f"{LABEL}name"]
    built = images.build_candidate(client, base_id=base_id, files=FILES, labels={**owner, "name": "candidate"})
    with pytest.raises(ImageError, match=rf"autoresearch-test:{owner['campaign']} is in use"):
        images.remove_images(client, {"name": own})
    assert client.images.get(built.id)
    assert images.remove_images(client, {"campaign": owner["campaign"]}) == 1
    assert images.remove_images(client, {"name": own}) == 1


def test_a_tagged_candidate_is_removed_with_its_tag(client, scratch_base, owner):
    tag = f"autoresearch-test:{owner['campaign']}"
    images.build_candidate(client, base_id=scratch_base(), files=FILES, labels=owner, tag=tag)
    assert client.images.get(tag)
    assert images.remove_images(client, {"campaign": owner["campaign"]}) == 1


def test_what_a_failed_build_left_is_removed_and_no_others(client, scratch_base):
    base_id = scratch_base()
    mine, others = uuid.uuid4().hex, uuid.uuid4().hex
    for name in (mine, others):
        dockerfile = f"FROM {base_id}\nLABEL {LABEL}kind=build {LABEL}builder={name}\nCOPY missing /\n"
        with pytest.raises(ImageError, match="missing"):
            builder.build(
                client,
                builder.context_tar([("Dockerfile", dockerfile.encode())]),
                builder.Build(doing="testing", timeout_seconds=60),
            )

    def left(name):
        return client.images.list(filters=cleanup.label_filter({"builder": name}))

    assert len(left(mine)) == len(left(others)) == 1
    cleanup.remove_leftovers(client, {"kind": "build", "builder": mine})
    assert (len(left(mine)), len(left(others))) == (0, 1)
    cleanup.remove_leftovers(client, {"kind": "build", "builder": others})


INSIDE = r"""
import grp, importlib.util, json, os, pwd, shutil, subprocess, sys, sysconfig
import torch
with open("/tmp/m.cpp", "w") as file:
    file.write("#include <Python.h>\n#include <vector>\n")
include = "-I" + sysconfig.get_path("include")
set_uid = [
    name
    for folder, _, files in os.walk("/usr")
    for name in files
    if not os.path.islink(path := os.path.join(folder, name)) and os.stat(path).st_mode & 0o6000
]
print(json.dumps({
    "python": list(sys.version_info[:2]),
    "user": [pwd.getpwnam("candidate").pw_uid, grp.getgrnam("candidate").gr_gid],
    "folders": [os.path.isdir(f"/{name}") for name in ("candidate", "locked", "data", "val", "out")],
    "compiles": subprocess.call(["g++", include, "-fsyntax-only", "/tmp/m.cpp"]),
    "gcc": shutil.which("gcc") is not None,
    "pip": importlib.util.find_spec("pip") is not None,
    "torch": torch.__version__,
    "compiled": os.path.exists(importlib.util.cache_from_source(torch.__file__)),
    "set_uid": set_uid,
    "wheels": os.path.exists("/build"),
}))
"""


def test_the_base_holds_what_a_workload_needs_and_nothing_else(client):
    base_id = images.ensure_base(client, "cpu", ROOT / ".autoresearch", print)
    facts = json.loads(
        client.containers.run(
            base_id,
            ["python", "-c", INSIDE],
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "rw"},
            user="10001:10001",
            cap_drop=["ALL"],
            remove=True,
        )
    )
    assert facts == {
        "python": [3, 11],
        "user": [10001, 10001],
        "folders": [True] * 5,
        "compiles": 0,
        "gcc": True,
        "pip": False,
        "torch": re.search(r"^torch==(\S+)", (ROOT / "images" / "cpu.lock").read_text(), re.MULTILINE)[1],
        "compiled": True,
        "set_uid": [],
        "wheels": False,
    }
    assert images.find_base(client, "cpu") == base_id
