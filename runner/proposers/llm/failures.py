"""Reasons why an attempt gave no answer, in the terms that all APIs share: a sentence, a remedy, whether to retry.

The module of an API decides which of these an error is. Text of a server is redacted here, since some gateways
quote keys, and an SDK's exception, whose chain may hold headers, becomes a plain value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from runner.untrusted import prompt_line

MAX_RETRY_AFTER_SECONDS = 120.0
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
# Raised by the SDKs on a stream that no server should send (broken JSON, an index that never began).
GARBLED = (ValueError, TypeError, AttributeError, IndexError, KeyError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why one attempt gave no answer."""

    reason: str
    retry: bool
    of_request: bool = False  # this very request is refused; another one may not be
    remedy: str | None = None
    retry_after: float | None = None  # seconds


def no_credit(quoted: str) -> Failure:
    """The account cannot pay. A spending limit may arrive as a 429, but retrying it would last all night."""
    return Failure(
        reason=f"the account has no credit left or has reached its spending limit ({quoted})",
        retry=False,
        remedy="add credit or raise the limit in the console, then start again: the campaign resumes",
    )


def rejected_key(quoted: str, remedy: str) -> Failure:
    """The key is wrong or has expired."""
    return Failure(reason=f"the API does not accept the key ({quoted})", retry=False, remedy=remedy)


def forbidden_model(model: str, quoted: str, *, owner: str) -> Failure:
    """The key is valid, but its owner (a workspace, a project) may not use this model."""
    return Failure(
        reason=f"the key may not use model {model!r} ({quoted})",
        retry=False,
        remedy=f"use a key of a {owner} that may, or choose another model with --model",
    )


def unknown_model(model: str, quoted: str, *, example: str) -> Failure:
    """The API has no model of this name."""
    return Failure(
        reason=f"there is no model {model!r} ({quoted})",
        retry=False,
        remedy=f"choose a model that the API knows with --model, for instance {example}",
    )


def no_such_api(name: str, url: httpx2.URL, quoted: str, *, remedy: str) -> Failure:
    """The address answers, but not as this API does."""
    return Failure(reason=f"there is no {name} API at {url.host}{url.path} ({quoted})", retry=False, remedy=remedy)


def refused_request(quoted: str) -> Failure:
    """The request itself is at fault."""
    return Failure(reason=f"the API refuses the request ({quoted})", retry=False, of_request=True)


def no_connection(host: str, error: Exception) -> Failure:
    """The server cannot be reached, or stopped responding."""
    return Failure(reason=f"no connection to {host} ({type(error).__name__})", retry=True)


def unusable_credentials(error: Exception, remedy: str) -> Failure:
    """The credentials cannot be read or renewed."""
    reason = f"the credentials cannot be used ({type(error).__name__})"
    return Failure(reason=reason, retry=False, remedy=remedy)


def broken_stream(error: Exception) -> Failure:
    """The connection broke in the middle of an answer, or the answer makes no sense."""
    how = "cut off" if isinstance(error, httpx2.HTTPError) else "garbled"
    return Failure(reason=f"the answer was {how} ({type(error).__name__})", retry=True)


def quote(status: int, kind: str, text: str) -> str:
    """An error in one phrase. Status 200 means an error in the middle of a stream."""
    said = f"HTTP {status} {kind}".strip() if status != 200 else kind or "an error in the middle of the answer"
    return f"{said}: {text}" if text else said


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Text of a server on one line, without keys: some gateways quote them."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return prompt_line(text, 300)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, at most `MAX_RETRY_AFTER_SECONDS`."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds >= 0 else None
