"""The policy of requests: retries, stops, money and keys, the same at every API. Real SDKs, scripted servers."""

from __future__ import annotations

import traceback

import pytest

from runner.errors import ProposerError
from runner.proposers.llm.chat import Answer, Call, Stop, Unanswered
from runner.proposers.llm.failures import MAX_RETRY_AFTER_SECONDS
from runner.proposers.llm.request_policy import ATTEMPTS, MAX_WAIT_SECONDS, POLL_SECONDS
from tests.support import fake_anthropic, fake_openai
from tests.support.chats import CANARY, OPENING, SUBMIT, Asker, Notebook, replied
from tests.support.fake_anthropic import Reply, breaks, cut, ends_early, garbage

GOOD = {"why": "A higher learning rate trains faster."}
MESSAGES = fake_anthropic.call("submit", GOOD)
RESPONSES = fake_openai.call("submit", GOOD)


@pytest.fixture
def ask(api, monkeypatch, tmp_path):
    """Hold a conversation with a script: the outcome, the server, and the waits."""
    return api.asking(monkeypatch, tmp_path)


@pytest.fixture
def ok(api):
    """An answer that calls the tool."""
    return api.fake.call("submit", GOOD)


def refuse(answer):
    return replied(answer, "no")


def only(name, *values):
    """Parameters of tests that hold for one API."""
    return [pytest.param(name, *(value if isinstance(value, tuple) else (value,))) for value in values]


# --- faults -------------------------------------------------------------------------------------------------

TRANSIENT = [
    *only(
        "anthropic",
        fake_anthropic.error(529, "overloaded_error"),
        fake_anthropic.error(500, "api_error"),
        fake_anthropic.error(502, "api_error"),
        fake_anthropic.error(429, "rate_limit_error"),
        fake_anthropic.error(408, "timeout_error"),
        *(cut(MESSAGES, events) for events in (0, 1, 6)),
        *(ends_early(MESSAGES, events) for events in (0, 6)),
        breaks(MESSAGES, 6),
        breaks(MESSAGES, 0, "api_error"),
        breaks(MESSAGES, 6, "a_new_kind_of_trouble"),
        garbage(MESSAGES, 3),
    ),
    *only(
        "openai",
        fake_openai.error(500, "server_error"),
        fake_openai.error(503, None),
        fake_openai.error(429, "rate_limit_exceeded"),
        fake_openai.error(408, None),
        *(cut(RESPONSES, events) for events in (0, 1, 6)),
        *(ends_early(RESPONSES, events) for events in (0, 6)),
        fake_openai.breaks(RESPONSES, 6, "server_error"),
        fake_openai.breaks(RESPONSES, 0, "rate_limit_exceeded"),
        fake_openai.breaks_in_the_old_format(RESPONSES, 6, "server_error"),
        fake_openai.fails("server_error"),
        fake_openai.fails("a_new_kind_of_trouble"),
        garbage(RESPONSES, 3),
    ),
]


@pytest.mark.parametrize(("api", "fault"), TRANSIENT, indirect=["api"])
def test_a_transient_fault_is_tried_again(ask, ok, fault):
    asked, server, waits = ask(fault, ok)
    assert isinstance(asked.last, Answer), asked.last
    assert len(server.requests) == 2 and len(waits) == 1 and 0 < waits[0] <= MAX_WAIT_SECONDS
    assert server.requests[0] == server.requests[1]
    assert server.headers[1].get("x-stainless-retry-count", "0") == "0"


def test_retry_after_is_honored_within_a_cap(api, ask, ok):
    def waits_for(seconds):
        return ask(api.fake.error(429, "rate_limit_error", retry_after=seconds), ok)[2]

    assert waits_for("17") == [17.0]
    assert waits_for("86400") == [MAX_RETRY_AFTER_SECONDS]
    assert waits_for("Wed, 21 Oct 2026 07:28:00 GMT")[0] <= 2.0


def test_an_api_that_stays_down_gives_no_answer_and_backs_off(api, ask):
    asked, server, waits = ask(*[api.fake.error(529, "overloaded_error")] * ATTEMPTS)
    assert isinstance(asked.last, Unanswered) and asked.last.again and asked.booked == []
    assert "529" in asked.last.reason and len(server.requests) == ATTEMPTS and len(waits) == ATTEMPTS - 1
    assert sorted(waits[::2]) == waits[::2]


def test_an_hour_of_overload_ends_with_the_answer(api, ok, monkeypatch, tmp_path):
    waits, outcomes = [], []

    def overloaded_for_an_hour(_):
        return api.fake.error(529, "overloaded_error") if sum(waits) < 3600 else ok

    with api.server([overloaded_for_an_hour] * 1000) as server:
        monkeypatch.setenv(api.url_variable, server.url)
        with api.open(tmp_path, sleep=waits.append).connect() as connection:
            while not outcomes or isinstance(outcomes[-1], Unanswered):
                outcomes.append(connection.ask(OPENING, [], [SUBMIT], Notebook()))
    assert isinstance(outcomes[-1], Answer) and len(outcomes) > 10
    assert all(outcome.again for outcome in outcomes[:-1]) and max(waits) <= MAX_WAIT_SECONDS


def test_no_server_at_all_is_no_answer(api, monkeypatch, tmp_path):
    with api.server([]) as server:
        url = server.url
    monkeypatch.setenv(api.url_variable, url)
    asked = Asker(tmp_path)(api.open(tmp_path))
    assert isinstance(asked.last, Unanswered) and "no connection to 127.0.0.1" in asked.last.reason


FATAL = [
    *only(
        "anthropic",
        (
            fake_anthropic.error(401, "authentication_error", f"invalid key {CANARY}"),
            "does not accept the key",
            "ANTHROPIC_API_KEY",
        ),
        (fake_anthropic.error(403, "permission_error"), "may not use model 'claude-opus-5-5'", "--model"),
        (fake_anthropic.error(404, "not_found_error", "model: x"), "no model 'claude-opus-5-5'", "--model"),
        (Reply(status=404, body="nothing"), "no Messages API at 127.0.0.1", "ANTHROPIC_BASE_URL"),
        (fake_anthropic.error(402, "billing_error"), "no credit", "add credit"),
        (fake_anthropic.error(400, "billing_error"), "no credit", "add credit"),
        (
            fake_anthropic.error(429, "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            "spending limit",
            "raise the limit",
        ),
        (
            fake_anthropic.error(400, "invalid_request_error", "max_tokens: too large"),
            "max_tokens: too large",
            None,
        ),
        (fake_anthropic.error(413, "invalid_request_error"), "refuses the request", None),
        (breaks(MESSAGES, 1, "authentication_error"), "does not accept the key", "ANTHROPIC_API_KEY"),
        (breaks(MESSAGES, 1, "invalid_request_error"), "refuses the request", None),
    ),
    *only(
        "openai",
        (
            fake_openai.error(401, "invalid_api_key", f"wrong key: {CANARY}"),
            "does not accept the key",
            "OPENAI_API_KEY",
        ),
        (fake_openai.error(403, "unsupported_country_region_territory"), "may not use model 'gpt-5'", "--model"),
        (fake_openai.error(404, "model_not_found"), "no model 'gpt-5'", "--model"),
        (fake_openai.error(400, "model_not_found"), "no model 'gpt-5'", "--model"),
        (Reply(status=404, body="nothing"), "no Responses API at 127.0.0.1", "OPENAI_BASE_URL"),
        (fake_openai.error(429, "insufficient_quota"), "no credit", "add credit"),
        (fake_openai.error(400, "billing_hard_limit_reached"), "spending limit", "raise the limit"),
        (fake_openai.error(400, "unsupported_parameter", "no such thing"), "no such thing", None),
        (fake_openai.error(400, "context_length_exceeded"), "refuses the request", None),
        (fake_openai.breaks(RESPONSES, 2, "insufficient_quota"), "no credit", "add credit"),
        (fake_openai.breaks(RESPONSES, 2, "invalid_prompt", f"not {CANARY}"), "refuses the request", None),
        (fake_openai.fails("bio_policy"), "refuses the request", None),
    ),
]


@pytest.mark.parametrize(("api", "fault", "reason", "remedy"), FATAL, indirect=["api"])
def test_a_fault_that_a_retry_cannot_help_is_a_clear_error(ask, fault, reason, remedy):
    asked, server, waits = ask(fault)
    assert isinstance(asked.last, ProposerError) and reason in asked.last.message
    assert (remedy or "") in (asked.last.remedy or "")
    assert len(server.requests) == 1 and waits == []
    assert asked.last.__cause__ is None


@pytest.mark.parametrize(
    ("api", "no_credit"),
    [
        ("anthropic", fake_anthropic.error(402, "billing_error")),
        ("openai", fake_openai.error(402, None)),
    ],
    indirect=["api"],
)
def test_an_answer_that_was_paid_before_an_error_is_booked(ask, ok, no_credit):
    asked, _, _ = ask(ok, no_credit, replies=[refuse])
    assert isinstance(asked.last, ProposerError) and "no credit" in asked.last.message
    assert [row["cost_usd"] > 0 for row in asked.booked] == [True]


@pytest.mark.parametrize(
    ("api", "too_long"),
    [
        ("anthropic", fake_anthropic.error(400, "invalid_request_error", "prompt is too long")),
        ("openai", fake_openai.error(400, "context_length_exceeded", "prompt is too long")),
    ],
    indirect=["api"],
)
def test_a_conversation_that_the_api_no_longer_accepts_is_given_up(ask, ok, too_long):
    asked, _, waits = ask(ok, too_long, replies=[refuse])
    assert isinstance(asked.last, Unanswered) and not asked.last.again
    assert "prompt is too long" in asked.last.reason and waits == []


# --- the journal --------------------------------------------------------------------------------------------


def test_an_answer_that_was_paid_for_is_rebuilt_and_not_asked_again(api, monkeypatch, tmp_path):
    notebook, answers = Notebook(), []
    with api.server([api.fake.call("submit", [1, "é"])]) as server:
        monkeypatch.setenv(api.url_variable, server.url)
        for _ in range(2):
            with api.open(tmp_path).connect() as connection:
                answers.append(connection.ask(OPENING, [], [SUBMIT], notebook))
    assert len(server.requests) == 1 and answers[0] == answers[1]
    assert isinstance(answers[1].stop, Stop) and isinstance(answers[1].calls[0], Call)


def test_the_budget_is_checked_before_every_attempt(ask, ok):
    room = iter([None, "the budget is spent"])
    asked, server, _ = ask(cut(ok, 3), ok, budget=lambda: next(room))
    assert asked.last == Unanswered(reason="the budget is spent", again=True) and len(server.requests) == 1


# --- stopping -----------------------------------------------------------------------------------------------


def test_nothing_is_sent_once_a_person_wants_to_stop(ask, ok):
    asked, server, _ = ask(ok, stopping=lambda: True)
    assert asked.last == Unanswered(reason="stopped", again=True)
    assert server.requests == [] and asked.booked == []


def test_a_stop_in_the_middle_of_an_answer_books_everything_received(api, ask):
    moments = iter([False] * 100 + [True] * 1000)
    asked, server, waits = ask(api.fake.say("x" * 30_000), stopping=lambda: next(moments))
    assert asked.last == Unanswered(reason="stopped", again=True) and waits == []
    (booked,) = asked.booked
    assert booked["input_tokens"] > 0 and 0 < booked["output_tokens"] < 5000
    assert asked.kept == b"" and len(server.requests) == 1


def test_a_stop_ends_a_wait(api, ask, ok):
    moments = iter([False] * 5 + [True] * 1000)
    overloaded = api.fake.error(429, "rate_limit_error", retry_after="100")
    asked, server, waits = ask(overloaded, ok, stopping=lambda: next(moments))
    assert asked.last == Unanswered(reason="stopped", again=True) and len(server.requests) == 1
    assert waits == [POLL_SECONDS] * 4


def test_the_slices_of_a_wait_add_up(api, ask, ok):
    overloaded = api.fake.error(429, "rate_limit_error", retry_after="17.2")
    asked, _, waits = ask(overloaded, ok, stopping=lambda: False)
    assert isinstance(asked.last, Answer)
    assert sum(waits) == pytest.approx(17.2) and max(waits) <= POLL_SECONDS


# --- the key ------------------------------------------------------------------------------------------------


def test_an_answer_that_quotes_the_key_is_booked_but_not_kept(api, ask, ok):
    """A gateway that echoes headers; `ask` searches the ledger for the key."""
    quoting = api.fake.say(f"Your key is {CANARY}.")
    asked, server, _ = ask(quoting, ok, replies=[lambda answer: replied(answer, words="Submit.")])
    assert isinstance(asked.last, Answer) and len(asked.booked) == 2
    assert CANARY in str(server.requests[1]), "it did quote the key"
    assert b"Let me see." in asked.kept, "the other answer is kept, thinking and all"


def test_the_placeholder_of_a_local_server_is_no_secret(api, ask, monkeypatch):
    monkeypatch.setenv(api.key_variable, "local")
    asked, _, _ = ask(api.fake.say("It is a local minimum."))
    assert b"local minimum" in asked.kept


def test_a_missing_key_is_reported_at_the_start(api, monkeypatch, tmp_path):
    monkeypatch.delenv(api.key_variable)
    with pytest.raises(ProposerError, match="no key") as caught:
        api.open(tmp_path)
    assert api.key_variable in caught.value.remedy


@pytest.mark.parametrize("key", [CANARY + "\n", CANARY + "é", f"'{CANARY} '"])
def test_a_key_with_a_line_break_is_refused_without_showing_it(api, monkeypatch, tmp_path, key):
    monkeypatch.setenv(api.key_variable, key)
    with pytest.raises(ProposerError, match="never part of a key") as caught:
        api.open(tmp_path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://host:port", "localhost:8000", "/v1", "http://"])
def test_an_unusable_base_url_is_reported_at_the_start(api, monkeypatch, tmp_path, url):
    monkeypatch.setenv(api.url_variable, url)
    with pytest.raises(ProposerError, match="cannot be set up") as caught:
        api.open(tmp_path)
    assert api.url_variable in caught.value.remedy
