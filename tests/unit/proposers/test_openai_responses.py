"""A conversation over the Responses API: the real SDK over HTTP against a scripted server."""

from __future__ import annotations

import json
import sys

import pytest

from runner.config import load
from runner.errors import ProposerError
from runner.proposers.llm import open_chat
from runner.proposers.llm.chat import Answer, Call, Stop
from runner.proposers.llm.openai_responses import can_be_strict
from tests.support import fake_openai as fake
from tests.support.chats import CANARY, EDITOR, OPENING, SUBMIT, replied
from tests.support.fake_anthropic import Reply, cut
from tests.support.fake_openai import REASONING

GOOD = {"why": "A higher learning rate trains faster."}
OK = fake.call("submit", GOOD)


@pytest.fixture
def ask(openai, monkeypatch, tmp_path):
    """Hold a conversation with a script: the outcome, the server, and the waits."""
    return openai.asking(monkeypatch, tmp_path)


# --- the request --------------------------------------------------------------------------------------------


def test_an_answer_has_calls_text_and_thinking(ask):
    items = REASONING, fake.message("I raise it."), fake.function_call("submit", json.dumps(GOOD))
    asked, server, waits = ask(fake.response(*items))
    assert asked.last == Answer(
        raw=list(items),
        calls=(Call(id="call_1", name="submit", input=GOOD),),
        text="I raise it.",
        thinking="Let me see.",
        stop=Stop.CALLS,
    )
    assert len(server.requests) == 1 and waits == []


def test_the_server_stores_nothing_and_reasoning_arrives_encrypted(ask):
    _, server, _ = ask(OK)
    (body,) = server.requests
    assert body["store"] is False and body["include"] == ["reasoning.encrypted_content"]
    assert body["stream"] is True and "tool_choice" not in body and body["max_output_tokens"] == 32_000
    assert body["instructions"] == OPENING.system
    assert [said["content"][0]["text"] for said in body["input"]] == [OPENING.material, OPENING.task]
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"


def test_a_missing_model_is_asked_for_before_key_and_price(openai, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for proposer in ("openai", "bedrock"):
        with pytest.raises(ProposerError, match=f"no model is set for the proposer {proposer}") as caught:
            open_chat(load(tmp_path, {"proposer": proposer}, environ={}))
        assert "--model NAME" in caught.value.remedy


def test_a_model_that_does_not_reason_is_not_asked_for_reasoning(ask):
    _, server, _ = ask(OK, settings={"model": "gpt-4.1"})
    assert "include" not in server.requests[0]


def test_tools_are_functions_that_are_strict_if_the_schema_allows_it(ask):
    _, server, _ = ask(OK, settings={"editor": "builtin"})
    editor, submit = server.requests[0]["tools"]
    assert (editor["type"], editor["name"], editor["strict"]) == ("function", EDITOR.name, False)
    assert editor["parameters"] == EDITOR.schema and submit["strict"] is True


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SUBMIT.schema, True),
        (EDITOR.schema, False),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, False),
    ],
)
def test_a_schema_is_strict_when_every_object_is_closed_and_complete(schema, strict):
    assert can_be_strict(schema) is strict


def test_an_answer_goes_back_verbatim_with_its_results(ask):
    items = [REASONING, *(fake.function_call("submit", "{}", name) for name in ("c1", "c2"))]
    asked, server, _ = ask(
        fake.response(*items), OK, replies=[lambda answer: replied(answer, "no", "nor this", words="Hurry.")]
    )
    assert isinstance(asked.last, Answer) and len(asked.booked) == 2
    first, second = (body["input"] for body in server.requests)
    assert second[:2] == first and second[2:5] == items
    assert second[5:] == [
        {"type": "function_call_output", "call_id": "c1", "output": "no"},
        {"type": "function_call_output", "call_id": "c2", "output": "nor this"},
        {"role": "user", "content": [{"type": "input_text", "text": "Hurry."}]},
    ]


def test_a_result_that_is_an_error_says_so(ask):
    _, server, _ = ask(OK, OK, replies=[lambda answer: replied(answer, "no such file", is_error=True)])
    assert server.requests[1]["input"][-1]["output"] == "Error: no such file"


@pytest.mark.parametrize("wanted", [{}, {"a": [1, None, {"é": 1.5}]}, [1, 2], "text", 7, None, True])
@pytest.mark.parametrize("name", ["submit", "no such tool", ""])
def test_a_call_with_any_input_survives(ask, name, wanted):
    asked, server, _ = ask(fake.call(name, wanted), OK, replies=[lambda answer: replied(answer, "no")])
    (call,) = asked.outcomes[0].calls
    assert (call.name, call.input) == (name, wanted)
    assert json.loads(server.requests[1]["input"][3]["arguments"]) == wanted


@pytest.mark.parametrize("arguments", ["", "{", '{"why": NaN}', "edit it"])
def test_arguments_that_are_not_json_stay_text(ask, arguments):
    asked, _, _ = ask(fake.response(fake.function_call("submit", arguments)))
    assert asked.last.calls[0].input == arguments


def test_an_answer_that_no_request_can_carry_back_is_asked_again(ask):
    asked, server, _ = ask(fake.response(fake.function_call("submit", '{"why": "\\ud800"}')), OK)
    assert asked.last.calls[0].input == GOOD and len(server.requests) == len(asked.booked) == 2


def test_an_end_without_items_is_completed_by_the_stream(ask):
    """Some servers that imitate the API omit them."""
    events = list(OK.events)
    name, data = events[-1]
    events[-1] = name, {**data, "response": {**data["response"], "output": []}}
    asked, _, _ = ask(Reply(events=events))
    assert asked.last.raw[0] == REASONING and asked.last.calls[0].input == GOOD


@pytest.mark.parametrize(
    ("reply", "stop", "detail"),
    [
        (fake.say("Done."), Stop.SAID, None),
        (OK, Stop.CALLS, None),
        (fake.response(), Stop.SAID, None),
        (fake.response(fake.message("I cannot help.", "refusal")), Stop.REFUSED, "I cannot help."),
        (
            fake.call("submit", GOOD, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Stop.TOO_LONG,
            None,
        ),
        (
            fake.say("I", status="incomplete", incomplete_details={"reason": "content_filter"}),
            Stop.REFUSED,
            "content_filter",
        ),
        (fake.say("I", status="incomplete", incomplete_details={"reason": "tired"}), Stop.TOO_LONG, "tired"),
    ],
)
def test_every_end_has_a_meaning(ask, reply, stop, detail):
    asked, _, _ = ask(reply)
    assert (asked.last.stop, asked.last.stop_detail) == (stop, detail)
    assert [row["cost_usd"] > 0 for row in asked.booked] == [True]


# --- money --------------------------------------------------------------------------------------------------


def test_every_kind_of_token_is_booked_to_the_cent(ask):
    cost = fake.usage(input_tokens=200_000, output_tokens=10_000, cached_tokens=120_000)
    (booked,) = ask(fake.call("submit", GOOD, cost=cost))[0].booked
    assert (booked["input_tokens"], booked["cache_read_tokens"]) == (80_000, 120_000)
    assert (booked["model"], booked["request_id"]) == ("gpt-5-2025-08-07", "req_fake")
    # USD per million: 1.25 in, 0.125 cached, 10 out.
    assert booked["cost_usd"] == pytest.approx(0.1 + 0.015 + 0.1)


def test_tokens_written_to_the_cache_are_priced_as_such(ask):
    cost = fake.usage(input_tokens=200_000, output_tokens=0, cached_tokens=50_000, cache_write_tokens=100_000)
    settings = {"model": "mine", "price_input_usd": 1.0, "price_output_usd": 2.0}
    (booked,) = ask(fake.call("submit", GOOD, cost=cost), settings=settings)[0].booked
    assert (booked["input_tokens"], booked["cache_write_tokens"]) == (50_000, 100_000)
    assert booked["cost_usd"] == pytest.approx(0.05 + 0.5 * 0.05 + 1.25 * 0.1)


def test_an_unknown_price_is_refused_at_the_start(openai, tmp_path):
    with pytest.raises(ProposerError, match="price of model 'claude-opus-5-5' is not known"):
        openai.open(tmp_path, model="claude-opus-5-5")


def test_an_answer_that_was_cut_off_is_booked_by_an_estimate(ask):
    """The API reports the cost of a prompt only at the end."""
    long = fake.call("submit", {"why": "x" * 30_000})
    asked, server, _ = ask(cut(long, len(long.events) - 4), OK)
    estimated, whole = asked.booked
    prompt = len(json.dumps(server.requests[0]))
    assert estimated["input_tokens"] == pytest.approx(prompt / 3, rel=0.05)
    assert 10_000 <= estimated["output_tokens"] <= 11_000
    assert (whole["input_tokens"], whole["output_tokens"]) == (1000, 200)


def test_a_response_that_failed_is_booked_by_what_it_says(ask):
    asked, _, _ = ask(fake.fails("server_error", cost=fake.usage(input_tokens=7, output_tokens=5)), OK)
    assert [(row["input_tokens"], row["output_tokens"]) for row in asked.booked] == [(7, 5), (1000, 200)]


# --- the package --------------------------------------------------------------------------------------------


def test_a_missing_package_is_reported_with_the_command_that_installs_it(openai, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ProposerError, match="openai is missing") as caught:
        open_chat(openai.config(tmp_path))
    assert caught.value.remedy == "pip install 'autoresearch-runner[openai]'"
