"""Images: a candidate's layer is the same everywhere, and a base is built once from all of its inputs."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.errors import DiskFullError, ImageError
from runner.sandbox import images
from runner.sandbox.images import base, builder
from tests.support.layers import FILES, members

ROOT = Path(__file__).resolve().parents[3]
LABEL = "org.autoresearch."


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


def test_removing_without_a_label_is_a_bug():
    with pytest.raises(ValueError, match="images of every owner"):
        images.remove_images(SimpleNamespace(), {})
