"""The Messages API at Bedrock and Vertex AI: the SDK's own clients against the scripted server."""

from __future__ import annotations

import sys

import pytest

from runner.errors import ProposerError
from runner.proposers.llm.anthropic_messages import Messages
from runner.proposers.llm.chat import Answer, Unanswered
from tests.support import fake_anthropic as fake
from tests.support.chats import CANARY, OPENING, Asker, config, forget_environment, replied
from tests.support.fake_anthropic import FakeAnthropic

OK = fake.call("submit", {"why": "x"})
MODELS = {"bedrock": "global.anthropic.claude-opus-5-5", "vertex": "claude-opus-5-5"}
SHORTLY = {"type": "ephemeral"}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    forget_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("CLOUD_ML_REGION", "global")
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "project-1")


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Hold a conversation with a host: the outcome, and the server."""
    asker = Asker(tmp_path)

    def run(api, *script, **options):
        with FakeAnthropic(script) as server:
            monkeypatch.setenv(f"ANTHROPIC_{api.upper()}_BASE_URL", server.url)
            chat = Messages(config(tmp_path, proposer=api, model=MODELS[api]), sleep=lambda _: None)
            asked = asker(chat, **options)
        return asked, server

    return run


@pytest.fixture
def bedrock(monkeypatch):
    """A machine with the package and a key."""
    pytest.importorskip("boto3", reason="the optional package boto3 is not installed")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", CANARY)


@pytest.fixture
def vertex(monkeypatch):
    """A gateway's authorization stands in for Google's, which no test can have."""
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"Authorization: Bearer {CANARY}")


@pytest.mark.parametrize("api", ["bedrock", "vertex"])
def test_a_conversation_is_held_and_booked(ask, request, api):
    request.getfixturevalue(api)
    asked, server = ask(api, OK, OK, replies=[lambda answer: replied(answer, "no")])
    assert isinstance(asked.last, Answer) and asked.last.calls[0].input == {"why": "x"}
    assert [row["cost_usd"] for row in asked.booked] == [pytest.approx((1000 * 4 + 200 * 20) / 1e6)] * 2
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert MODELS[api] in server.paths[0] and "model" not in server.requests[0]


@pytest.mark.parametrize("api", ["bedrock", "vertex"])
def test_the_moving_end_is_marked_explicitly_and_the_editor_is_known(ask, request, api):
    request.getfixturevalue(api)
    _, server = ask(api, OK, OK, OK, replies=[lambda answer: replied(answer, "no")] * 2)
    *_, body = server.requests
    assert "cache_control" not in body and str(body).count("cache_control") == 3
    assert body["messages"][-1]["content"][-1]["cache_control"] == SHORTLY
    editor, submit = body["tools"]
    assert editor["type"] == "text_editor_20250728"
    assert submit.get("strict") is (True if api == "bedrock" else None)
    assert OPENING.task == body["messages"][0]["content"][1]["text"]


@pytest.mark.parametrize(
    "fault",
    [
        fake.Reply(status=429, body={"message": "Too many requests"}),
        fake.Reply(status=503, body={"message": "Try again"}),
        fake.cut(OK, 6),
        fake.ends_early(OK, 6),
        fake.Reply(
            events=[*list(OK.events)[:6], ("exception", {"name": "throttlingException", "message": "slow"})]
        ),
    ],
)
def test_a_transient_fault_of_bedrock_is_tried_again(ask, bedrock, fault):
    asked, server = ask("bedrock", fault, OK)
    assert isinstance(asked.last, Answer) and len(server.requests) == 2


def test_broken_frames_do_not_crash(ask, bedrock, monkeypatch):
    whole = fake.frame
    monkeypatch.setattr(fake, "frame", lambda *args: whole(*args)[:-1] + b"!")
    asked, _ = ask("bedrock", *[OK] * 6)
    assert isinstance(asked.last, Unanswered) and "garbled" in asked.last.reason


def test_a_refusal_of_bedrock_is_reported_in_its_words(ask, bedrock):
    asked, _ = ask("bedrock", fake.Reply(status=403, body={"message": f"{CANARY} has no access"}))
    assert isinstance(asked.last, ProposerError) and "[key] has no access" in asked.last.message


def test_bedrock_signs_with_the_usual_credentials(ask, monkeypatch):
    pytest.importorskip("boto3", reason="the optional package boto3 is not installed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0123456789ABCDEF")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    asked, server = ask("bedrock", OK)
    assert isinstance(asked.last, Answer)
    assert server.headers[0]["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA")


def test_missing_aws_credentials_are_reported_at_the_start(tmp_path):
    pytest.importorskip("boto3", reason="the optional package boto3 is not installed")
    with pytest.raises(ProposerError, match="no AWS credentials") as caught:
        Messages(config(tmp_path, proposer="bedrock", model=MODELS["bedrock"]))
    assert "AWS_BEARER_TOKEN_BEDROCK" in caught.value.remedy


def test_missing_google_credentials_are_reported_at_the_start(monkeypatch, tmp_path):
    pytest.importorskip("google.auth", reason="the optional package google-auth is not installed")
    monkeypatch.setenv("PATH", "")  # no gcloud
    with pytest.raises(ProposerError, match="no Google credentials") as caught:
        Messages(config(tmp_path, proposer="vertex", model=MODELS["vertex"]))
    assert "gcloud auth" in caught.value.remedy


@pytest.mark.parametrize(
    ("api", "variable"),
    [("bedrock", "AWS_REGION"), ("vertex", "CLOUD_ML_REGION"), ("vertex", "ANTHROPIC_VERTEX_PROJECT_ID")],
)
def test_a_missing_region_or_project_is_reported_at_the_start(monkeypatch, request, tmp_path, api, variable):
    request.getfixturevalue(api)
    monkeypatch.delenv(variable)
    with pytest.raises(ProposerError) as caught:
        Messages(config(tmp_path, proposer=api, model=MODELS[api]))
    assert variable in caught.value.remedy


@pytest.mark.parametrize(("api", "module"), [("bedrock", "boto3"), ("vertex", "google.auth")])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, tmp_path, api, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ProposerError, match="is missing") as caught:
        Messages(config(tmp_path, proposer=api, model=MODELS[api]))
    assert caught.value.remedy == f"pip install 'autoresearch-runner[{api}]'"
