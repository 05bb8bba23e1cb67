"""Commands that say what a campaign's certificates are worth: ablate, confirm."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.night import open_night
from runner.cli.options import campaign_options, json_option
from runner.cli.workspace import print_json

if TYPE_CHECKING:
    from runner.campaign.studies.ablate import Finding, Study
    from runner.campaign.studies.confirm import Claim
    from runner.decision.pairing import Difference

MINIMAL_PATCH = "minimal.patch"


@click.command("ablate")
@click.argument("commit", required=False)
@click.option(
    "--seeds", "num_seeds", type=click.IntRange(1), default=3, show_default=True, help="Seeds for each program."
)
@click.option("--all", "whole_line", is_flag=True, help="Split every certificate since the baseline.")
@campaign_options
@json_option
def ablate_command(commit: str | None, num_seeds: int, whole_line: bool, as_json: bool, **settings: Any) -> None:
    """Split a certificate into its accepted edits, and say which of them carry the gain.

    COMMIT is a certified commit of the campaign; default: its champion. Each edit is left out once, or put alone
    on the champion before, under the same seeds. All edits that do not matter are then left out together; if the
    result is not worse, minimal.patch is written beside the reports: the difference between the baseline and the
    reduced program. Nothing else is recorded. Ctrl-C finishes the current trial and prints what is known.
    """
    from runner.campaign.studies import ablate
    from runner.errors import Interrupted
    from runner.storage.files import replace_file
    from runner.storage.paths import StatePaths

    study: Study | None = None
    path: Path | None = None
    try:
        with open_night(commit=commit, **settings) as (controller, stop):
            study = ablate.open_study(controller, commit, num_seeds, whole_line=whole_line)
            ablate.run_study(controller, study, stopping=lambda: stop.requested)
            patch = study.patch()
            if patch is not None:
                path = StatePaths.of(controller.repository.root).report(controller.config.tag) / MINIMAL_PATCH
                replace_file(path, patch.encode())
    finally:
        if study is not None:
            _print_study(study, path, as_json=as_json)
    if not study.complete:
        raise Interrupted("stopped between two trials; no patch was written", "run it again; it starts over")


@click.command("confirm")
@click.argument("commit", required=False)
@click.option("--against", help="Commit to compare with (default: where the campaign began).")
@campaign_options
@json_option
def confirm_command(commit: str | None, against: str | None, as_json: bool, **settings: Any) -> None:
    """Confirm that COMMIT is better: 7 pairs under fresh seeds, an exact test, then the sealed rows.

    COMMIT is by default the campaign's champion. Every attempt is recorded in the ledger. A further one adds its
    pairs to those before it and needs a smaller p, so that all attempts together err with a probability below 1%.
    The exit code is 1 when the claim does not hold.
    """
    from runner.campaign.studies import confirm

    with open_night(commit=commit, **settings) as (controller, stop):
        pair = confirm.open_pair(controller, commit, against)
        earlier = controller.sealed.attempts(pair.sha256)

        def record(claim: Claim) -> None:
            controller.sealed.record_attempt(pair.sha256, claim.attempt, asdict(claim))

        claim = confirm.confirm(controller, pair, earlier, record, stopping=lambda: stop.requested)
    if as_json:
        print_json(asdict(claim))
    else:
        click.echo("\n".join(claim_lines(claim)))
    raise SystemExit(0 if claim.holds else 1)


def claim_lines(claim: Claim) -> list[str]:
    """Describe the outcome of an attempt for people; the first line is the summary."""
    word = "holds" if claim.holds else "does NOT hold"
    direction = "better" if claim.difference.mean_bpb < 0 else "worse"
    times = "" if claim.attempt == 1 else f" in attempt {claim.attempt}"
    lines = [
        f"The claim {word}: {claim.commit[:10]} is {direction} than {claim.against[:10]} by "
        f"{abs(claim.difference.mean_bpb):.4f} bpb in {claim.num_pairs} pairs under fresh seeds, "
        f"p = {claim.p:.2g} (needed{times}: at most {claim.level:.2g}); {claim.reason}.",
        f"difference  {_interval(claim.difference)}",
        f"{claim.commit[:10]}  " + "  ".join(f"{run.val_bpb:.6f}" for run in claim.runs),
        f"{claim.against[:10]}  " + "  ".join(f"{run.val_bpb:.6f}" for run in claim.against_runs),
    ]
    if claim.sealed is not None and claim.sealed_difference is not None:
        own, other = claim.sealed
        lines.append(
            f"sealed test rows (as claimed), one pair under a common seed: {own.test_bpb:.6f} against "
            f"{other.test_bpb:.6f} (validation {own.val_bpb:.6f}, {other.val_bpb:.6f})"
        )
        lines.append(f"sealed difference  {_interval(claim.sealed_difference)}")
    return lines


def _interval(one: Difference) -> str:
    ends = f"{one.low_bpb:+.4f} to {one.high_bpb:+.4f}"
    return f"{one.mean_bpb:+.4f} bpb, standard error {one.se_bpb:.4f}, 90% {ends}"


def _print_study(study: Study, path: Path | None, *, as_json: bool) -> None:
    together, gain = study.together(), study.gain()
    if as_json:
        print_json(
            {
                "certificate": study.scope.champion.number,
                "commit": study.scope.champion.kept_commit,
                "against": study.scope.before,
                "seeds": study.num_seeds,
                "complete": study.complete,
                "gain": None if gain is None else asdict(gain),
                "edits": [asdict(one) for one in study.findings()],
                "dropped": study.dropped,
                "together": None if together is None else asdict(together),
                "runs": {name: [asdict(run) for run in runs] for name, runs in study.series.runs.items()},
                "patch": None if path is None else str(path),
            }
        )
        return
    click.echo("\n".join(study_lines(study)))
    if path is not None:
        click.echo(f"wrote {path}")


def study_lines(study: Study) -> list[str]:
    """Describe the findings on each edit, and on all that do not matter together, for people."""
    from runner.cli.display import first_line

    newest, gain = study.scope.champion, study.gain()
    count = len(study.scope.accepted)
    lines = [
        f"experiment {newest.number} ({(newest.kept_commit or '')[:10]}) against experiment {study.scope.before}: "
        f"{'1 edit' if count == 1 else f'{count} edits'}, together "
        f"{'not measured' if gain is None else _interval(gain)}",
    ]
    for edit, one in zip(study.scope.accepted, study.findings(), strict=True):
        lines.append(f"experiment {edit.number:<4d}  {_words(one)}  [{first_line(edit.hypothesis)}]")
    together = study.together()
    if together is not None:
        numbers = ", ".join(map(str, study.dropped))
        lines.append(f"experiments {numbers} together  {_words(together)}")
    if study.complete:
        lines += _conclusion(study, together)
    return lines


def _words(one: Finding) -> str:
    if one.effect is None or one.not_worse is None:
        return str(one.state) + ("" if one.reason is None else f": {one.reason}")
    how = ", alone on the champion before" if one.alone else ""
    return f"{_interval(one.effect)}{how}: {one.state} (not worse without it: {one.not_worse:.0%})"


def _conclusion(study: Study, together: Finding | None) -> list[str]:
    from runner.campaign.studies.ablate import State

    carrying = [one for one in study.findings() if one.state in (State.MATTERS, State.NEEDED)]
    numbers = ", ".join(str(one.number) for one in carrying)
    lines = [f"The gain is carried by: {numbers or 'no edit that shows by itself'}."]
    if together is None:
        return [*lines, "No edit can be left out with confidence: the minimal patch is all of them."]
    if study.patch() is None:
        return [*lines, "Without them together the program may be worse: no patch was written."]
    left = len(study.scope.accepted) - len(study.dropped)
    return [*lines, f"The minimal patch keeps the gain with {left} of {len(study.scope.accepted)} edits."]
