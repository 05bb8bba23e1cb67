"""The command simulate: keep rules on synthetic campaigns. Needs no engine and no repository."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from runner.cli.options import json_option
from runner.cli.workspace import print_json


@click.command("simulate")
@click.option(
    "--campaigns",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Number of campaigns.",
)
@click.option(
    "--runs",
    default=700,
    show_default=True,
    type=click.IntRange(12, 100_000),
    help="Budget of each campaign, in trials.",
)
@click.option(
    "--sigma",
    default=0.0007,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Noise between seeds, in bpb.",
)
@click.option(
    "--mix",
    default="real",
    show_default=True,
    type=click.Choice(["real", "harsh"]),
    help="Distribution of effects: as in a public night, or with a third as many edits that help.",
)
@click.option(
    "--drift",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Slow drift of the machine: standard deviation in units of sigma.",
)
@click.option(
    "--seed-share",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the noise variance that all programs have in common under one seed.",
)
@click.option(
    "--world",
    default="additive",
    show_default=True,
    type=click.Choice(["additive", "redundant", "fading", "follow-ups", "combined"]),
    help="How the effects of edits depend on each other.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random numbers.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the comparison as a PNG file."
)
@json_option
def simulate_command(campaigns: int, seed: int, plot: Path | None, as_json: bool, **world: Any) -> None:
    """Compare keep rules on synthetic campaigns: how much they truly gain, and how much they report.

    The keep rule of this program competes with others on the same budget of trials. docs/statistics.md explains
    the columns.
    """
    from runner.decision.simulation import compare
    from runner.decision.worlds import MIXES, WORLDS, Setting
    from runner.report.plot import rules_png

    setting = Setting(
        mix=MIXES[world["mix"]],
        sigma_bpb=world["sigma"],
        num_runs=world["runs"],
        drift_sigmas=world["drift"],
        seed_share=world["seed_share"],
        interplay=WORLDS[world["world"]],
    )
    about = "{runs} trials, sigma {sigma:g} bpb, mix {mix}, world {world}, seed share {seed_share:g}".format(
        **world
    )
    found = compare(setting, campaigns, seed)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        greedy = next(one.true_gain for one in found if one.rule == "greedy")
        click.echo(f"{campaigns} campaigns of {about}, drift {world['drift']:g} sigma")
        click.echo(
            "rule               true gain   × greedy   reported   false keeps   false edits   keeps   edits  tried"
        )
        for one in found:
            optimism = "–" if one.optimism is None else f"{one.optimism:+.1%}"
            click.echo(
                f"{one.rule:18s} {one.true_gain:9.5f}   {one.true_gain / greedy:8.2f}   {optimism:>8s}"
                f"   {one.false_share:11.1%}   {one.false_edits:11.1%}   {one.keeps:5.1f}   {one.edits:5.1f}"
                f"  {one.candidates:5.0f}"
            )
    if plot is not None:
        rules_png(found, plot, f"{campaigns} campaigns of {about}")
        if not as_json:
            click.echo(f"wrote {plot}")
