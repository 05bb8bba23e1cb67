"""Repositories with a space in their path, apart from the machine's own git configuration."""

from __future__ import annotations

import pytest

from runner.storage.repository import Repository
from tests.support.git_repositories import configure_git, make_repository


@pytest.fixture
def own_configuration(tmp_path_factory, monkeypatch):
    configure_git(tmp_path_factory.mktemp("config"), monkeypatch)


@pytest.fixture
def root(tmp_path, own_configuration):
    return make_repository(tmp_path / "my project")


@pytest.fixture
def repository(root):
    return Repository(root)
