"""Language models: one module per API, imported only when it is chosen, since an SDK takes a second to import."""

from __future__ import annotations

import time
from collections.abc import Callable

from runner.config import Config
from runner.errors import ProposerError
from runner.proposers.llm.chat import Chat

OWN_NAMES = ("bedrock", "openai")
"""APIs that do not know the default model by its name."""


def open_chat(
    config: Config,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Chat:
    """Prepare conversations with the configured model. Nothing is sent yet.

    Args:
        config: names the API and the model.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no model, no key, no price, or a missing package.
    """
    if config.proposer in OWN_NAMES and "model" not in config.model_fields_set:
        raise ProposerError(
            f"no model is set for the proposer {config.proposer}, whose names differ from Anthropic's",
            "name one: --model NAME, or AUTORESEARCH_MODEL=NAME",
        )
    if config.proposer == "openai":
        from runner.proposers.llm.openai_responses import Responses

        return Responses(config, sleep=sleep)
    from runner.proposers.llm.anthropic_messages import Messages

    return Messages(config, sleep=sleep)
