"""Small git repositories for tests, made with git itself and never with the code under test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runner.storage.repository import Repository, Staged

WHEN = "2026-01-02T03:04:05+00:00"
REF = "refs/autoresearch/tried/night/0001"
BRANCH = "autoresearch/night"
FILES = {"workload/train.py": b"x = 2\n", "workload/deep/er/model.py": b"\x00\xff raw\r\n"}


def git(root: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Output of a git command."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=check, input=stdin
    )
    return done.stdout.rstrip("\n")


def write(root: Path, path: str, content: str = "x = 1\n") -> None:
    """Write a file and its folders."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def commit_all(root: Path, message: str = "more") -> str:
    """Commit the checkout; returns the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", message)
    return git(root, "rev-parse", "HEAD")


def configure_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's git configuration and variables from a test; a file in `folder` replaces them."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    config = folder / "gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def make_repository(folder: Path, *options: str) -> Path:
    """A repository that could start a campaign; `options` are those of `git init`."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet", *options)
    for path in ("workload/train.py", "locked_eval/judge.py", "images/base.Dockerfile", "program.md"):
        write(folder, path)
    commit_all(folder, "first")
    return folder


def stage(repository: Repository, **changes: object) -> Staged:
    """Stage a candidate on HEAD."""
    arguments = {
        "parent": repository.resolve("HEAD"),
        "files": FILES,
        "message": "try 0001: idea\n",
        "ref": REF,
        "when": WHEN,
    }
    return repository.stage(**{**arguments, **changes})  # type: ignore[arg-type]


def keep(repository: Repository, message: str = "keep 0001: idea\n") -> str:
    """Write the kept commit of a candidate; no branch moves."""
    staged = stage(repository)
    return repository.make_commit(tree=staged.tree, parent=repository.resolve("HEAD"), message=message, when=WHEN)


def tried(root: Path) -> dict[str, str]:
    """Commits of candidates by ref."""
    lines = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch").splitlines()
    return dict(line.split(" ") for line in lines)


def remove_object(root: Path, name: str) -> None:
    """Remove a loose object, as `git gc --prune=now` does with one that no ref names."""
    found = git(root, "rev-parse", name)
    (root / ".git" / "objects" / found[:2] / found[2:]).unlink()
