"""`images/extra.in`: resolved by pip for the base image, from a folder of wheels instead of an index."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from runner.errors import ImageError
from runner.sandbox.images import base, extra

BASE_LOCK = b"numpy==2.0.0 \\\n    --hash=sha256:00\n"


def write_wheel(folder, name, version="1.0", requires=()):
    """The smallest wheel that pip accepts."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    facts += "".join(f"Requires-Dist: {one}\n" for one in requires)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", facts)
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder for `extra.in`, and a host whose only index is a folder of wheels."""
    wheels, folder = tmp_path / "wheels", tmp_path / "images"
    wheels.mkdir()
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder, wheels


def test_without_extra_packages_there_is_nothing_to_lock(images):
    folder, _ = images
    assert extra.locked(folder, "cpu", BASE_LOCK) == b""
    (folder / "extra.in").write_text("# none yet\n\n")
    assert extra.locked(folder, "cpu", BASE_LOCK) == b""


def test_a_package_is_locked_with_what_it_needs_but_not_with_what_the_image_has(images):
    folder, wheels = images
    digest = write_wheel(wheels, "rotary", requires=("helper", "numpy"))
    helper = write_wheel(wheels, "helper")
    write_wheel(wheels, "numpy", "2.0.0")
    write_wheel(wheels, "numpy", "2.9.9")
    (folder / "extra.in").write_text("rotary  # positions\n")
    assert extra.locked(folder, "cpu", BASE_LOCK) is None
    content = extra.resolve(folder, "cpu", BASE_LOCK, None)
    lines = content.decode().splitlines()[1:]
    assert lines == [f"helper==1.0 --hash=sha256:{helper}", f"rotary==1.0 --hash=sha256:{digest}"]
    assert extra.locked(folder, "cpu", BASE_LOCK) == content
    assert extra.locked(folder, "cpu", BASE_LOCK + b"x") is None, "another base image"
    (folder / "extra.in").write_text("rotary>=1\n")
    assert extra.locked(folder, "cpu", BASE_LOCK) is None, "another wish"


def test_what_cannot_be_resolved_is_refused_in_one_sentence(images):
    folder, wheels = images
    write_wheel(wheels, "rotary", requires=("numpy>=3",))
    write_wheel(wheels, "numpy", "2.0.0")
    for wish in ("no-such-package", "rotary"):
        (folder / "extra.in").write_text(f"{wish}\n")
        with pytest.raises(ImageError, match=r"extra.in cannot be resolved: .+") as refused:
            extra.resolve(folder, "cpu", BASE_LOCK, None)
        assert wish in refused.value.message
        assert "\n" not in refused.value.message
    assert not (folder / "extra.cpu.lock").exists()


def test_the_lock_belongs_to_the_key_of_the_base_image(images, monkeypatch):
    folder, wheels = images
    for name in ("base.Dockerfile", "cpu.lock"):
        (folder / name).write_bytes((base.IMAGES_DIR / name).read_bytes())
    monkeypatch.setattr(base, "IMAGES_DIR", folder)
    before = base.base_inputs("cpu")
    (folder / "extra.in").write_text("rotary\n")
    unresolved = base.base_inputs("cpu")
    write_wheel(wheels, "rotary")
    extra.resolve(folder, "cpu", (folder / "cpu.lock").read_bytes(), None)
    assert len({before, unresolved, base.base_inputs("cpu")}) == 3
