"""Options that commands share, and how they become a Config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from runner.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])


tag_option = click.option("--tag", help="Name of the campaign (default: night).")
newest_tag_option = click.option("--tag", help="Name of the campaign (default: the newest).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


def campaign_options(command: Command) -> Command:
    """Add the options of every command that runs containers."""
    options = [
        click.option(
            "--profile",
            type=click.Choice(["cpu", "cuda"]),
            help="Settings for this kind of machine (default: cuda with a GPU, else cpu).",
        ),
        tag_option,
        click.option("--require-gpu", is_flag=True, help="Fail if there is no GPU."),
        click.option("--source", help="Corpus: sotu, climbmix, or a folder or file of text."),
        click.option("--train-seconds", type=float, help="Wall-clock time of one training."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def proposer_options(command: Command) -> Command:
    """Add the options of commands that ask a proposer."""
    options = [
        click.option(
            "--proposer",
            type=click.Choice(["anthropic", "bedrock", "vertex", "openai", "optuna", "replay"]),
            help="Where ideas come from (default: anthropic with an API key, else optuna).",
        ),
        click.option("--model", help="Name of the language model."),
        click.option(
            "--from",
            "replay_from",
            type=click.Path(path_type=Path),
            help="Folder of *.patch files for --proposer replay.",
        ),
        click.option(
            "--experiments", type=int, help="Stop after this many experiments (the baseline does not count)."
        ),
        click.option("--hours", type=float, help="Start no new experiment after this many hours."),
        click.option(
            "--budget-usd",
            type=float,
            help="Limit on the model's cost over the whole campaign, in dollars (0: no limit).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def resolve_config(
    directory: Path,
    note: Callable[[str], None],
    *,
    require_gpu: bool = False,
    needs_gpu: bool = True,
    recorded: Callable[[str], Mapping[str, str]] = lambda _: {},
    **overrides: object,
) -> Config:
    """Resolve the Config of a command; settings that were left open depend on this machine.

    Args:
        directory: the repository's root.
        require_gpu: refuse the profile cpu.
        needs_gpu: refuse the profile cuda on a machine without a GPU.
        note: called with one line whenever a weaker substitute is used.
        recorded: returns the settings that a campaign of this name began with; empty if there is none.

    Raises:
        ConfigError: a setting is wrong, or a GPU was asked for and there is none.
    """
    from runner import config
    from runner.errors import ConfigError
    from runner.sandbox import cards
    from runner.sandbox.host import find_gpus
    from runner.storage.paths import StatePaths

    asks_proposer = "proposer" in overrides
    if overrides.get("replay_from") and not overrides.get("proposer"):
        overrides["proposer"] = "replay"
    decided = config.decisions(directory, overrides)
    gpus = () if decided.get("profile") == "cpu" and not require_gpu else find_gpus()
    has_key = bool(os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"))
    fallbacks: dict[str, Any] = {
        "profile": "cuda" if gpus else "cpu",
        "proposer": "anthropic" if has_key else "optuna",
    }
    begun = recorded(str(decided.get("tag", config.Config.model_fields["tag"].default)))
    fallbacks |= begun
    profile = str(decided.get("profile", fallbacks["profile"]))
    fallbacks |= config.measured(StatePaths.of(directory).noise(profile))
    chosen = config.load(directory, overrides, fallbacks=fallbacks)
    if (require_gpu or (chosen.profile == "cuda" and needs_gpu)) and not gpus:
        raise ConfigError(
            "no NVIDIA GPU was found (nvidia-smi lists none)", "autoresearch doctor, or use --profile cpu"
        )
    if require_gpu and chosen.profile != "cuda":
        raise ConfigError("--require-gpu needs the profile cuda", "leave out --profile, or use --profile cuda")
    if chosen.profile == "cuda" and gpus:
        found = [one for index, one in enumerate(gpus) if chosen.gpu in (None, one.uuid, str(index))]
        if not found:
            known = ", ".join(one.uuid for one in gpus)
            raise ConfigError(f"there is no GPU {chosen.gpu!r}", f"choose one of: {known}")
        if chosen.gpu is not None:
            chosen = chosen.model_copy(update={"gpu": found[0].uuid})
        if needs_gpu:
            sizes = cards.sizes_at_head(directory)
            chosen = cards.fit(chosen, found, sizes=sizes, decided={**begun, **decided}, note=note)
    if chosen.profile == "cpu" or (chosen.tier == "auto" and needs_gpu):
        chosen = chosen.model_copy(update={"tier": "none"})
    chosen = _within_cores(chosen, note, is_decided="cpus" in decided)
    if not gpus and not begun and "profile" not in decided:
        note("no GPU found: using the cpu profile (--require-gpu makes this an error)")
    if asks_proposer and not has_key and "proposer" not in decided:
        note("no ANTHROPIC_API_KEY: using the offline proposer optuna (--proposer anthropic makes this an error)")
    if asks_proposer and chosen.proposer in ("optuna", "replay"):
        note(f"the proposer {chosen.proposer} asks no model, so program.md has no effect")
    return chosen


def _within_cores(chosen: Config, note: Callable[[str], None], *, is_decided: bool) -> Config:
    """Refuse more cores than there are, or take those there are where only the profile wants more."""
    from runner.errors import ConfigError

    cores = len(os.sched_getaffinity(0))
    if chosen.cpus <= cores:
        return chosen
    if is_decided:
        raise ConfigError(
            f"the setting 'cpus' is {chosen.cpus}, and this machine offers {cores}",
            f"set AUTORESEARCH_CPUS, or cpus in autoresearch.toml, to {cores} or less",
        )
    note(f"the profile {chosen.profile} wants {chosen.cpus} cores: using the {cores} that there are")
    return chosen.model_copy(update={"cpus": cores})
