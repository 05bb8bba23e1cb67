"""A conversation over the Messages API: the real SDK over HTTP against a scripted server."""

from __future__ import annotations

import traceback
from dataclasses import replace

import pytest

from runner.errors import ConfigError, ProposerError
from runner.proposers.llm.anthropic_messages import Messages
from runner.proposers.llm.chat import Answer, Call, Exchange, Stop, Unanswered
from runner.proposers.llm.request_policy import ATTEMPTS, MAX_RETRY_AFTER_SECONDS, MAX_WAIT_SECONDS, POLL_SECONDS
from tests.support import fake_anthropic as fake
from tests.support.chats import (
    CANARY,
    EDITOR,
    FIRST,
    OPENING,
    SUBMIT,
    Asker,
    Notebook,
    asking,
    config,
    forget_environment,
    replied,
)
from tests.support.fake_anthropic import THINKING, FakeAnthropic, Usage

HOUR = {"type": "ephemeral", "ttl": "1h"}
GOOD = {"why": "A higher learning rate trains faster."}
OK = fake.call("submit", GOOD)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    forget_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Hold a conversation with a script: what came of it, the server, and the waits."""

    def open_messages(settings, sleep):
        return Messages(config(tmp_path, **settings), sleep=sleep)

    return asking(monkeypatch, tmp_path, FakeAnthropic, "ANTHROPIC_BASE_URL", open_messages)


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


def test_the_steady_parts_are_cached_for_an_hour_and_the_moving_end_shortly(ask):
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


def test_tools_are_strict_where_they_say_so_and_the_editor_is_described_to_strangers(ask):
    _, server, _ = ask(OK)
    editor, submit = server.requests[0]["tools"]
    assert submit["strict"] is True and submit["input_schema"] == SUBMIT.schema
    assert editor == {"name": EDITOR.name, "description": EDITOR.description, "input_schema": EDITOR.schema}


def test_the_builtin_editor_is_named_where_it_is_known(ask):
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
def test_anthropic_is_told_from_others_by_the_address(monkeypatch, tmp_path, address, known):
    if address:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
    with Messages(config(tmp_path)).connect() as line:
        assert line._host.knows_editor is known


def test_summaries_of_thinking_are_asked_of_models_that_think_in_any_case(ask):
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
    if len(server.requests) == 1:  # the SDK mends what is only unfinished
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


def test_an_answer_that_was_paid_for_is_rebuilt_and_not_asked_again(monkeypatch, tmp_path):
    notebook, answers = Notebook(), []
    with FakeAnthropic([fake.call("submit", [1, "é"])]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        for _ in range(2):
            with Messages(config(tmp_path)).connect() as line:
                answers.append(line.ask(OPENING, [], [SUBMIT], notebook))
    assert len(server.requests) == 1 and answers[0] == answers[1]
    assert isinstance(answers[1].stop, Stop) and isinstance(answers[1].calls[0], Call)


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
def test_whatever_decides_the_answer_is_in_the_fingerprint(ask, monkeypatch, tmp_path, change):
    notebook = Notebook()
    with FakeAnthropic([OK, OK]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        for settings in ({}, change):
            chat = Messages(config(tmp_path, **settings.get("settings", {})))
            tools, exchanges = settings.get("tools", [EDITOR, SUBMIT]), settings.get("exchanges", [])
            with chat.connect() as line:
                line.ask(settings.get("opening", OPENING), exchanges, tools, notebook)
    assert len({sha256 for _, sha256 in notebook.bodies}) == 2 and len(server.requests) == 2


# --- faults -------------------------------------------------------------------------------------------------

TRANSIENT = [
    fake.error(529, "overloaded_error"),
    fake.error(500, "api_error"),
    fake.error(502, "api_error"),
    fake.error(429, "rate_limit_error"),
    fake.error(408, "timeout_error"),
    fake.cut(OK, 1),
    fake.cut(OK, 0),
    fake.cut(OK, 6),
    fake.ends_early(OK, 0),
    fake.ends_early(OK, 6),
    fake.breaks(OK, 6),
    fake.breaks(OK, 0, "api_error"),
    fake.breaks(OK, 6, "a_new_kind_of_trouble"),
    fake.garbage(OK, 3),
]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_is_tried_again(ask, fault):
    asked, server, waits = ask(fault, OK)
    assert isinstance(asked.last, Answer), asked.last
    assert len(server.requests) == 2 and len(waits) == 1 and 0 < waits[0] <= MAX_WAIT_SECONDS
    assert server.requests[0] == server.requests[1]
    assert server.headers[1].get("x-stainless-retry-count", "0") == "0"


def test_retry_after_is_honoured_within_a_cap(ask):
    _, _, waits = ask(fake.error(429, "rate_limit_error", retry_after="17"), OK)
    assert waits == [17.0]
    _, _, waits = ask(fake.error(429, "rate_limit_error", retry_after="86400"), OK)
    assert waits == [MAX_RETRY_AFTER_SECONDS]
    _, _, waits = ask(fake.error(429, "rate_limit_error", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), OK)
    assert waits[0] <= 2.0


def test_an_api_that_stays_down_gives_no_answer_and_backs_off(ask):
    asked, server, waits = ask(*[fake.error(529, "overloaded_error")] * ATTEMPTS)
    assert isinstance(asked.last, Unanswered) and asked.last.again and asked.booked == []
    assert "529" in asked.last.reason and len(server.requests) == ATTEMPTS and len(waits) == ATTEMPTS - 1
    assert sorted(waits[::2]) == waits[::2]


def test_an_hour_of_overload_ends_with_the_answer(monkeypatch, tmp_path):
    waits, outcomes = [], []

    def overloaded_for_an_hour(_):
        return fake.error(529, "overloaded_error") if sum(waits) < 3600 else OK

    with FakeAnthropic([overloaded_for_an_hour] * 1000) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        with Messages(config(tmp_path), sleep=waits.append).connect() as line:
            while not outcomes or isinstance(outcomes[-1], Unanswered):
                outcomes.append(line.ask(OPENING, [], [SUBMIT], Notebook()))
    assert isinstance(outcomes[-1], Answer) and len(outcomes) > 10
    assert all(outcome.again for outcome in outcomes[:-1]) and max(waits) <= MAX_WAIT_SECONDS


def test_no_server_at_all_is_no_answer(monkeypatch, tmp_path):
    with FakeAnthropic([]) as server:
        url = server.url
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    asked = Asker(tmp_path)(Messages(config(tmp_path), sleep=lambda _: None))
    assert isinstance(asked.last, Unanswered) and "no connection to 127.0.0.1" in asked.last.reason


@pytest.mark.parametrize(
    ("fault", "reason", "remedy"),
    [
        (
            fake.error(401, "authentication_error", f"invalid key {CANARY}"),
            "does not accept the key",
            "ANTHROPIC_API_KEY",
        ),
        (fake.error(403, "permission_error"), "may not use model 'claude-opus-5-5'", "--model"),
        (fake.error(404, "not_found_error", "model: x"), "no model 'claude-opus-5-5'", "--model"),
        (fake.Reply(status=404, body="nothing"), "no Messages API at 127.0.0.1", "ANTHROPIC_BASE_URL"),
        (fake.error(402, "billing_error"), "no credit", "add credit"),
        (fake.error(400, "billing_error"), "no credit", "add credit"),
        (
            fake.error(429, "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            "spending limit",
            "raise the limit",
        ),
        (fake.error(400, "invalid_request_error", "max_tokens: too large"), "max_tokens: too large", None),
        (fake.error(413, "invalid_request_error"), "refuses the request", None),
        (fake.breaks(OK, 1, "authentication_error"), "does not accept the key", "ANTHROPIC_API_KEY"),
        (fake.breaks(OK, 1, "invalid_request_error"), "refuses the request", None),
    ],
)
def test_what_cannot_be_helped_by_asking_again_is_a_clear_error(ask, fault, reason, remedy):
    asked, server, waits = ask(fault)
    assert isinstance(asked.last, ProposerError) and reason in asked.last.message
    assert (remedy or "") in (asked.last.remedy or "")
    assert len(server.requests) == 1 and waits == []
    assert asked.last.__cause__ is None


def test_what_was_paid_before_an_error_is_booked(ask):
    asked, _, _ = ask(OK, fake.error(402, "billing_error"), replies=[lambda answer: replied(answer, "no")])
    assert isinstance(asked.last, ProposerError) and "no credit" in asked.last.message
    assert [row["cost_usd"] > 0 for row in asked.booked] == [True]


def test_a_conversation_that_the_api_does_not_take_any_more_is_given_up(ask):
    too_long = fake.error(400, "invalid_request_error", "prompt is too long")
    asked, _, waits = ask(OK, too_long, replies=[lambda answer: replied(answer, "no")])
    assert isinstance(asked.last, Unanswered) and not asked.last.again
    assert "prompt is too long" in asked.last.reason and waits == []


# --- stopping -----------------------------------------------------------------------------------------------


def test_nothing_is_sent_once_a_person_wants_to_stop(ask):
    asked, server, _ = ask(OK, stopping=lambda: True)
    assert asked.last == Unanswered(reason="stopped", again=True)
    assert server.requests == [] and asked.booked == []


def test_a_stop_in_the_middle_of_an_answer_books_what_has_arrived(ask):
    long = fake.say("x" * 30_000)
    moments = iter([False] * 100 + [True] * 1000)
    asked, server, waits = ask(long, stopping=lambda: next(moments))
    assert asked.last == Unanswered(reason="stopped", again=True) and waits == []
    (booked,) = asked.booked
    assert booked["input_tokens"] == 1000 and 0 < booked["output_tokens"] < 5000
    assert asked.kept == b"" and len(server.requests) == 1


def test_a_stop_ends_a_wait(ask):
    moments = iter([False] * 5 + [True] * 1000)
    asked, server, waits = ask(
        fake.error(429, "rate_limit_error", retry_after="100"), OK, stopping=lambda: next(moments)
    )
    assert asked.last == Unanswered(reason="stopped", again=True) and len(server.requests) == 1
    assert waits == [POLL_SECONDS] * 4


def test_the_slices_of_a_wait_add_up(ask):
    asked, _, waits = ask(fake.error(429, "rate_limit_error", retry_after="17.2"), OK, stopping=lambda: False)
    assert isinstance(asked.last, Answer)
    assert sum(waits) == pytest.approx(17.2) and max(waits) <= POLL_SECONDS


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


def test_configured_prices_count_before_the_table(ask):
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_input_tokens=1_000_000)
    reply = fake.call("submit", GOOD, usage=usage)
    asked, _, _ = ask(reply, settings={"model": "mine", "price_input_usd": 1.0, "price_output_usd": 2.0})
    assert asked.booked[0]["cost_usd"] == pytest.approx(1.0 + 2.0 + 0.1)
    asked, _, _ = ask(reply, settings={"model": "mine", "price_input_usd": 0.0, "price_output_usd": 0.0})
    assert asked.booked[0]["cost_usd"] == 0.0


def test_an_unknown_price_is_refused_at_the_start(tmp_path):
    with pytest.raises(ProposerError, match="price of model 'mine' is not known") as caught:
        Messages(config(tmp_path, model="mine"))
    assert "AUTORESEARCH_PRICE_INPUT_USD" in caught.value.remedy
    with pytest.raises(ConfigError, match="only one of"):
        Messages(config(tmp_path, model="mine", price_input_usd=1.0))


def test_a_cut_answer_is_booked_by_what_had_arrived(ask):
    long = fake.call("submit", {"why": "x" * 30_000})
    asked, _, _ = ask(fake.cut(long, len(long.events) - 2), OK)
    cut, whole = asked.booked
    assert cut["input_tokens"] == 1000 and 10_000 <= cut["output_tokens"] <= 11_000
    assert whole["output_tokens"] == 200


def test_the_budget_is_looked_at_before_every_attempt(ask):
    room = iter([None, "the budget is spent"])
    asked, server, _ = ask(fake.cut(OK, 3), OK, budget=lambda: next(room))
    assert asked.last == Unanswered(reason="the budget is spent", again=True) and len(server.requests) == 1


# --- the key ------------------------------------------------------------------------------------------------


def test_an_answer_that_quotes_the_key_is_booked_but_not_kept(ask):
    """A gateway that echoes headers; `ask` looks for the key in the ledger."""
    asked, server, _ = ask(
        fake.say(f"Your key is {CANARY}."), OK, replies=[lambda answer: replied(answer, words="Submit.")]
    )
    assert isinstance(asked.last, Answer) and len(asked.booked) == 2
    assert CANARY in str(server.requests[1]["messages"]), "it did quote the key"
    assert b"Let me see." in asked.kept, "the other answer is kept, thinking and all"


def test_a_key_in_a_custom_header_is_as_secret(ask, monkeypatch):
    gateway = "gateway-canary-0123456789"
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Gateway-Token: {gateway}")
    asked, server, _ = ask(fake.error(403, "permission_error", f"token {gateway} is not welcome"))
    assert server.headers[0]["x-gateway-token"] == gateway
    assert "token [key] is not welcome" in asked.last.message


def test_the_placeholder_of_a_local_server_is_no_secret(ask, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "local")
    asked, _, _ = ask(fake.say("It is a local minimum."))
    assert b"local minimum" in asked.kept


def test_a_missing_key_is_told_at_the_start(monkeypatch, tmp_path):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(ProposerError, match="no key") as caught:
        Messages(config(tmp_path))
    assert "ANTHROPIC_API_KEY" in caught.value.remedy


def test_an_auth_token_works_as_well(ask, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", CANARY)
    asked, server, _ = ask(OK)
    assert isinstance(asked.last, Answer) and server.headers[0]["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("key", [CANARY + "\n", CANARY + "é", f"'{CANARY} '"])
def test_a_key_with_a_line_end_is_refused_without_showing_it(monkeypatch, tmp_path, key):
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with pytest.raises(ProposerError, match="no key has") as caught:
        Messages(config(tmp_path))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://host:port", "localhost:8000", "/v1", "http://"])
def test_an_unusable_base_url_is_told_at_the_start(monkeypatch, tmp_path, url):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    with pytest.raises(ProposerError, match="cannot be set up") as caught:
        Messages(config(tmp_path))
    assert "ANTHROPIC_BASE_URL" in caught.value.remedy
