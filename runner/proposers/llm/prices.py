"""The price of tokens: from the packaged table of `genai-prices` (no network), or from two configured prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import ConfigError, ProposerError

if TYPE_CHECKING:
    from runner.config import Config

MEGA = 1_000_000
# Multipliers of the input price: the highest published ones, so that a budget errs on the safe side.
CACHE_READ_SHARES = {"anthropic": 0.1, "bedrock": 0.1, "vertex": 0.1, "openai": 0.5}
CACHE_WRITE_SHARE = 1.25
CACHE_WRITE_HOUR_SHARE = 2.0
PROVIDERS = {"anthropic": "anthropic", "bedrock": "aws", "vertex": "google", "openai": "openai"}
"""The names of the APIs in the price table."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of one response by price class. No token counts twice."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0  # kept for five minutes
    cache_write_hour: int = 0  # kept for an hour


Price = Callable[[Tokens], float]
"""From the tokens of one response to USD."""


def price_of(config: Config) -> Price:
    """Look up the price of the configured model.

    Raises:
        ConfigError: only one of the two prices is set.
        ProposerError: the price is unknown. A budget cannot hold without it.
    """
    input_usd, output_usd = config.price_input_usd, config.price_output_usd
    if input_usd is not None and output_usd is not None:
        read_share = CACHE_READ_SHARES[config.proposer]
        return lambda tokens: _configured(tokens, input_usd, output_usd, read_share)
    hint = "set AUTORESEARCH_PRICE_INPUT_USD and AUTORESEARCH_PRICE_OUTPUT_USD, in USD per million tokens"
    if input_usd is not None or output_usd is not None:
        raise ConfigError("only one of price_input_usd and price_output_usd is set", hint)
    try:
        _tabulated(config.model, PROVIDERS[config.proposer], Tokens(input=1, output=1))
    except LookupError:
        known = False
    else:
        known = True
    if not known:
        raise ProposerError(f"the price of model {config.model!r} is not known", f"{hint} (0 for a local server)")
    return lambda tokens: _tabulated(config.model, PROVIDERS[config.proposer], tokens)


def _configured(tokens: Tokens, input_usd: float, output_usd: float, read_share: float) -> float:
    weighted = (
        tokens.input
        + read_share * tokens.cache_read
        + CACHE_WRITE_SHARE * tokens.cache_write
        + CACHE_WRITE_HOUR_SHARE * tokens.cache_write_hour
    )
    return (weighted * input_usd + tokens.output * output_usd) / MEGA


def _tabulated(model: str, provider: str, tokens: Tokens) -> float:
    from genai_prices import Usage, calc_price  # takes 0.2 s: not at import

    writes = tokens.cache_write + tokens.cache_write_hour
    usage = Usage(
        input_tokens=tokens.input + tokens.cache_read + writes,  # this library includes cached tokens
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=writes,
        cache_write_1h_tokens=tokens.cache_write_hour,
        output_tokens=tokens.output,
    )
    return float(calc_price(usage, model, provider_id=provider).total_price)
