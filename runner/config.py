"""One frozen Config.

Precedence: command line > environment (`AUTORESEARCH_*`) > `autoresearch.toml` > measured on this machine >
profile > default. No other module of the controller reads the environment for settings.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections import ChainMap
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runner.errors import ConfigError
from runner.tiers import TIERS

ENV_PREFIX = "AUTORESEARCH_"
CONFIG_FILE = "autoresearch.toml"
STATE_DIR = ".autoresearch"
PROFILES = ("cpu", "cuda")
TIP_SUFFIX = "-tip"
"""Ends the name of the branch of accepted edits; no campaign may be called so."""

MEBI = 2**20

_REFERENCE = "docs/commands.md lists every setting"


def _from_text(value: object) -> object:
    """Parse a list or a table from the environment, where it is JSON."""
    return json.loads(value) if isinstance(value, str) else value


def _not_a_tip(tag: str) -> str:
    """Refuse the name that the branch of another campaign's tip would have."""
    if tag.endswith(TIP_SUFFIX):
        raise ValueError(f"a tag may not end in {TIP_SUFFIX}: that is the branch of another campaign's tip")
    return tag


Share = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, Field(min_length=1)]


class Config(BaseModel):
    """Every setting of a campaign. Sizes in bytes, times in seconds unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    profile: Literal["cpu", "cuda"] = Field(description="set of values that suits the machine")
    tag: Annotated[str, AfterValidator(_not_a_tip)] = Field(
        default="night",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$",
        description="name of the campaign and of its branch",
    )

    # Budget: whichever ends first.
    hours: float = Field(default=8.0, gt=0, description="no new experiment after this many hours since this start")
    experiments: int = Field(
        default=1000, ge=0, description="stop after this many experiments, the baseline not counted"
    )
    budget_usd: float = Field(
        default=20.0, ge=0, description="USD for the language model, whole campaign; 0: no limit"
    )
    experiment_budget_usd: float = Field(
        default=2.0, ge=0, description="USD for the conversation about one experiment; 0: no limit"
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
        description="duration of the smoke test of a model's edit on a spare core before the experiment; 0: none",
    )
    max_disturbance: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of a training's cores or GPU time that others may take; more repeats it; 1: never",
    )

    # Decision.
    baseline_runs: int = Field(default=3, ge=2, description="trials of the first champion")
    noise_prior_bpb: float = Field(
        gt=0, description="standard deviation between seeds until this campaign has measured its own"
    )
    seed_share: Annotated[tuple[Share, Share], BeforeValidator(_from_text)] = Field(
        default=(0.0, 1.0),
        description="share of the noise that programs have in common under a seed: 90% interval beforehand",
    )
    effect_scale_bpb: float = Field(
        gt=0, description="typical effect of an edit until this campaign has measured its own"
    )
    accept_probability: float = Field(
        default=0.6, ge=0.5, lt=1, description="least probability that an edit on the tip is an improvement"
    )
    certify: Literal["together", "each"] = Field(
        default="together",
        description="whether accepted edits are certified together, or each of them before the next is tried",
    )
    certify_sigmas: float = Field(
        default=12.0,
        ge=0,
        description="worth of the tip from which it is certified, in noise standard deviations",
    )
    certify_trials: int = Field(default=30, ge=0, description="trials between two certificates, at least")
    min_pairs: int = Field(
        default=2, ge=1, description="pairs of trials, tip and champion, that a certificate needs at least"
    )
    max_pairs: int = Field(default=5, ge=1, description="pairs after which a certificate ends as unclear")
    max_false_keep_probability: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="largest probability, at each look, to certify a tip that is no improvement",
    )
    control_interval: int = Field(
        default=20,
        ge=0,
        description="trials between two controls of the tip; 0: only in certificates",
    )

    # Early stop.
    early_stop_threshold: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="a trial with a smaller chance to be accepted is stopped; 0: never",
    )
    early_stop_min_trials: int = Field(
        default=12, ge=3, description="finished candidates required before any is stopped"
    )
    early_stop_holdout: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="share of unpromising trials that are finished anyway, drawn at random",
    )

    # Audit.
    audit_rows: int = Field(default=8192, ge=1, description="rows that an audit examines; all if there are fewer")
    audit_discards: float = Field(
        default=0.02, ge=0, le=1, description="share of discards that are audited too, drawn at random"
    )
    honest_dependence: float = Field(
        ge=0, le=1, description="mean total variation between two passes of an honest model"
    )
    honest_exceedances: Annotated[tuple[Share, Share, Share, Share], BeforeValidator(_from_text)] = Field(
        description="how often an honest claim exceeds its audit by more than 0.1, 0.3, 1 and 3 nats"
    )

    # Data.
    source: str = Field(description="'sotu' (embedded), 'climbmix', or a folder or file of your own text")
    vocab_size: int = Field(
        ge=257, le=65535, description="tokens in the vocabulary, the beginning-of-text token included"
    )
    context_length: int = Field(ge=8, description="tokens per row, in training and in scoring")
    max_eval_rows: int = Field(ge=1, description="validation and test rows, taken at an even stride")
    climbmix_shards: int = Field(
        default=10, ge=1, le=6542, description="training shards of ClimbMix, ~100 MB each"
    )

    # Container limits.
    memory_bytes: int = Field(ge=512 * MEBI, description="memory and swap together")
    cpus: int = Field(ge=1, description="cores of a candidate; each is pinned, one thread per core")
    cores: Annotated[tuple[int, ...] | None, BeforeValidator(_from_text)] = Field(
        default=None,
        description="cores of the host for candidates, as many as `cpus`; the last ones that are free when unset",
    )
    pids: int = Field(default=512, ge=16, description="processes and threads of one container")
    scratch_bytes: int = Field(ge=16 * MEBI, description="tmpfs at /tmp")
    output_bytes: int = Field(ge=16 * MEBI, description="tmpfs for checkpoints; must hold two of them")
    shm_bytes: int = Field(default=64 * MEBI, ge=0, description="size of /dev/shm")
    score_batch_rows: int = Field(ge=1, description="rows per forward pass in scoring")
    gpu: str | None = Field(
        default=None, min_length=1, description="UUID of the GPU to use; the first one that is free when unset"
    )
    tier: Literal["auto", "none", *TIERS] = Field(  # type: ignore[valid-type]
        default="auto",
        description="sizes of the workload for this card; auto: by its memory; none: those of the profile",
    )

    # Proposer.
    proposer: Literal["anthropic", "bedrock", "vertex", "openai", "optuna", "replay"] = Field(
        default="optuna",
        description="source of proposals: a language model by its API, or one without a model",
    )
    model: str = Field(default="claude-opus-5-5", description="language model that proposes")
    plateau_after: int = Field(
        default=20,
        ge=2,
        description="ideas without an acceptance after which the model is asked to change direction",
    )
    plateau_model: str | None = Field(default=None, min_length=1, description="model to ask instead on a plateau")
    editor: Literal["auto", "builtin", "custom"] = Field(
        default="auto",
        description="the editor tool built into the API, or a custom one; auto: built in where available",
    )
    max_output_tokens: int = Field(default=32_000, ge=1024, description="limit for one answer, thinking included")
    replay_from: Path | None = Field(default=None, description="folder of patches for `replay`")
    price_input_usd: float | None = Field(
        default=None, ge=0, description="USD per million tokens; overrides the price table"
    )
    price_output_usd: float | None = Field(default=None, ge=0, description="the same for output tokens")

    # Engine.
    docker_host: str | None = Field(
        default=None, description="socket of the engine; DOCKER_HOST or the default one when unset"
    )
    runtime: str | None = Field(
        default=None,
        min_length=1,
        description="container runtime of candidates: 'runsc' for gVisor",
    )
    accept: Annotated[dict[str, Reason], BeforeValidator(_from_text)] = Field(
        default={}, description="findings of `autoresearch doctor` that you accept: name = reason"
    )

    @property
    def sizes(self) -> str:
        """The module of `workload/sizes/` that candidates use: `PROFILE` in their environment."""
        return self.tier if self.tier in TIERS else self.profile


CONDITIONS = ("profile", "tier", "train_seconds", "cpus", "memory_bytes", "max_eval_rows")
"""Settings that two scores must share to be comparable: a campaign records them, and resumes with them."""


def conditions(config: Config) -> dict[str, str]:
    """Return these settings as a campaign records them; `load` accepts them back."""
    values = {name: getattr(config, name) for name in CONDITIONS}
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def decisions(
    directory: Path, overrides: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Collect the settings that people chose, by command line, environment or file; not yet validated.

    Raises:
        ConfigError: the file is not TOML, or a variable is not a setting.
    """
    return dict(ChainMap(*_chosen(directory, overrides, environ).values()))


def measured(path: Path) -> dict[str, Any]:
    """Read the noise figures that `autoresearch calibrate` wrote; empty if there are none or they are damaged."""
    try:
        return _Measured.model_validate_json(path.read_bytes()).model_dump()
    except (OSError, ValueError):
        return {}


class _Measured(BaseModel):
    """The figures among what `autoresearch calibrate` writes."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    noise_prior_bpb: float = Field(gt=0)
    seed_share: tuple[Share, Share] = (0.0, 1.0)
    honest_dependence: Share
    honest_exceedances: tuple[Share, Share, Share, Share]


def load(
    directory: Path,
    overrides: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Config:
    """Assemble the one Config.

    Args:
        directory: may contain `autoresearch.toml`.
        overrides: options of the command line; `None` values count as omitted.
        environ: the environment; the process's own when omitted.
        fallbacks: suggestions for this machine (profile, proposer, noise), used where people chose nothing.

    Raises:
        ConfigError: an unknown key, or a value out of its range; names the key and the place where it stands.
    """
    layers = {
        **_chosen(directory, overrides, environ),
        "among the suggestions for this machine": dict(fallbacks or {}),
    }
    profile = ChainMap(*layers.values()).get("profile", PROFILES[0])
    if profile not in PROFILES:
        raise ConfigError(f"there is no profile {profile!r}", f"choose one of: {', '.join(PROFILES)}")
    layers[f"in the profile {profile}"] = {"profile": profile, **_read_profile(profile)}
    try:
        return Config.model_validate(dict(ChainMap(*layers.values())))
    except ValidationError as error:
        raise ConfigError(_explain(error, layers), f"correct it there; {_REFERENCE}") from None


_Layers = dict[str, dict[str, Any]]
"""Settings by the place where they stand, as a person would name it; earlier places win."""


def _chosen(directory: Path, overrides: Mapping[str, Any], environ: Mapping[str, str] | None) -> _Layers:
    path = directory / CONFIG_FILE
    return {
        "on the command line": {key: value for key, value in overrides.items() if value is not None},
        "in the environment": _read_environment(os.environ if environ is None else environ),
        f"in {path}": _read_file(path),
    }


def _read_profile(name: str) -> dict[str, Any]:
    return tomllib.loads((files("runner") / "profiles" / f"{name}.toml").read_text("utf-8"))


def _read_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", f"edit {path}") from error
    for table, inside in found.items():
        for name in inside if isinstance(inside, dict) else ():
            if name in Config.model_fields:
                raise ConfigError(
                    f"the setting {name!r} stands in the table [{table}] of {path}, where it has no effect",
                    f"move it to the top of {path}, above all tables",
                )
    return found


def _read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {ENV_PREFIX + name.upper(): name for name in Config.model_fields}
    found = {variable: value for variable, value in environ.items() if variable.startswith(ENV_PREFIX)}
    for variable in sorted(found.keys() - names.keys()):
        raise ConfigError(
            f"the environment variable {variable} is not a setting{_suggestion(variable, names)}",
            f"unset {variable}; {_REFERENCE}",
        )
    return {names[variable]: value for variable, value in found.items()}


def _explain(error: ValidationError, layers: _Layers) -> str:
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        place = next((place for place, layer in layers.items() if item["loc"][0] in layer), None)
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown setting {name!r} {place}{_suggestion(name, Config.model_fields)}")
        elif item["type"] == "missing":
            problems.append(f"setting {name!r} is missing")
        else:
            problems.append(f"setting {name!r} = {item['input']!r} {place}: {item['msg'].lower()}")
    return "; ".join(problems)


def _suggestion(name: str, names: Iterable[str]) -> str:
    """Ask whether a close name was meant; nothing where none is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(names), n=1)
    return f": did you mean {close[0]}?" if close else ""
