"""Commands that run a program again: reproduce, audit, calibrate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from runner.cli.night import open_night
from runner.cli.options import campaign_options, json_option
from runner.cli.workspace import print_json

if TYPE_CHECKING:
    from runner.campaign.studies.calibrate import Calibration
    from runner.campaign.studies.reproduce import Reproduction


@click.command("reproduce")
@click.argument("commit")
@campaign_options
@json_option
def reproduce_command(commit: str, as_json: bool, **settings: Any) -> None:
    """Run COMMIT's image again, or rebuild it, and say whether the score agrees within the noise.

    COMMIT is a kept or tried commit of the campaign: a full or abbreviated hash, or a branch. The exit code is 1
    when the layers or the scores do not agree.
    """
    from runner.campaign.studies.reproduce import reproduce

    with open_night(commit=commit, **settings) as (controller, _):
        result = reproduce(controller, commit)
    if as_json:
        print_json(asdict(result))
    else:
        click.echo(_sentence(result))
    raise SystemExit(0 if result.agrees else 1)


@click.command("audit")
@click.argument("commit")
@campaign_options
@json_option
def audit_command(commit: str, as_json: bool, **settings: Any) -> None:
    """Train COMMIT's image again, score it, and audit the claims.

    COMMIT is a kept or tried commit of the campaign: a full or abbreviated hash, or a branch. Nothing is recorded.
    The exit code is 1 when the audit refuses the claims or could not be completed.
    """
    from runner.campaign.studies.reproduce import reproduce
    from runner.report.explain import audit_lines

    with open_night(commit=commit, **settings) as (controller, _):
        result = reproduce(controller, commit, audit=True)
    if as_json:
        print_json(asdict(result))
    else:
        click.echo(f"experiment {result.number}, commit {result.commit[:10]}")
        if result.audit is not None:
            click.echo("\n".join(audit_lines(result.audit)))
        if not result.same_layer:
            click.echo("not audited: the rebuilt layer differs from the recorded one")
        elif result.problem is not None:
            click.echo(result.problem)
        else:
            click.echo("the claims stand")
    raise SystemExit(0 if result.same_layer and result.problem is None else 1)


@click.command("calibrate")
@click.argument("commits", nargs=-1, metavar="[COMMIT]...")
@click.option(
    "--seeds", "num_seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Number of seeds."
)
@campaign_options
@json_option
def calibrate_command(commits: tuple[str, ...], num_seeds: int, as_json: bool, **settings: Any) -> None:
    """Measure the noise of this machine: the workload of HEAD twice under each of several seeds.

    With one or more COMMITs, their programs are measured under the same seeds in place of the repetition. Writes
    the noise of a trial, the share of it that programs have in common under a seed, and how far honest claims
    differ from their audits. Later starts use these figures unless a setting says otherwise. Run it while nothing
    else uses the machine.
    """
    from runner.campaign.studies import calibrate
    from runner.storage.paths import StatePaths

    with open_night(**settings) as (controller, stop):
        programs = [controller.repository.resolve(name) for name in ("HEAD", *commits)]
        found = calibrate.calibrate(controller, programs, num_seeds, stopping=lambda: stop.requested)
        path = StatePaths.of(controller.repository.root).noise(controller.config.profile)
        calibrate.save(path, found)
    if as_json:
        print_json(asdict(found))
        return
    for line in _calibration_lines(found):
        click.echo(line)
    click.echo(f"wrote {path}")


def _calibration_lines(found: Calibration) -> list[str]:
    rates = ", ".join(f"{rate:.1e}" for rate in found.honest_exceedances)
    low, high = found.seed_share
    rows = zip(found.programs, found.scores_bpb, strict=True)
    return [
        *(f"{name:21s} " + "  ".join(f"{score:.4f}" for score in scores) for name, scores in rows),
        f"noise of a trial      {found.noise.sigma_bpb:.5f}, {found.noise.residual_bpb:.5f} under equal seeds",
        f"noise_prior_bpb       {found.noise_prior_bpb:.5f}",
        f"seed_share            {found.noise.share:.2f}, 90% {low:.2f} to {high:.2f}",
        f"honest_dependence     {found.honest_dependence:.1e}",
        f"honest_exceedances    {rates}",
    ]


def _sentence(result: Reproduction) -> str:
    image = "rebuilt, same layer" if result.rebuilt else "its own image"
    if not result.same_layer:
        return f"experiment {result.number}: the rebuilt layer differs from the recorded one"
    if result.second_bpb is None or result.first_bpb is None:
        return f"experiment {result.number} ({image}): no score this time: {result.problem}"
    verdict = "agrees" if result.agrees else "does NOT agree"
    return (
        f"experiment {result.number} ({image}): recorded {result.first_bpb:.6f}, now {result.second_bpb:.6f}, "
        f"difference {result.second_bpb - result.first_bpb:+.6f}; {verdict} within the noise "
        f"(3·√2·σ = {result.tolerance_bpb:.4f} bpb)"
    )
