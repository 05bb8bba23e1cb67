"""Images: a candidate's layer is the same everywhere, a base is built once, and nothing half-done stays."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import uuid
import zipfile
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
import requests

from runner.errors import BaseGoneError, DiskFullError, EngineError, ImageError
from runner.sandbox import images
from runner.sandbox.images import base, builder, cleanup, rootfs, wheels

ROOT = Path(__file__).resolve().parents[3]
LABEL = "org.autoresearch."
FILES = {
    "workload/train.py": b"print('hello')\n",
    "workload/model.py": b"",
    "workload/kernels/__init__.py": b"# \xc3\xa9\n",
    "workload/kernels/deep/er.txt": b"x" * 2000,
}


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


# The candidate's layer


def test_the_same_files_in_any_order_make_the_same_bytes():
    assert images.layer_tar(FILES) == images.layer_tar(dict(reversed(FILES.items())))


def test_a_changed_byte_makes_another_layer():
    assert images.layer_tar(FILES) != images.layer_tar({**FILES, "workload/model.py": b"\n"})


def test_the_layer_says_nothing_about_who_made_it_or_when():
    for entry in members(images.layer_tar(FILES)):
        assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, 0, "", "")
        assert entry.mode == (0o755 if entry.isdir() else 0o644)
        assert entry.isdir() or entry.isreg()


def test_the_layer_holds_every_file_after_its_folder():
    names = [entry.name for entry in members(images.layer_tar(FILES))]
    assert names[0] == "candidate"
    assert sorted(set(names)) == sorted(names)
    for name in names[1:]:
        assert str(Path(name).parent) in names[: names.index(name)]
    assert {f"candidate/{path}" for path in FILES} <= set(names)


def test_long_names_survive_in_the_layer():
    path = "workload/" + "/".join(["long" * 20] * 4) + "/é.py"
    assert f"candidate/{path}" in [entry.name for entry in members(images.layer_tar({path: b"1"}))]


@pytest.mark.parametrize(
    "path",
    [
        "/workload/a.py",
        "workload/../../etc/passwd",
        "workload",
        "workload/",
        "workload//a.py",
        "./workload/a.py",
        "locked_eval/judging/judge.py",
        "workload/.wh.train.py",
        "workload/a\0b",
        "",
    ],
)
def test_a_path_that_is_not_plainly_inside_workload_is_refused(path):
    with pytest.raises(ImageError, match="may not hold the path"):
        images.layer_tar({path: b""})


@pytest.mark.parametrize(
    "path", ["workload/Dockerfile", "workload/.dockerignore", "workload/a.wh.b", "workload/..."]
)
def test_an_odd_but_harmless_name_is_accepted(path):
    assert f"candidate/{path}" in [entry.name for entry in members(images.layer_tar({path: b""}))]


def test_a_context_is_a_tar_of_bytes_and_files(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 * 2**20 + 7))
    stream = b"".join(builder.context_tar([("a", b"1"), ("b/c", big), ("empty", b"")]))
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        assert tar.extractfile("a").read() == b"1"
        assert tar.extractfile("b/c").read() == big.read_bytes()
        assert tar.extractfile("empty").read() == b""


# Errors of the engine


def test_a_full_disk_of_the_engine_is_told_apart():
    with pytest.raises(DiskFullError, match="while testing"), builder.engine_errors("testing"):
        raise docker.errors.APIError("write /var/lib/docker/x: no space left on device")


def test_a_refusal_of_the_engine_is_an_image_error():
    with pytest.raises(ImageError, match="while testing: nope"), builder.engine_errors("testing"):
        raise docker.errors.APIError("nope")


def test_a_silent_engine_is_an_engine_error():
    with pytest.raises(EngineError, match="stopped answering while testing"), builder.engine_errors("testing"):
        raise requests.ReadTimeout("read timed out")


# The inputs of a base image


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A copy of `images/` that a test may change."""
    folder = tmp_path / "images"
    shutil.copytree(base.IMAGES_DIR, folder)
    monkeypatch.setattr(base, "IMAGES_DIR", folder)
    return folder


@pytest.mark.parametrize("name", ["base.Dockerfile", "cpu.lock"])
def test_a_base_is_tagged_by_what_goes_into_it(inputs, name):
    before = base.base_inputs("cpu"), base.base_inputs("cuda")
    assert re.fullmatch(r"cpu-[0-9a-f]{12}", before[0])
    with (inputs / name).open("a") as file:
        file.write("# changed\n")
    after = base.base_inputs("cpu"), base.base_inputs("cuda")
    assert before[0] != after[0]
    assert (before[1] == after[1]) is (name == "cpu.lock")


def test_a_base_is_not_tagged_by_what_does_not_go_into_it(inputs):
    before = base.base_inputs("cpu")
    (inputs / "cpu.in").write_text("other\n")
    assert base.base_inputs("cpu") == before


def test_another_root_file_system_is_another_base(monkeypatch):
    before = base.base_inputs("cpu")
    monkeypatch.setattr(base, "RECIPE", "another")
    assert base.base_inputs("cpu") != before


def test_a_missing_lock_is_named(inputs):
    (inputs / "cuda.lock").unlink()
    with pytest.raises(ImageError, match=r"cuda\.lock is missing"):
        base.base_inputs("cuda")


def locked_versions(kind: str) -> dict[str, str]:
    """Name → version of a lock, having checked that every line is a pin, a hash or a comment."""
    versions: dict[str, str] = {}
    hashed: set[str] = set()
    name = ""
    for line in (ROOT / "images" / f"{kind}.lock").read_text().splitlines():
        if pin := re.fullmatch(r"([a-z0-9.-]+)==(\S+) \\", line):
            name = pin[1]
            versions[name] = pin[2]
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line):
            hashed.add(name)
        else:
            assert line.startswith("#"), line
    assert hashed == set(versions)
    return versions


@pytest.mark.parametrize("kind", ["cpu", "cuda", "prepare"])
def test_a_lock_pins_and_hashes_all_that_was_asked_for(kind):
    locked = locked_versions(kind)
    for requirement in (ROOT / "images" / f"{kind}.in").read_text().split():
        name, _, version = requirement.partition("==")
        assert name in locked
        assert version in ("", locked[name])


def test_both_profiles_run_the_same_torch_and_numpy():
    cpu, cuda = locked_versions("cpu"), locked_versions("cuda")
    assert cpu["torch"] == cuda["torch"] + "+cpu"
    assert all(cpu[name] == cuda[name] for name in cpu if name != "torch")
    assert "torch" not in locked_versions("prepare")


# The packages


def fake_pip(tmp_path: Path, monkeypatch, script: str) -> None:
    """Put a shell script in the place of Python; `$dest` is the folder that pip should fill."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/bash\nfor dest; do :; done\necho "$*" >>{tmp_path}/calls\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text("x==1 --hash=sha256:0\n")
    return path


def test_a_finished_download_is_a_folder_of_its_own(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    house = tmp_path / "wheels" / "x"
    with wheels.downloading(lock, house, None) as download:
        assert download.wait() == house
    assert os.listdir(house) == ["x.whl"]
    assert os.listdir(house.parent) == ["x"]


def test_a_finished_download_is_used_again(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, "exit 1")
    house = tmp_path / "wheels" / "x"
    house.mkdir(parents=True)
    with wheels.downloading(lock, house, None) as download:
        assert download.wait() == house
    assert not (tmp_path / "calls").exists()


def test_a_public_index_is_asked_only_when_the_host_has_no_such_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, '[[ $* == *https://public.example* ]] || exit 1; touch "$dest/x.whl"')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", "https://public.example") as download:
        download.wait()
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert "--extra-index-url" not in first
    assert "--extra-index-url https://public.example" in second


def test_a_public_index_is_not_asked_when_the_host_has_the_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", "https://public.example") as download:
        download.wait()
    assert "public.example" not in (tmp_path / "calls").read_text()


def test_a_failed_download_says_what_pip_said_and_leaves_nothing(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/half"; echo chatter; echo "ERROR: no x for you"; exit 1')
    with (
        pytest.raises(ImageError, match=r"x\.lock:\n    ERROR: no x for you\n"),
        wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download,
    ):
        download.wait()
    assert os.listdir(tmp_path / "wheels") == []


def test_an_abandoned_download_ends_and_leaves_nothing(tmp_path, monkeypatch, lock):
    os.mkfifo(tmp_path / "started")
    fake_pip(tmp_path, monkeypatch, f'touch "$dest/half"; echo $$ >{tmp_path}/started; exec sleep 1000')
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None):
        pid = int((tmp_path / "started").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert os.listdir(tmp_path / "wheels") == []


def test_what_a_killed_download_left_is_not_taken_for_a_package(tmp_path, monkeypatch, lock):
    fake_pip(tmp_path, monkeypatch, 'touch "$dest/x.whl"')
    partial = tmp_path / "wheels" / "x.partial"
    partial.mkdir(parents=True)
    (partial / "half.whl").touch()
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download:
        assert os.listdir(download.wait()) == ["x.whl"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An index of one package, with a wheel per kind of machine; returns its wheels' hashes by name."""
    index = tmp_path / "index"
    index.mkdir()
    tags = ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-win_amd64")
    hashes = {}
    for tag in tags:
        path = index / f"tiny-1.0-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            wheel.writestr("tiny-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            wheel.writestr("tiny-1.0.dist-info/RECORD", "")
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return hashes


def test_pip_takes_the_wheel_of_the_image_whatever_the_host_is(tmp_path, package):
    lock = tmp_path / "tiny.lock"
    lock.write_text("tiny==1.0 " + " ".join(f"--hash=sha256:{value}" for value in package.values()))
    with wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download:
        assert os.listdir(download.wait()) == ["tiny-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"]


def test_a_package_that_differs_from_its_hash_is_refused(tmp_path, package):
    lock = tmp_path / "tiny.lock"
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}")
    with (
        pytest.raises(ImageError, match=r"(?s)HASHES.*Got"),
        wheels.downloading(lock, tmp_path / "wheels" / "x", None) as download,
    ):
        download.wait()


# The root file system


def test_an_unreachable_registry_costs_seconds(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(rootfs, "REGISTRY_SECONDS", 0.1)
    client = SimpleNamespace(api=SimpleNamespace(inspect_distribution=lambda name: release.wait(60)))
    started = time.monotonic()
    assert not rootfs._registry_answers(client)
    assert time.monotonic() - started < 5
    release.set()


def test_a_registry_that_knows_the_image_is_used():
    asked = []
    client = SimpleNamespace(
        api=SimpleNamespace(inspect_distribution=asked.append),
        images=SimpleNamespace(pull=lambda name, tag, platform: SimpleNamespace(id=f"sha256:{name}:{tag}")),
    )
    assert rootfs._pull(client, asked.append) == f"sha256:python:{rootfs.REGISTRY_TAG}"
    assert asked[0] == f"python:{rootfs.REGISTRY_TAG}"


def test_a_registry_that_breaks_off_is_not_the_end():
    def broken(name, tag, platform):
        raise requests.ConnectionError("cut")

    client = SimpleNamespace(
        api=SimpleNamespace(inspect_distribution=lambda name: {}), images=SimpleNamespace(pull=broken)
    )
    assert rootfs._pull(client, lambda message: None) is None


def test_without_registry_and_root_the_error_names_both_ways(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match=r"(?s)needs root.*docker pull python:"):
        rootfs._check_debootstrap()


def test_debootstrap_without_the_keyring_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(rootfs, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(ImageError, match=r"none\.gpg is missing"):
        rootfs._check_debootstrap()


BOOTSTRAP = """
import sys
from pathlib import Path
from runner.sandbox.images import rootfs
try:
    rootfs.ensure_rootfs.__globals__["_find"] = lambda client, recipe: None
    rootfs.ensure_rootfs.__globals__["_pull"] = lambda client, on_progress: None
    rootfs.ensure_rootfs.__globals__["_check_debootstrap"] = lambda: None
    rootfs.ensure_rootfs(None, recipe_hash="x", scratch=Path(sys.argv[1]), on_progress=lambda message: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, and so this test of it, needs root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_debootstrap_leaves_no_process_and_no_mount(tmp_path, number):
    bin_folder, scratch = tmp_path / "bin", tmp_path / "state" / "rootfs"
    bin_folder.mkdir()
    os.mkfifo(tmp_path / "started")
    # Does what debootstrap does half-way: files, and /proc mounted inside the target.
    (bin_folder / "debootstrap").write_text(
        f"""#!/bin/bash
        exec 9>{tmp_path}/alive; flock 9
        target=${{@: -2:1}}; mkdir -p "$target/proc"; touch "$target/file"
        mount -t proc proc "$target/proc" || exit 1
        (sleep 1000) & echo up >{tmp_path}/started; wait
        """
    )
    (bin_folder / "debootstrap").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP, str(scratch)],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        cwd=ROOT,
    )
    assert (tmp_path / "started").read_text() == "up\n"
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    with (tmp_path / "alive").open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)  # waits for the last process of the bootstrap
    assert str(scratch) not in Path("/proc/mounts").read_text()
    assert scratch.exists() is (number == signal.SIGKILL)
    if scratch.exists():  # nobody could remove it; the next call does, and finds no mount under it
        assert (scratch / "file").exists()
        assert os.listdir(scratch / "proc") == []


def test_a_failed_debootstrap_says_why_and_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "_find", lambda client, recipe: None)
    monkeypatch.setattr(rootfs, "_pull", lambda client, on_progress: None)
    monkeypatch.setattr(rootfs, "_check_debootstrap", lambda: None)
    failed = subprocess.CompletedProcess([], 1, b"I: Retrieving InRelease\nE: Failed getting release file\n")
    monkeypatch.setattr(rootfs, "_run", lambda command, environment: failed)
    with pytest.raises(ImageError, match="E: Failed getting release file"):
        rootfs.ensure_rootfs(None, recipe_hash="x", scratch=tmp_path / "rootfs", on_progress=lambda message: None)
    assert not (tmp_path / "rootfs").exists()


# Building a base


class FakeEngine:
    """The part of a client that the checks before a build use."""

    def __init__(self, architecture: str = "x86_64", root: str = "/") -> None:
        self.images = SimpleNamespace(list=lambda filters: [])
        self._info = {"Architecture": architecture, "DockerRootDir": root}

    def info(self):
        return self._info


def test_a_base_that_exists_costs_nothing(tmp_path):
    client = SimpleNamespace(images=SimpleNamespace(list=lambda filters: [SimpleNamespace(id="sha256:1")]))
    messages: list[str] = []
    assert images.ensure_base(client, "cpu", tmp_path / "state", messages.append) == "sha256:1"
    assert messages == []
    assert not (tmp_path / "state").exists()


def test_another_architecture_is_refused_before_any_download(tmp_path):
    with pytest.raises(ImageError, match="aarch64"):
        images.ensure_base(FakeEngine(architecture="aarch64"), "cpu", tmp_path, print)
    assert os.listdir(tmp_path) == ["base.lock"]


@pytest.mark.parametrize(("kind", "size"), [("cpu", "6 GiB"), ("cuda", "20 GiB")])
def test_a_small_disk_is_refused_before_any_download(tmp_path, monkeypatch, kind, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * 2**30))
    with pytest.raises(DiskFullError, match=rf"{size}.*has 2\.0"):
        images.ensure_base(FakeEngine(), kind, tmp_path, print)
    assert os.listdir(tmp_path) == ["base.lock"]


def test_an_engine_whose_folder_cannot_be_seen_is_not_asked_for_its_disk(tmp_path):
    base._check_disk(FakeEngine(root="/nowhere/docker"), tmp_path, "prepare")


def test_two_starts_at_once_build_one_base(tmp_path, monkeypatch):
    built: list[str] = []
    client = SimpleNamespace(
        images=SimpleNamespace(list=lambda filters: [SimpleNamespace(id=one) for one in built])
    )
    building, waiting = threading.Event(), threading.Event()

    def slow_build(client, kind, state_dir, on_progress):
        building.set()
        assert waiting.wait(30)
        built.append("sha256:1")
        return built[0]

    monkeypatch.setattr(base, "_build_base", slow_build)
    ids: list[str] = []
    first = threading.Thread(target=lambda: ids.append(images.ensure_base(client, "cpu", tmp_path, print)))
    first.start()
    assert building.wait(30)
    second = images.ensure_base(client, "cpu", tmp_path, lambda message: waiting.set())
    first.join()
    assert [*ids, second] == ["sha256:1", "sha256:1"]
    assert len(built) == 1


# Real images, on a base of a few bytes


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
    """The candidate's layer as the engine stores it."""
    stream = io.BytesIO(b"".join(client.images.get(image_id).save()))
    with tarfile.open(fileobj=stream) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
        return tar.extractfile(manifest[0]["Layers"][-1]).read()


@pytest.mark.docker
def test_two_builds_of_the_same_files_have_the_same_layers(client, scratch_base, owner):
    base_id = scratch_base()
    one = images.build_candidate(client, base_id=base_id, files=FILES, labels={**owner, "commit": "1"})
    two = images.build_candidate(
        client, base_id=base_id, files=dict(reversed(FILES.items())), labels={**owner, "commit": "2"}
    )
    assert one.layers == two.layers
    assert one.layer_digest == one.layers[-1]
    assert one.id != two.id


@pytest.mark.docker
def test_the_layer_digest_does_not_depend_on_the_base(client, scratch_base, owner):
    files = {"workload/train.py": b"print(1)\n"}
    built = [
        images.build_candidate(client, base_id=scratch_base(name), files=files, labels={**owner, "commit": name})
        for name in ("a", "b")
    ]
    assert built[0].layer_digest == built[1].layer_digest
    assert built[0].layers != built[1].layers


@pytest.mark.docker
def test_the_stored_layer_holds_the_candidate_and_no_time(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    layer = saved_layer(client, built.id)
    assert "sha256:" + hashlib.sha256(layer).hexdigest() == built.layer_digest
    entries = members(layer)
    assert {entry.mtime for entry in entries} == {0}
    assert {entry.name for entry in entries if entry.isreg()} == {f"candidate/{path}" for path in FILES}


@pytest.mark.docker
def test_instructions_to_the_builder_inside_workload_are_inert(client, scratch_base, owner):
    files = {
        **FILES,
        "workload/Dockerfile": b"FROM scratch\nENV LD_PRELOAD=/candidate/workload/evil.so\nENTRYPOINT evil\n",
        "workload/.dockerignore": b"*\n",
        "workload/candidate.tar": images.layer_tar({"workload/planted.py": b""}),
    }
    base_id = scratch_base()
    built = images.build_candidate(client, base_id=base_id, files=files, labels={**owner, "commit": "1"})
    before, after = (client.api.inspect_image(one)["Config"] for one in (base_id, built.id))
    for name in ("Env", "Entrypoint", "Cmd", "User", "OnBuild", "Volumes", "WorkingDir"):
        assert (after.get(name) or None) == (before.get(name) or None)
    names = {entry.name for entry in members(saved_layer(client, built.id)) if entry.isreg()}
    assert names == {f"candidate/{path}" for path in files}


@pytest.mark.docker
def test_a_candidate_is_found_by_campaign_commit_and_base(client, scratch_base, owner):
    base_id, other_base = scratch_base(), scratch_base("b")
    built = images.build_candidate(client, base_id=base_id, files=FILES, labels={**owner, "commit": "c" * 40})

    def find(base_id=base_id, campaign=owner["campaign"], commit="c" * 40):
        return images.find_candidate(client, base_id=base_id, campaign=campaign, commit=commit)

    assert find() == built
    assert find(commit="c" * 39) is None
    assert find(campaign=owner["campaign"][:-1]) is None
    assert find(base_id=other_base) is None


@pytest.mark.docker
def test_a_candidate_carries_its_labels_and_is_no_base(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    labels = client.api.inspect_image(built.id)["Config"]["Labels"]
    assert (
        labels.items()
        >= {LABEL + name: value for name, value in {**owner, "commit": "1", "kind": "candidate"}.items()}.items()
    )


@pytest.mark.docker
def test_an_image_that_is_not_its_base_plus_one_layer_is_refused(client, scratch_base, owner):
    built = images.build_candidate(client, base_id=scratch_base(), files=FILES, labels={**owner, "commit": "1"})
    with pytest.raises(ImageError, match="plus one layer"):
        images.candidate._checked_image(client, built.id, scratch_base("b"))


@pytest.mark.docker
def test_an_image_with_another_environment_than_its_base_is_refused(client, scratch_base, owner):
    base_id = scratch_base()
    context = [
        ("Dockerfile", f"FROM {base_id}\nADD x.tar /\nENV A=b\n".encode()),
        ("x.tar", images.layer_tar(FILES)),
    ]
    labels = {f"{LABEL}campaign": owner["campaign"]}
    changed = builder.build(
        client, builder.context_tar(context), doing="testing", labels=labels, timeout_seconds=60
    )
    with pytest.raises(ImageError, match="differs from its base in Env"):
        images.candidate._checked_image(client, changed, base_id)


@pytest.mark.docker
def test_a_missing_base_is_one_clear_error(client, owner):
    with pytest.raises(BaseGoneError, match="somebody removed the base image"):
        images.build_candidate(client, base_id="sha256:" + "0" * 64, files=FILES, labels=owner)


@pytest.mark.docker
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


@pytest.mark.docker
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


def test_removing_without_a_label_is_a_bug():
    with pytest.raises(ValueError, match="everybody"):
        images.remove_images(SimpleNamespace(), {})


@pytest.mark.docker
def test_a_tagged_candidate_is_removed_with_its_tag(client, scratch_base, owner):
    tag = f"autoresearch-test:{owner['campaign']}"
    images.build_candidate(client, base_id=scratch_base(), files=FILES, labels=owner, tag=tag)
    assert client.images.get(tag)
    assert images.remove_images(client, {"campaign": owner["campaign"]}) == 1


@pytest.mark.docker
def test_what_a_failed_build_left_is_removed_and_nobody_elses(client, scratch_base):
    base_id = scratch_base()
    mine, others = uuid.uuid4().hex, uuid.uuid4().hex
    for name in (mine, others):
        dockerfile = f"FROM {base_id}\nLABEL {LABEL}kind=build {LABEL}builder={name}\nCOPY missing /\n"
        with pytest.raises(ImageError, match="missing"):
            builder.build(
                client,
                builder.context_tar([("Dockerfile", dockerfile.encode())]),
                doing="testing",
                labels={},
                timeout_seconds=60,
            )

    def left(name):
        return client.images.list(filters=cleanup.label_filter({"builder": name}))

    assert len(left(mine)) == len(left(others)) == 1
    cleanup.remove_leftovers(client, {"kind": "build", "builder": mine})
    assert (len(left(mine)), len(left(others))) == (0, 1)
    cleanup.remove_leftovers(client, {"kind": "build", "builder": others})


# The real base


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


@pytest.mark.docker
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
        "torch": locked_versions("cpu")["torch"],
        "compiled": True,
        "set_uid": [],
        "wheels": False,
    }
    assert images.find_base(client, "cpu") == base_id
