"""A conversation over the Responses API: the real SDK over HTTP against a scripted server."""

from __future__ import annotations

import json
import sys
import traceback

import pytest

from runner.errors import ProposerError
from runner.proposers.llm import open_chat
from runner.proposers.llm.chat import Answer, Call, Stop, Unanswered
from runner.proposers.llm.openai_responses import Responses, can_be_strict
from runner.proposers.llm.request_policy import ATTEMPTS, MAX_RETRY_AFTER_SECONDS, MAX_WAIT_SECONDS
from tests.support import fake_openai as fake
from tests.support.chats import (
    CANARY,
    EDITOR,
    OPENING,
    SUBMIT,
    Asker,
    Notebook,
    asking,
    config,
    forget_environment,
    replied,
)
from tests.support.fake_anthropic import Reply, cut, ends_early, garbage
from tests.support.fake_openai import REASONING, FakeOpenAI

pytest.importorskip("openai", reason="the optional package openai is not installed")

GOOD = {"why": "A higher learning rate trains faster."}
OK = fake.call("submit", GOOD)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    forget_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def openai_config(folder, **settings):
    return config(folder, **{"proposer": "openai", "model": fake.MODEL, **settings})


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Hold a conversation with a script: what came of it, the server, and the waits."""

    def open_responses(settings, sleep):
        return open_chat(openai_config(tmp_path, **settings), sleep=sleep)

    return asking(monkeypatch, tmp_path, FakeOpenAI, "OPENAI_BASE_URL", open_responses)


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


def test_nothing_is_stored_and_reasoning_comes_sealed(ask):
    _, server, _ = ask(OK)
    (body,) = server.requests
    assert body["store"] is False and body["include"] == ["reasoning.encrypted_content"]
    assert body["stream"] is True and "tool_choice" not in body and body["max_output_tokens"] == 32_000
    assert body["instructions"] == OPENING.system
    assert [said["content"][0]["text"] for said in body["input"]] == [OPENING.material, OPENING.task]
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"


def test_a_model_that_does_not_reason_is_not_asked_for_reasoning(ask):
    _, server, _ = ask(OK, settings={"model": "gpt-4.1"})
    assert "include" not in server.requests[0]


def test_tools_are_functions_strict_where_the_schema_allows(ask):
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
def test_arguments_that_are_no_json_stay_text(ask, arguments):
    asked, _, _ = ask(fake.response(fake.function_call("submit", arguments)))
    assert asked.last.calls[0].input == arguments


def test_an_answer_that_no_request_can_carry_back_is_asked_again(ask):
    asked, server, _ = ask(fake.response(fake.function_call("submit", '{"why": "\\ud800"}')), OK)
    assert asked.last.calls[0].input == GOOD and len(server.requests) == len(asked.booked) == 2


def test_an_end_without_items_is_completed_by_the_stream(ask):
    """As some servers do that imitate the API."""
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


def test_an_answer_that_was_paid_for_is_rebuilt_and_not_asked_again(monkeypatch, tmp_path):
    notebook, answers = Notebook(), []
    with FakeOpenAI([fake.call("submit", [1, "é"])]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for _ in range(2):
            with Responses(openai_config(tmp_path)).connect() as line:
                answers.append(line.ask(OPENING, [], [SUBMIT], notebook))
    assert len(server.requests) == 1 and answers[0] == answers[1]


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        fake.error(500, "server_error"),
        fake.error(503, None),
        fake.error(429, "rate_limit_exceeded"),
        fake.error(408, None),
        cut(OK, 0),
        cut(OK, 1),
        cut(OK, 6),
        ends_early(OK, 0),
        ends_early(OK, 6),
        fake.breaks(OK, 6, "server_error"),
        fake.breaks(OK, 0, "rate_limit_exceeded"),
        fake.breaks_as_of_old(OK, 6, "server_error"),
        fake.fails("server_error"),
        fake.fails("a_new_kind_of_trouble"),
        garbage(OK, 3),
    ],
)
def test_a_transient_fault_is_tried_again(ask, fault):
    asked, server, waits = ask(fault, OK)
    assert isinstance(asked.last, Answer), asked.last
    assert len(server.requests) == 2 and len(waits) == 1 and 0 < waits[0] <= MAX_WAIT_SECONDS
    assert server.requests[0] == server.requests[1]
    assert server.headers[1].get("x-stainless-retry-count", "0") == "0"


def test_retry_after_is_honoured_within_a_cap(ask):
    _, _, waits = ask(fake.error(429, "rate_limit_exceeded", retry_after="17"), OK)
    assert waits == [17.0]
    _, _, waits = ask(fake.error(429, "rate_limit_exceeded", retry_after="86400"), OK)
    assert waits == [MAX_RETRY_AFTER_SECONDS]


def test_an_api_that_stays_down_gives_no_answer(ask):
    asked, server, waits = ask(*[fake.error(503, None)] * ATTEMPTS)
    assert isinstance(asked.last, Unanswered) and asked.last.again and asked.booked == []
    assert "503" in asked.last.reason and len(server.requests) == ATTEMPTS and len(waits) == ATTEMPTS - 1


def test_an_hour_of_overload_ends_with_the_answer(monkeypatch, tmp_path):
    waits, outcomes = [], []

    def overloaded_for_an_hour(_):
        return fake.error(529, None) if sum(waits) < 3600 else OK

    with FakeOpenAI([overloaded_for_an_hour] * 1000) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with Responses(openai_config(tmp_path), sleep=waits.append).connect() as line:
            while not outcomes or isinstance(outcomes[-1], Unanswered):
                outcomes.append(line.ask(OPENING, [], [SUBMIT], Notebook()))
    assert isinstance(outcomes[-1], Answer) and all(outcome.again for outcome in outcomes[:-1])


def test_no_server_at_all_is_no_answer(monkeypatch, tmp_path):
    with FakeOpenAI([]) as server:
        url = server.url
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    asked = Asker(tmp_path)(Responses(openai_config(tmp_path), sleep=lambda _: None))
    assert isinstance(asked.last, Unanswered) and "no connection to 127.0.0.1" in asked.last.reason


@pytest.mark.parametrize(
    ("fault", "reason", "remedy"),
    [
        (fake.error(401, "invalid_api_key", f"wrong key: {CANARY}"), "does not accept the key", "OPENAI_API_KEY"),
        (fake.error(403, "unsupported_country_region_territory"), "may not use model 'gpt-5'", "--model"),
        (fake.error(404, "model_not_found"), "no model 'gpt-5'", "--model"),
        (fake.error(400, "model_not_found"), "no model 'gpt-5'", "--model"),
        (fake.Reply(status=404, body="nothing"), "no Responses API at 127.0.0.1", "OPENAI_BASE_URL"),
        (fake.error(429, "insufficient_quota"), "no credit", "add credit"),
        (fake.error(400, "billing_hard_limit_reached"), "spending limit", "raise the limit"),
        (fake.error(400, "unsupported_parameter", "no such thing"), "no such thing", None),
        (fake.error(400, "context_length_exceeded"), "refuses the request", None),
        (fake.breaks(OK, 2, "insufficient_quota"), "no credit", "add credit"),
        (fake.breaks(OK, 2, "invalid_prompt", f"not {CANARY}"), "refuses the request", None),
        (fake.fails("bio_policy"), "refuses the request", None),
    ],
)
def test_what_cannot_be_helped_by_asking_again_is_a_clear_error(ask, fault, reason, remedy):
    asked, server, waits = ask(fault)
    assert isinstance(asked.last, ProposerError) and reason in asked.last.message
    assert (remedy or "") in (asked.last.remedy or "")
    assert len(server.requests) == 1 and waits == []
    assert asked.last.__cause__ is None


def test_a_conversation_that_the_api_does_not_take_any_more_is_given_up(ask):
    too_long = fake.error(400, "context_length_exceeded", "the window is full")
    asked, _, waits = ask(OK, too_long, replies=[lambda answer: replied(answer, "no")])
    assert isinstance(asked.last, Unanswered) and not asked.last.again
    assert "the window is full" in asked.last.reason and waits == []


def test_a_stop_in_the_middle_of_an_answer_books_what_has_arrived(ask):
    moments = iter([False] * 100 + [True] * 1000)
    asked, server, waits = ask(fake.say("x" * 30_000), stopping=lambda: next(moments))
    assert asked.last == Unanswered(reason="stopped", again=True) and waits == []
    (booked,) = asked.booked
    assert 0 < booked["output_tokens"] < 5000 and asked.kept == b"" and len(server.requests) == 1


# --- money --------------------------------------------------------------------------------------------------


def test_every_kind_of_token_is_booked_to_the_cent(ask):
    cost = fake.usage(input_tokens=200_000, output_tokens=10_000, cached_tokens=120_000)
    (booked,) = ask(fake.call("submit", GOOD, cost=cost))[0].booked
    assert (booked["input_tokens"], booked["cache_read_tokens"]) == (80_000, 120_000)
    assert (booked["model"], booked["request_id"]) == ("gpt-5-2025-08-07", "req_fake")
    # USD per million: 1.25 in, 0.125 cached, 10 out.
    assert booked["cost_usd"] == pytest.approx(0.1 + 0.015 + 0.1)


def test_what_is_written_to_the_cache_is_priced_as_such(ask):
    cost = fake.usage(input_tokens=200_000, output_tokens=0, cached_tokens=50_000, cache_write_tokens=100_000)
    settings = {"model": "mine", "price_input_usd": 1.0, "price_output_usd": 2.0}
    (booked,) = ask(fake.call("submit", GOOD, cost=cost), settings=settings)[0].booked
    assert (booked["input_tokens"], booked["cache_write_tokens"]) == (50_000, 100_000)
    assert booked["cost_usd"] == pytest.approx(0.05 + 0.5 * 0.05 + 1.25 * 0.1)


def test_an_unknown_price_is_refused_at_the_start(tmp_path):
    with pytest.raises(ProposerError, match="price of model 'claude-opus-5-5' is not known"):
        Responses(openai_config(tmp_path, model="claude-opus-5-5"))


def test_a_cut_answer_is_booked_by_a_guess(ask):
    """The API tells what a prompt costs at the end only."""
    long = fake.call("submit", {"why": "x" * 30_000})
    asked, server, _ = ask(cut(long, len(long.events) - 4), OK)
    guessed, whole = asked.booked
    prompt = len(json.dumps(server.requests[0]))
    assert guessed["input_tokens"] == pytest.approx(prompt / 3, rel=0.05)
    assert 10_000 <= guessed["output_tokens"] <= 11_000
    assert (whole["input_tokens"], whole["output_tokens"]) == (1000, 200)


def test_a_response_that_failed_is_booked_by_what_it_says(ask):
    asked, _, _ = ask(fake.fails("server_error", cost=fake.usage(input_tokens=7, output_tokens=5)), OK)
    assert [(row["input_tokens"], row["output_tokens"]) for row in asked.booked] == [(7, 5), (1000, 200)]


def test_the_budget_is_looked_at_before_every_attempt(ask):
    room = iter([None, "the budget is spent"])
    asked, server, _ = ask(cut(OK, 3), OK, budget=lambda: next(room))
    assert asked.last == Unanswered(reason="the budget is spent", again=True) and len(server.requests) == 1


# --- the key and the package --------------------------------------------------------------------------------


def test_an_answer_that_quotes_the_key_is_booked_but_not_kept(ask):
    asked, _, _ = ask(
        fake.say(f"Your key is {CANARY}."), OK, replies=[lambda answer: replied(answer, words="Submit.")]
    )
    assert isinstance(asked.last, Answer) and len(asked.booked) == 2
    assert b"Let me see." in asked.kept


def test_a_missing_key_is_told_at_the_start(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ProposerError, match="no key") as caught:
        Responses(openai_config(tmp_path))
    assert "OPENAI_API_KEY" in caught.value.remedy


@pytest.mark.parametrize("key", [CANARY + "\n", CANARY + "é", f"'{CANARY} '"])
def test_a_key_with_a_line_end_is_refused_without_showing_it(monkeypatch, tmp_path, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ProposerError, match="no key has") as caught:
        Responses(openai_config(tmp_path))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://host:port", "localhost:8000", "/v1", "http://"])
def test_an_unusable_base_url_is_told_at_the_start(monkeypatch, tmp_path, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ProposerError, match="cannot be set up") as caught:
        Responses(openai_config(tmp_path))
    assert "OPENAI_BASE_URL" in caught.value.remedy


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ProposerError, match="openai is missing") as caught:
        open_chat(openai_config(tmp_path))
    assert caught.value.remedy == "pip install 'autoresearch-runner[openai]'"
