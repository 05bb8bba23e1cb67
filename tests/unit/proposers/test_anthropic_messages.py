"""A conversation over the Messages API: the real SDK over HTTP against a scripted server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.errors import ConfigError, ProposerError
from runner.proposers.llm.chat import Answer, Call, Exchange, Stop
from tests.support import fake_anthropic as fake
from tests.support.chats import CANARY, EDITOR, FIRST, OPENING, SUBMIT, Notebook, replied
from tests.support.fake_anthropic import THINKING, FakeAnthropic, Usage

HOUR = {"type": "ephemeral", "ttl": "1h"}
GOOD = {"why": "A higher learning rate trains faster."}
OK = fake.call("submit", GOOD)


@pytest.fixture
def ask(anthropic, monkeypatch, tmp_path):
    """Hold a conversation with a script: the outcome, the server, and the waits."""
    return anthropic.asking(monkeypatch, tmp_path)


# --- the request --------------------------------------------------------------------------------------------


def test_an_answer_has_calls_text_and_thinking(ask):
    text = {"type": "text", "text": "I raise it."}
    call = {"type": "tool_use", "id": "t1", "name": "submit", "input": GOOD}
    asked, server, waits = ask(fake.message(THINKING, text, call, stop_reason="tool_use"))
    assert asked.last == Answer(
        raw=[THINKING, text, call],
        calls=(Call(id="t1", name="submit", input=GOOD),),
        text="I raise it.",
        thinking="Let me see.",
        stop=Stop.CALLS,
    )
    assert len(server.requests) == 1 and waits == []


def test_the_stable_parts_are_cached_for_an_hour_and_the_moving_end_for_minutes(ask):
    _, server, _ = ask(OK)
    (body,) = server.requests
    assert body["system"] == [{"type": "text", "text": OPENING.system, "cache_control": HOUR}]
    (turn,) = body["messages"]
    assert turn["content"] == [
        {"type": "text", "text": OPENING.material, "cache_control": HOUR},
        {"type": "text", "text": OPENING.task},
    ]
    assert body["cache_control"] == {"type": "ephemeral"}
    assert str(body).count("cache_control") <= 4
    assert body["stream"] is True and "tool_choice" not in body
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"


def test_tools_are_strict_if_they_say_so_and_the_editor_is_described_to_compatible_servers(ask):
    _, server, _ = ask(OK)
    editor, submit = server.requests[0]["tools"]
    assert submit["strict"] is True and submit["input_schema"] == SUBMIT.schema
    assert editor == {"name": EDITOR.name, "description": EDITOR.description, "input_schema": EDITOR.schema}


def test_the_builtin_editor_is_only_named_if_it_is_known(ask):
    _, server, _ = ask(OK, settings={"editor": "builtin"})
    assert server.requests[0]["tools"][0] == {
        "type": "text_editor_20250728",
        "name": "str_replace_based_edit_tool",
        "max_characters": 16_000,
    }


@pytest.mark.parametrize(
    ("address", "known"),
    [
        (None, True),
        ("https://api.anthropic.com", True),
        ("http://localhost:8000", False),
        ("https://anthropic.com.example.org", False),
    ],
)
def test_anthropic_is_recognized_by_its_address(anthropic, monkeypatch, tmp_path, address, known):
    if address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
    with anthropic.open(tmp_path).connect() as connection:
        assert connection._host.knows_editor is known


def test_summaries_of_thinking_are_requested_from_models_that_always_think(ask):
    _, server, _ = ask(OK)
    assert server.requests[0]["thinking"] == {"type": "adaptive", "display": "summarized"}
    _, server, _ = ask(OK, settings={"model": "claude-haiku-4-5"})
    assert "thinking" not in server.requests[0]


def test_an_answer_goes_back_verbatim_with_its_results(ask):
    redacted = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    calls = [{"type": "tool_use", "id": name, "name": "submit", "input": {}} for name in ("t1", "t2")]
    blank = {"type": "text", "text": " "}
    asked, server, _ = ask(
        fake.message(THINKING, redacted, blank, *calls, stop_reason="tool_use"),
        OK,
        replies=[lambda answer: replied(answer, "no", "nor this", is_error=True, words="Hurry.")],
    )
    assert isinstance(asked.last, Answer) and len(asked.booked) == 2
    first, second, third = server.requests[1]["messages"]
    assert first == server.requests[0]["messages"][0]
    assert second == {"role": "assistant", "content": [THINKING, redacted, *calls]}
    assert third == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True},
            {"type": "tool_result", "tool_use_id": "t2", "content": "nor this", "is_error": True},
            {"type": "text", "text": "Hurry."},
        ],
    }


def test_an_empty_answer_is_not_sent_back(ask):
    nudge = [lambda answer: replied(answer, words="Submit.")]
    _, server, _ = ask(fake.message(), OK, replies=nudge)
    assert [turn["role"] for turn in server.requests[1]["messages"]] == ["user", "user"]


@pytest.mark.parametrize("wanted", [{}, {"a": [1, None, {"é": 1.5}]}, [1, 2], "text", 7, None, True])
@pytest.mark.parametrize("name", ["submit", "no such tool", ""])
def test_a_call_with_any_input_survives_the_journal_and_the_way_back(ask, tmp_path, name, wanted):
    asked, server, _ = ask(fake.call(name, wanted), OK, replies=[lambda answer: replied(answer, "no")])
    (call,) = asked.outcomes[0].calls
    assert (call.name, call.input) == (name, wanted)
    assert server.requests[1]["messages"][1]["content"][1]["input"] == wanted


@pytest.mark.parametrize("text", ['{"why": NaN}', '{"why": "\\ud800"}', '{"why": '])
def test_a_call_that_no_request_can_carry_back_is_asked_again(ask, text):
    broken = fake.call("submit", {})
    events = list(broken.events)
    (at,) = [n for n, (_, data) in enumerate(events) if data.get("delta", {}).get("type") == "input_json_delta"]
    delta = {"type": "input_json_delta", "partial_json": text}
    events[at] = ("content_block_delta", {"type": "content_block_delta", "index": 1, "delta": delta})
    asked, server, _ = ask(replace(broken, events=events), OK)
    if len(server.requests) == 1:  # the SDK completes JSON that is merely unfinished
        assert asked.last.calls[0].input in ({}, {"why": None})
    else:
        assert asked.last.calls[0].input == GOOD and len(asked.booked) == 2


@pytest.mark.parametrize(
    ("reply", "stop", "detail"),
    [
        (fake.say("Done."), Stop.SAID, None),
        (fake.say("Done.", stop_reason="stop_sequence"), Stop.SAID, None),
        (
            fake.say("", stop_reason="refusal", stop_details={"type": "refusal", "category": "cyber"}),
            Stop.REFUSED,
            "cyber",
        ),
        (fake.call("submit", GOOD, stop_reason="max_tokens"), Stop.TOO_LONG, None),
        (fake.say("", stop_reason="model_context_window_exceeded"), Stop.WINDOW_FULL, None),
        (fake.say("Wait.", stop_reason="pause_turn"), Stop.SAID, "pause_turn"),
        (fake.say("Hm.", stop_reason="meditating"), Stop.SAID, "meditating"),
        (fake.call("submit", GOOD, stop_reason="end_turn"), Stop.CALLS, None),
        (fake.say("No call.", stop_reason="tool_use"), Stop.SAID, None),
    ],
)
def test_every_stop_reason_has_a_meaning(ask, reply, stop, detail):
    asked, _, _ = ask(reply)
    assert (asked.last.stop, asked.last.stop_detail) == (stop, detail)
    assert [row["cost_usd"] > 0 for row in asked.booked] == [True]


# --- the journal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"model": "claude-sonnet-5-5"}},
        {"settings": {"max_output_tokens": 5000}},
        {"settings": {"editor": "builtin"}},
        {"opening": replace(OPENING, system="Other.")},
        {"opening": replace(OPENING, task="Other.")},
        {"tools": [SUBMIT, EDITOR]},
        {"exchanges": [Exchange(answer=FIRST, words="Go on.")]},
    ],
)
def test_everything_that_determines_the_answer_is_in_the_fingerprint(anthropic, monkeypatch, tmp_path, change):
    notebook = Notebook()
    with FakeAnthropic([OK, OK]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        for settings in ({}, change):
            chat = anthropic.open(tmp_path, **settings.get("settings", {}))
            tools, exchanges = settings.get("tools", [EDITOR, SUBMIT]), settings.get("exchanges", [])
            with chat.connect() as connection:
                connection.ask(settings.get("opening", OPENING), exchanges, tools, notebook)
    assert len({sha256 for _, sha256 in notebook.bodies}) == 2 and len(server.requests) == 2


# --- stopping -----------------------------------------------------------------------------------------------


def test_an_answer_that_was_complete_when_a_person_stopped_is_kept(ask):
    questions = []
    ask(OK, stopping=lambda: bool(questions.append(None)))
    moments = iter([False] * (len(questions) - 1) + [True])
    asked, _, _ = ask(OK, stopping=lambda: next(moments))
    assert isinstance(asked.last, Answer) and asked.kept and next(moments, "used up") == "used up"


# --- money --------------------------------------------------------------------------------------------------


def test_every_kind_of_token_is_booked_to_the_cent(ask):
    usage = Usage(
        input_tokens=100_000,
        output_tokens=10_000,
        cache_read_input_tokens=50_000,
        cache_creation_input_tokens=30_000,
        ephemeral_1h_input_tokens=20_000,
    )
    (booked,) = ask(fake.call("submit", GOOD, usage=usage))[0].booked
    assert (booked["input_tokens"], booked["output_tokens"]) == (100_000, 10_000)
    assert (booked["cache_read_tokens"], booked["cache_write_tokens"]) == (50_000, 30_000)
    assert (booked["model"], booked["request_id"]) == ("claude-opus-5-5", "req_fake")
    # USD per million: 4 in, 20 out, 0.20 read, 5 written for 5 minutes, 8 for an hour.
    assert booked["cost_usd"] == pytest.approx(0.4 + 0.2 + 0.01 + 0.05 + 0.16)


@pytest.mark.parametrize(
    ("model", "cost"), [("claude-opus-5-5", 24.0), ("claude-sonnet-5-5", 12.0), ("claude-haiku-5-5", 3.0)]
)
def test_the_current_models_have_a_price(ask, model, cost):
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    asked, _, _ = ask(fake.call("submit", GOOD, usage=usage), settings={"model": model})
    assert asked.booked[0]["cost_usd"] == pytest.approx(cost)


def test_configured_prices_take_precedence_over_the_table(ask):
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_input_tokens=1_000_000)
    reply = fake.call("submit", GOOD, usage=usage)
    asked, _, _ = ask(reply, settings={"model": "mine", "price_input_usd": 1.0, "price_output_usd": 2.0})
    assert asked.booked[0]["cost_usd"] == pytest.approx(1.0 + 2.0 + 0.1)
    asked, _, _ = ask(reply, settings={"model": "mine", "price_input_usd": 0.0, "price_output_usd": 0.0})
    assert asked.booked[0]["cost_usd"] == 0.0


def test_an_unknown_price_is_refused_at_the_start(anthropic, tmp_path):
    with pytest.raises(ProposerError, match="price of model 'mine' is not known") as caught:
        anthropic.open(tmp_path, model="mine")
    assert "AUTORESEARCH_PRICE_INPUT_USD" in caught.value.remedy
    with pytest.raises(ConfigError, match="only one of"):
        anthropic.open(tmp_path, model="mine", price_input_usd=1.0)


def test_an_answer_that_was_cut_off_is_booked_by_what_has_arrived(ask):
    long = fake.call("submit", {"why": "x" * 30_000})
    asked, _, _ = ask(fake.cut(long, len(long.events) - 2), OK)
    cut, whole = asked.booked
    assert cut["input_tokens"] == 1000 and 10_000 <= cut["output_tokens"] <= 11_000
    assert whole["output_tokens"] == 200


# --- the key ------------------------------------------------------------------------------------------------


def test_a_key_in_a_custom_header_is_secret_as_well(ask, monkeypatch):
    gateway = "gateway-canary-0123456789"
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Gateway-Token: {gateway}")
    asked, server, _ = ask(fake.error(403, "permission_error", f"token {gateway} is not welcome"))
    assert server.headers[0]["x-gateway-token"] == gateway
    assert "token [key] is not welcome" in asked.last.message


def test_an_auth_token_works_as_well(ask, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", CANARY)
    asked, server, _ = ask(OK)
    assert isinstance(asked.last, Answer) and server.headers[0]["authorization"] == f"Bearer {CANARY}"
