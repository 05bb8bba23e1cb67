"""Commands that read the ledger: status, log, show, report. They need no engine and no lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.options import json_option, newest_tag_option
from runner.cli.workspace import as_json as experiment_json
from runner.cli.workspace import choose_tag, open_workspace, print_json
from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.records import Experiment, RunRecord, SealedScore
    from runner.report.effort import Effort
    from runner.storage.ledger import CampaignRow, Ledger
    from runner.storage.paths import StatePaths


@click.command("status")
@newest_tag_option
@json_option
def status_command(tag: str | None, as_json: bool) -> None:
    """Show where the campaign stands: done, best, kept, spent, and what is running."""
    from runner.report.summary import summary_text
    from runner.storage.lock import is_running

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        campaign = workspace.ledger.campaign(name)
        assert campaign is not None
        sealed = sealed_scores(workspace.ledger, name)
        profile = campaign.conditions.get("profile")
        budget = _budget(workspace.repository.root, profile)
        effort = count_effort(workspace.ledger, name, profile, budget)
    experiments = effort.experiments
    running = is_running(workspace.paths.root)
    if as_json:
        print_json({"running": running, **_status_json(campaign, effort, sealed)})
        return
    state = "running" if running else "not running"
    done = sum(one.verdict is not None for one in experiments[1:])
    click.echo(f"campaign {name} ({state}): {done} of {max(done, campaign.target)} experiments")
    if experiments and experiments[0].verdict is not None:
        click.echo("\n".join([summary_text(experiments), *campaign_notes(experiments, sealed)]))
    if experiments and experiments[-1].verdict is None:
        from runner.cli.display import first_line

        state = "in progress" if running else "interrupted, resumes at the next start"
        click.echo(f"experiment {experiments[-1].number} ({state}): {first_line(experiments[-1].hypothesis)}")
    for line in effort.lines():
        click.echo(line)


@click.command("log")
@newest_tag_option
@json_option
def log_command(tag: str | None, as_json: bool) -> None:
    """List all experiments in one table, failed ones included."""
    from runner.cli.display import print_table

    with open_workspace(create=False) as workspace:
        experiments = workspace.ledger.experiments(choose_tag(workspace.ledger, tag))
    if as_json:
        for experiment in experiments:
            print_json(experiment_json(experiment))
        return
    print_table(experiments)


@click.command("show")
@click.argument("number", type=int, metavar="ID")
@newest_tag_option
@json_option
@click.option(
    "--transcript", "with_transcript", is_flag=True, help="Show the conversation with the model instead."
)
@click.option("--full", is_flag=True, help="Fold nothing in the transcript.")
def show_command(number: int, tag: str | None, as_json: bool, with_transcript: bool, full: bool) -> None:
    """Show experiment ID: the reason for its verdict, its diff, its runs, and the end of its log."""
    from runner.report.effort import duty_name
    from runner.report.explain import rests_on

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        conversation = workspace.ledger.conversations.transcript(name, number) if with_transcript else None
        experiments = workspace.ledger.experiments(name)
        experiment = next((one for one in experiments if one.number == number), None)
        sealed = [one for one in sealed_scores(workspace.ledger, name) if one.number == number]
        duty = duty_name(workspace.conditions_of(name).get("profile"))
    if experiment is None:
        raise ConfigError(f"campaign {name!r} has no experiment {number}", "autoresearch log lists them")
    if with_transcript:
        _print_transcript(number, conversation, as_json=as_json, full=full)
        return
    champion = next((one for one in experiments if one.number == experiment.champion), None)
    if as_json:
        facts = experiment_json(experiment, full=True)
        facts["rests_on"] = [asdict(one) for one in rests_on(experiment, champion)]
        facts["sealed"] = [asdict(one) for one in sealed]
        print_json(facts)
        return
    for line in _experiment_lines(experiment, champion, duty):
        click.echo(line)
    for score in sealed:
        click.echo(f"sealed test rows (as claimed): test_bpb {score.test_bpb:.6f}  seed {score.seed}")
    if experiment.diff:
        click.echo("\n" + experiment.diff.rstrip("\n"))
    if experiment.log_tail:
        click.echo("\nend of the training log (untrusted):\n" + experiment.log_tail)


@click.command("report")
@newest_tag_option
def report_command(tag: str | None) -> None:
    """Write results.tsv (karpathy's five columns), findings.tsv, sealed.tsv (test scores) and progress.png.

    Also prints what the campaign really found: the debiased gain, expected false keeps, and the sealed test gap.
    """
    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        experiments, sealed = workspace.ledger.experiments(name), sealed_scores(workspace.ledger, name)
        for line in campaign_notes(experiments, sealed):
            click.echo(line)
        for path in write_reports(experiments, sealed, workspace.paths, name):
            click.echo(f"wrote {path}")


def sealed_scores(ledger: Ledger, tag: str) -> tuple[SealedScore, ...]:
    """Read the scores on the sealed test rows: the only place where a command does.

    They go to people as plain arguments of `campaign_notes`, `write_reports` and `runner.report.sealed`.
    """
    from runner.storage.sealed import SealedScores

    return SealedScores(ledger.database).of(tag)


def count_effort(ledger: Ledger, tag: str, profile: str | None, budget_usd: float | None) -> Effort:
    """Read what went into a campaign.

    Args:
        budget_usd: 0: no limit; None: not known.
    """
    from runner.report.effort import Effort

    campaign = ledger.campaign(tag)
    return Effort(
        experiments=ledger.experiments(tag),
        usage=ledger.usage_totals(tag),
        target=0 if campaign is None else campaign.target,
        profile=profile,
        budget_usd=budget_usd,
    )


def campaign_notes(experiments: Sequence[Experiment], sealed: Sequence[SealedScore]) -> list[str]:
    """Describe refusals, sealed scores, findings, early stops and stacks; nothing about what there is none of."""
    from runner.decision.history import strikes
    from runner.report.explain import strikes_line
    from runner.report.findings import find, finding_lines
    from runner.report.notes import early_line, early_stops, stack_line, stacks
    from runner.report.sealed import sealed_gaps, sealed_line

    lines = [
        strikes_line(strikes(experiments)),
        sealed_line(sealed),
        *finding_lines(find(experiments, sealed_gaps(sealed))),
        early_line(early_stops(experiments)),
        stack_line(stacks(experiments)),
    ]
    return [line for line in lines if line is not None]


def write_reports(
    experiments: Sequence[Experiment], sealed: Sequence[SealedScore], paths: StatePaths, tag: str
) -> tuple[Path, ...]:
    """Write the files of a campaign's report; returns their paths."""
    from runner.report.findings import find, findings_tsv
    from runner.report.plot import progress_png
    from runner.report.sealed import sealed_gaps, sealed_tsv
    from runner.report.table import results_tsv
    from runner.storage.files import replace_file

    folder = paths.report(tag)
    tables = {
        "results.tsv": results_tsv(experiments),
        "sealed.tsv": sealed_tsv(sealed),
        "findings.tsv": findings_tsv(find(experiments, sealed_gaps(sealed))),
    }
    for name, text in tables.items():
        replace_file(folder / name, text.encode())
    plot = folder / "progress.png"
    progress_png(experiments, plot, f"autoresearch/{tag}")
    return (*(folder / name for name in tables), plot)


def _budget(directory: Path, profile: str | None) -> float | None:
    """Return what file and environment set now: the command line of a night is not in the ledger."""
    from runner import config

    try:
        return config.load(directory, {}, fallbacks={} if profile is None else {"profile": profile}).budget_usd
    except ConfigError:  # no reason to hide the other figures
        return None


def _status_json(campaign: CampaignRow, effort: Effort, sealed: Sequence[SealedScore]) -> dict[str, Any]:
    from runner.decision.history import strikes
    from runner.records import Verdict
    from runner.report.findings import find
    from runner.report.notes import early_stops, stacks
    from runner.report.sealed import sealed_gaps

    experiments = effort.experiments
    kept = [one for one in experiments if one.verdict is Verdict.KEEP]
    is_open = bool(experiments) and experiments[-1].verdict is None
    return {
        "tag": campaign.tag,
        "done": sum(one.verdict is not None for one in experiments[1:]),
        "target": campaign.target,
        "counts": {str(verdict): sum(one.verdict is verdict for one in experiments[1:]) for verdict in Verdict},
        "baseline_bpb": experiments[0].val_bpb if experiments else None,
        "best_bpb": kept[-1].val_bpb if kept else None,
        "best_commit": kept[-1].kept_commit if kept else None,
        "open_experiment": experiments[-1].number if is_open else None,
        "cost_usd": effort.usage.cost_usd,
        **effort.as_json(),
        "strikes": strikes(experiments),
        "sealed": [asdict(one) for one in sealed],
        "findings": asdict(find(experiments, sealed_gaps(sealed))),
        "early_stop": asdict(early_stops(experiments)),
        "stacks": asdict(stacks(experiments)),
    }


def _print_transcript(number: int, conversation: object, *, as_json: bool, full: bool) -> None:
    from runner.report.transcript import transcript

    if conversation is None:
        raise ConfigError(
            f"experiment {number} has no transcript: no language model proposed it", f"autoresearch show {number}"
        )
    if as_json:
        print_json(conversation)
    else:
        click.echo(transcript(conversation, full=full))


def _experiment_lines(experiment: Experiment, champion: Experiment | None, duty_name: str) -> list[str]:
    """Describe an experiment from its verdict to its runs."""
    from runner.records import TrialKind
    from runner.report.effort import duty, duty_line
    from runner.report.explain import audit_lines, basis_lines, explain, rests_on
    from runner.untrusted import one_line

    lines = [explain(experiment)]
    if basis := rests_on(experiment, champion):
        lines += ["the verdict rests on:", *basis_lines(basis)]
    for title, value in (
        ("tried commit", experiment.tried_commit),
        ("kept commit", experiment.kept_commit),
        ("image", experiment.image_id),
        ("layer", experiment.layer_digest),
    ):
        if value:
            lines.append(f"{title + ':':14s}{value}")
    for trial in (*experiment.trials, *experiment.control_trials):
        kind = "control" if trial.kind is TrialKind.CONTROL else "trial"
        why = "" if trial.reason is None else f": {one_line(trial.reason)}"
        lines.append(f"{kind} {trial.id}, seed {trial.seed}: {trial.outcome}{why}")
        for run in trial.runs:
            lines.append(_run_line(run))
            if run.audit is not None:
                lines += [f"    {line}" for line in audit_lines(run.audit)]
    hours = duty_line(duty([replace(experiment, control_trials=())]), None, duty_name)
    return lines if hours is None else [*lines, f"{hours} since it was proposed (times are whole seconds)"]


def _run_line(run: RunRecord) -> str:
    wall = "–" if run.wall_seconds is None else f"{run.wall_seconds:.2f} s"
    cpu = "–" if run.cpu_seconds is None else f"{run.cpu_seconds:.2f} s"
    others = "" if run.others_cpu_seconds is None else f"  others {run.others_cpu_seconds:.2f} s"
    clock = "" if run.clock_mhz is None else f"  {run.clock_mhz:,.0f} MHz"
    bpb = "" if run.val_bpb is None else f"  val_bpb {run.val_bpb:.6f}"
    return f"  {run.phase:6s} {run.end:13s} wall {wall}  cpu {cpu}{others}{clock}{bpb}"
