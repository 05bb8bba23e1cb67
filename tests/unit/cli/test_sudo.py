"""What root makes in a clone under sudo belongs to the person who typed it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runner.storage.ownership import give_to_caller

ROOT = Path(__file__).resolve().parents[3]
USER = 12345
COMMAND = "import sys; sys.argv[1:] = ['status']; from runner.cli import main; main()"
AS_USER = """
import os, sys
from pathlib import Path
from runner.storage.ledger import Ledger  # before this user can no longer read the interpreter's own files
os.setgroups([]), os.setgid({user}), os.setuid({user})
with Ledger(Path({folder!r}) / ".autoresearch" / "ledger.db") as ledger:
    ledger.delete_campaign("none")
"""


@pytest.fixture
def clone():
    """A clone of another user, in a folder that all may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "clone"
        subprocess.run(["git", "init", "--quiet", root], check=True)
        for path in (root, *root.rglob("*")):
            os.chown(path, USER, USER)
        yield root


def python(code, folder, **variables):
    """Run Python in a folder."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", **variables}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


def made_by_root(folder):
    return [str(path) for path in folder.rglob("*") if path.lstat().st_uid != USER]


MAKE = f"""
from pathlib import Path
from runner.storage.ledger import Ledger
Ledger(Path(".autoresearch/ledger.db")).close()
Path("link").symlink_to("/etc/passwd")
{COMMAND}
"""


def test_after_a_command_under_sudo_the_owner_of_the_clone_can_go_on(clone):
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "x"]
    subprocess.run(commit, cwd=clone, env={**os.environ, **git}, check=True)
    python(MAKE, clone, SUDO_UID=str(USER), SUDO_GID=str(USER), **git)
    assert (clone / ".autoresearch" / "ledger.db").exists()
    assert made_by_root(clone) == []
    assert Path("/etc/passwd").stat().st_uid == 0
    done = python(AS_USER.format(user=USER, folder=str(clone)), ROOT)
    assert done.returncode == 0, done.stderr


def test_root_without_sudo_and_files_of_other_places_stay_as_they_are(clone, monkeypatch):
    (clone / "file").write_text("")
    give_to_caller(clone)
    assert made_by_root(clone) == [str(clone / "file")]
    monkeypatch.setenv("SUDO_UID", str(USER))
    monkeypatch.setenv("SUDO_GID", str(USER))
    elsewhere = clone.parent / "file"
    elsewhere.write_text("")
    (clone / "link").hardlink_to(elsewhere)
    give_to_caller(clone.parent)  # which is root's own
    assert elsewhere.stat().st_uid == 0
    give_to_caller(clone)
    assert made_by_root(clone) == [str(clone / "link")]
    assert elsewhere.stat().st_uid == 0
