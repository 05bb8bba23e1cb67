"""Repositories with a space in their path, apart from the machine's own git configuration, and a new ledger."""

from __future__ import annotations

import pytest

from runner.storage.repository import Repository
from tests.support.git_repositories import configure_git, make_repository
from tests.support.ledgers import new_ledger


@pytest.fixture
def own_configuration(tmp_path_factory, monkeypatch):
    configure_git(tmp_path_factory.mktemp("config"), monkeypatch)


@pytest.fixture
def root(tmp_path, own_configuration):
    return make_repository(tmp_path / "my project")


@pytest.fixture
def repository(root):
    return Repository(root)


@pytest.fixture
def ledger(tmp_path):
    with new_ledger(tmp_path) as opened:
        yield opened
