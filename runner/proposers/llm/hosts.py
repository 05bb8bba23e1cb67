"""The hosts of the Messages API: Anthropic or a compatible server, Amazon Bedrock, Google Vertex AI.

The SDK's own clients read their usual environment variables. They are opened here so that a missing or unusable
setting is one sentence before the night begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anthropic
import httpx2

from runner.errors import ProposerError
from runner.proposers.llm.request_policy import (
    CONNECT_TIMEOUT_SECONDS,
    READ_TIMEOUT_SECONDS,
    check_keys,
    missing,
    secrets_of,
)

Client = anthropic.Anthropic | anthropic.AnthropicBedrock | anthropic.AnthropicVertex
C = TypeVar("C", anthropic.Anthropic, anthropic.AnthropicBedrock, anthropic.AnthropicVertex)


@dataclass(frozen=True, kw_only=True)
class Host:
    """An open client, and the properties in which hosts of the same API differ."""

    client: Client
    keys: tuple[str, ...]
    remedy: str  # the settings to check when the key is refused
    knows_editor: bool  # has the text editor built in; a compatible server may not
    marks_end: bool = False  # finds the moving end of the cache by itself
    strict: bool = True  # can enforce schemas
    faults: tuple[type[Exception], ...] = ()  # raised in a request by libraries other than the SDK

    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown, including a token that the client has obtained since."""
        minted = getattr(getattr(self.client, "credentials", None), "token", None)
        return secrets_of([*self.keys, minted], self.client.default_headers)


def open_host(api: str) -> Host:
    """Open the client of an API: "anthropic", "bedrock" or "vertex".

    Raises:
        ProposerError: no credentials, unusable ones, or a missing package.
    """
    if api == "bedrock":
        return _opened(anthropic.AnthropicBedrock, _bedrock, _AWS)
    if api == "vertex":
        return _opened(anthropic.AnthropicVertex, _vertex, _GOOGLE)
    return _opened(anthropic.Anthropic, _anthropic, _ANTHROPIC)


_ANTHROPIC = "check ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN) and ANTHROPIC_BASE_URL"
_AWS = "check AWS_REGION, and the AWS_* credentials or AWS_BEARER_TOKEN_BEDROCK"
_GOOGLE = "check CLOUD_ML_REGION, ANTHROPIC_VERTEX_PROJECT_ID and `gcloud auth application-default login`"


def _opened(make: Callable[..., C], described: Callable[[C], Host], remedy: str) -> Host:
    problem, client = None, None
    try:
        client = make(
            max_retries=0, timeout=anthropic.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        )
    except (anthropic.AnthropicError, httpx2.InvalidURL, ValueError, OSError) as error:
        problem = type(error).__name__
    if client is None:
        raise ProposerError(f"the {make.__name__} client cannot be set up ({problem})", remedy)
    try:
        if client.base_url.scheme not in ("http", "https") or not client.base_url.host:
            raise ProposerError(
                f"the {make.__name__} client cannot be set up (its base URL is not an http(s) address)", remedy
            )
        return described(client)
    except ProposerError:
        client.close()
        raise


def _anthropic(client: anthropic.Anthropic) -> Host:
    keys = tuple(key for key in (client.api_key, client.auth_token) if key)
    if not keys and client.credentials is None:
        raise ProposerError(
            "there is no key for the anthropic API",
            "export ANTHROPIC_API_KEY=…, or use --proposer optuna, which needs none",
        )
    check_keys(keys, "ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN")
    host = client.base_url.host
    ours = host == "anthropic.com" or host.endswith(".anthropic.com")
    return Host(client=client, keys=keys, remedy=_ANTHROPIC, knows_editor=ours, marks_end=True)


def _bedrock(client: anthropic.AnthropicBedrock) -> Host:
    try:
        import boto3
        from botocore.eventstream import ParserError
        from botocore.exceptions import BotoCoreError
        from botocore.parsers import ResponseParserError
    except ImportError:
        raise missing("bedrock", "boto3") from None
    keys: tuple[str, ...] = (client.api_key or "",)
    if not client.api_key:
        try:
            found = boto3.Session().get_credentials()
        except BotoCoreError:
            found = None
        if found is None:
            raise ProposerError("there are no AWS credentials for Amazon Bedrock", _AWS)
        keys = (found.secret_key, found.token or "")
    check_keys(keys, "an AWS credential")
    faults = (BotoCoreError, ParserError, ResponseParserError)
    return Host(client=client, keys=keys, remedy=_AWS, knows_editor=True, faults=faults)


def _vertex(client: anthropic.AnthropicVertex) -> Host:
    faults: tuple[type[Exception], ...] = ()
    # A gateway may have its own authorization: ANTHROPIC_CUSTOM_HEADERS.
    if not any(name.lower() == "authorization" for name in client.default_headers):
        try:
            import google.auth
            import google.auth.transport.requests
            from google.auth.exceptions import GoogleAuthError
        except ImportError:
            raise missing("vertex", "google-auth") from None
        try:
            client.credentials, project = google.auth.default(
                scopes=["https://www.googleapis.com/auth/cloud-platform"]
            )
        except GoogleAuthError:
            raise ProposerError("there are no Google credentials for Vertex AI", _GOOGLE) from None
        client.project_id = client.project_id or project
        faults = (GoogleAuthError,)
    if not client.project_id:
        raise ProposerError("no Google Cloud project is set for Vertex AI", _GOOGLE)
    # Vertex AI refuses strict schemas until an organization's policy allows them.
    return Host(client=client, keys=(), remedy=_GOOGLE, knows_editor=True, strict=False, faults=faults)
