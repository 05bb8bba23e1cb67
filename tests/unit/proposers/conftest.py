"""The APIs, each with its scripted server: `anthropic`, `openai`, and `api` for tests that hold for both."""

from __future__ import annotations

import importlib.util

import pytest

from runner.proposers.llm.anthropic_messages import Messages
from tests.support import fake_anthropic, fake_openai
from tests.support.chats import CANARY, Api, forget_environment


@pytest.fixture
def anthropic(monkeypatch, tmp_path):
    forget_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    return Api(
        fake=fake_anthropic,
        server=fake_anthropic.FakeAnthropic,
        url_variable="ANTHROPIC_BASE_URL",
        key_variable="ANTHROPIC_API_KEY",
        settings={"proposer": "anthropic", "model": "claude-opus-5-5"},
        chat=Messages,
    )


@pytest.fixture
def openai(monkeypatch, tmp_path):
    if importlib.util.find_spec("openai") is None:
        pytest.skip("the optional package openai is not installed")
    from runner.proposers.llm.openai_responses import Responses

    forget_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    return Api(
        fake=fake_openai,
        server=fake_openai.FakeOpenAI,
        url_variable="OPENAI_BASE_URL",
        key_variable="OPENAI_API_KEY",
        settings={"proposer": "openai", "model": fake_openai.MODEL},
        chat=Responses,
    )


@pytest.fixture(params=["anthropic", "openai"])
def api(request):
    return request.getfixturevalue(request.param)
