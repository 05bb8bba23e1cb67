"""The command that runs a commit again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runner.cli.night import open_night
from runner.cli.options import campaign_options, json_option
from runner.cli.workspace import print_json

if TYPE_CHECKING:
    from runner.reproduction import Reproduction


@click.command("reproduce")
@click.argument("commit")
@campaign_options
@json_option
def reproduce_command(commit: str, as_json: bool, **settings: Any) -> None:
    """Run COMMIT's image again, or rebuild it, and say whether the score agrees within the noise.

    COMMIT is a kept or a tried commit of the campaign, whole or abbreviated. Exit code 1 when the
    layers or the score do not agree.
    """
    from runner.reproduction import reproduce

    with open_night(**settings) as (lab, _):
        result = reproduce(lab, commit)
    if as_json:
        print_json(vars(result))
    else:
        click.echo(_sentence(result))
    raise SystemExit(0 if result.agrees else 1)


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
