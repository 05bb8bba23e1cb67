"""The client of the OpenAI SDK. A missing or unusable setting is reported before the night begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from runner.errors import ProposerError
from runner.proposers.llm.request_policy import (
    CONNECT_TIMEOUT_SECONDS,
    READ_TIMEOUT_SECONDS,
    check_keys,
    missing,
    secrets_of,
)

if TYPE_CHECKING:
    import openai

KEY_REMEDY = "check OPENAI_API_KEY and OPENAI_BASE_URL"


def open_client() -> openai.OpenAI:
    """Open a client; the SDK itself reads OPENAI_API_KEY and OPENAI_BASE_URL.

    Raises:
        ProposerError: no key, an unusable key or address, or no SDK.
    """
    try:
        import openai
    except ImportError:
        raise missing("openai", "openai") from None
    problem, client, timeout = None, None, httpx2.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        client = openai.OpenAI(max_retries=0, timeout=timeout)
    except openai.OpenAIError:
        problem = "no key"
    except (httpx2.InvalidURL, ValueError, OSError) as error:
        problem = type(error).__name__
    if client is not None and (client.base_url.scheme not in ("http", "https") or not client.base_url.host):
        client.close()
        client, problem = None, "OPENAI_BASE_URL is not an http(s) address"
    # Raised outside of `except`: an SDK exception in the chain may quote the key.
    if problem == "no key" or (client is not None and not client.api_key):
        raise ProposerError(
            "there is no key for the OpenAI API",
            "export OPENAI_API_KEY=…, or use --proposer optuna, which needs none",
        )
    if client is None:
        raise ProposerError(f"the OpenAI client cannot be set up ({problem})", KEY_REMEDY)
    check_keys([client.api_key], "OPENAI_API_KEY")
    return client


def secrets(client: openai.OpenAI) -> tuple[str, ...]:
    """The values that must never be shown."""
    return secrets_of([client.api_key], client.default_headers)
