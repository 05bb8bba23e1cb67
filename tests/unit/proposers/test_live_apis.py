"""The promises of the real APIs. Each test costs about a cent, and is skipped without its key.

ANTHROPIC_API_KEY=… OPENAI_API_KEY=… python -m pytest -m network tests/unit/proposers/test_live_apis.py
"""

from __future__ import annotations

import os

import pytest

from runner.errors import ProposerError
from runner.proposers.llm import open_chat
from runner.proposers.llm.chat import Answer, Exchange, Opening, Stop
from tests.support.chats import EDITOR, OPENING, SUBMIT, Notebook, config, replied

pytestmark = pytest.mark.network

KEYS = {
    "anthropic": "ANTHROPIC_API_KEY",
    "bedrock": "AWS_BEARER_TOKEN_BEDROCK",
    "vertex": "GOOGLE_APPLICATION_CREDENTIALS",
    "openai": "OPENAI_API_KEY",
}
MODELS = {
    "anthropic": "claude-haiku-5-5",
    "bedrock": "global.anthropic.claude-haiku-5-5",
    "vertex": "claude-haiku-5-5",
    "openai": "gpt-5-nano",
}


@pytest.fixture(params=KEYS)
def api(request):
    """An API whose key is in the environment."""
    if not os.environ.get(KEYS[request.param]):
        pytest.skip(f"there is no {KEYS[request.param]} in the environment")
    return request.param


def live_config(folder, api, **settings):
    return config(folder, **{"proposer": api, "model": MODELS[api], "max_output_tokens": 4000, **settings})


def test_a_conversation_with_tools_goes_there_and_back(api, tmp_path):
    task = f"Call {SUBMIT.name} with a short reason. When it is refused, call it again with another one."
    opening = Opening(system="You test an API.", material="RATE = 0.02", task=task)
    notebook, exchanges = Notebook(), []
    with open_chat(live_config(tmp_path, api)).connect() as connection:
        for _ in range(2):
            answer = connection.ask(opening, exchanges, [EDITOR, SUBMIT], notebook)
            assert isinstance(answer, Answer) and answer.stop is Stop.CALLS, answer
            assert answer.calls[0].name == SUBMIT.name and isinstance(answer.calls[0].input["why"], str)
            refused = ["Refused: another reason, please."] * len(answer.calls)
            exchanges.append(replied(answer, *refused, is_error=True))
    assert all(usage.request_id and usage.input_tokens and usage.output_tokens for usage in notebook.usages)
    assert all(0 < usage.cost_usd < 0.05 for usage in notebook.usages)


def test_prose_goes_back_as_well(api, tmp_path):
    with open_chat(live_config(tmp_path, api)).connect() as connection:
        opening = Opening(system="You test an API.", material="-", task="Say the word blue. Call nothing.")
        answer = connection.ask(opening, [], [EDITOR, SUBMIT], Notebook())
        assert isinstance(answer, Answer) and answer.stop is Stop.SAID
        exchange = Exchange(answer=answer, words="Say it again.")
        assert isinstance(connection.ask(opening, [exchange], [EDITOR, SUBMIT], Notebook()), Answer)


def test_a_wrong_key_and_a_wrong_model_are_distinguished(api, tmp_path, monkeypatch):
    with (
        open_chat(
            live_config(tmp_path, api, model="no-such-model", price_input_usd=0, price_output_usd=0)
        ).connect() as connection,
        pytest.raises(ProposerError) as caught,
    ):
        connection.ask(OPENING, [], [SUBMIT], Notebook())
    assert "model" in caught.value.message
    if api in ("anthropic", "openai"):
        monkeypatch.setenv(KEYS[api], "sk-wrong-canary-0123456789")
        with open_chat(live_config(tmp_path, api)).connect() as connection, pytest.raises(ProposerError) as caught:
            connection.ask(OPENING, [], [SUBMIT], Notebook())
        assert "does not accept the key" in caught.value.message and "canary" not in caught.value.message
