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
from runner.errors import ConfigError, DiskFullError

if TYPE_CHECKING:
    from collections import Counter

    from runner.config import Config
    from runner.records import Experiment, RunRecord, SealedScore
    from runner.report.effort import Effort
    from runner.report.findings import Findings
    from runner.report.notes import Certificates, EarlyStops
    from runner.report.overview import Overview
    from runner.report.summary import Summary
    from runner.storage.ledger import Ledger
    from runner.storage.paths import StatePaths
    from runner.storage.rows import CampaignRow


@click.command("status")
@newest_tag_option
@json_option
def status_command(tag: str | None, as_json: bool) -> None:
    """Show where the campaign stands: champion, tip, ideas, time, cost, and what is running."""
    from runner.report.overview import overview
    from runner.report.sealed import sealed_gaps
    from runner.report.summary import summary_paragraph
    from runner.report.tip_progress import tip_line
    from runner.storage.lock import is_running

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        campaign = workspace.ledger.campaign(name)
        assert campaign is not None
        sealed = sealed_scores(workspace.ledger, name)
        found = overview(workspace.ledger, name, sealed_gaps(sealed))
        profile = campaign.conditions.get("profile")
        config = _settings(workspace.repository.root, profile)
        budget = None if config is None else config.budget_usd
        effort = count_effort(workspace.ledger, name, found.newest, found.summary, (profile, budget))
    running = is_running(workspace.paths.root)
    if as_json:
        print_json({"running": running, **_status_json(campaign, effort, found, sealed)})
        return
    state = "running" if running else "not running"
    done, last = found.summary.num_experiments, found.newest[-1] if found.newest else None
    wanted = f" of {campaign.target}" if done <= campaign.target else ""  # `try` goes beyond the target
    click.echo(f"campaign {name} ({state}): {done}{wanted} experiments")
    if last is not None and (last.number > 0 or last.verdict is not None):
        click.echo("\n".join([summary_paragraph(found.summary), *_status_notes(found, sealed)]))
    if found.champion is not None:
        click.echo(tip_line(found.tip, found.summary.sigma_bpb, config))
    if last is not None and last.verdict is None:
        from runner.cli.display import first_line

        state = "in progress" if running else "interrupted, resumes at the next start"
        click.echo(f"experiment {last.number} ({state}): {first_line(last.hypothesis)}")
    for line in effort.lines():
        click.echo(line)


@click.command("log")
@newest_tag_option
@json_option
@click.option("--last", type=click.IntRange(1), metavar="N", help="List only the last N experiments.")
@click.option("--kept", is_flag=True, help="List only what was ever champion: the baseline and certified tips.")
def log_command(tag: str | None, last: int | None, kept: bool, as_json: bool) -> None:
    """List all experiments in one table, failed ones included, with how sure it is that each one helps."""
    from runner.cli.display import print_table

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        ledger = workspace.ledger
        first = 0 if last is None or kept else max(0, ledger.num_experiments(name) - last)
        experiments = ledger.kept_experiments(name) if kept else ledger.experiments(name, first)
        experiments = experiments if last is None else experiments[-last:]
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
@click.option("--full", is_flag=True, help="Do not fold long parts of the transcript.")
def show_command(number: int, tag: str | None, as_json: bool, with_transcript: bool, full: bool) -> None:
    """Explain experiment ID: the reason for its verdict, its diff, its runs, and the end of its log."""
    from runner.decision.history import rulings
    from runner.report.effort import duty_name
    from runner.report.explain import rests_on

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        conversation = workspace.ledger.conversations.transcript(name, number) if with_transcript else None
        experiment = workspace.ledger.experiment(name, number)
        parent = None if experiment is None else experiment.parent
        other = None if parent is None else workspace.ledger.experiment(name, parent)
        ruling = rulings(workspace.ledger.lineage(name)).get(number)
        sealed = [one for one in sealed_scores(workspace.ledger, name) if one.number == number]
        duty = duty_name(workspace.recorded(name).get("profile"))
    if experiment is None:
        raise ConfigError(f"campaign {name!r} has no experiment {number}", "autoresearch log lists them")
    if with_transcript:
        _print_transcript(number, conversation, as_json=as_json, full=full)
        return
    if as_json:
        facts = experiment_json(experiment, full=True)
        facts["ruled_by"] = None if ruling is None else ruling.number
        facts["rests_on"] = [asdict(one) for one in rests_on(experiment, other)]
        facts["sealed"] = [asdict(one) for one in sealed]
        print_json(facts)
        return
    for line in _experiment_lines(experiment, other, ruling, duty):
        click.echo(line)
    for score in sealed:
        click.echo(f"sealed test rows (as claimed): test_bpb {score.test_bpb:.6f}  seed {score.seed}")
    if experiment.diff:
        click.echo("\n" + experiment.diff.rstrip("\n"))
    if experiment.log_tail:
        click.echo("\nend of the training log (untrusted):\n" + experiment.log_tail)


@click.command("report")
@newest_tag_option
@click.option("--no-files", is_flag=True, help="Print only, and write no files.")
def report_command(tag: str | None, no_files: bool) -> None:
    """Write results.tsv (karpathy's five columns), findings.tsv, sealed.tsv (test scores), and progress.png.

    Also prints the gain corrected for luck, the expected number of false keeps, and the sealed test gap.
    """
    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        experiments, sealed = workspace.ledger.experiments(name), sealed_scores(workspace.ledger, name)
        for line in campaign_notes(experiments, sealed):
            click.echo(line)
        if no_files:
            return
        try:
            files = write_reports(experiments, sealed, workspace.paths, name)
        except DiskFullError as error:
            raise DiskFullError(error.message, f"autoresearch report --no-files, or: {error.remedy}") from error
    for path in files:
        click.echo(f"wrote {path}")


def sealed_scores(ledger: Ledger, tag: str) -> tuple[SealedScore, ...]:
    """Read the scores on the sealed test rows: the only place where a command does.

    They go to people as plain arguments of `campaign_notes`, `write_reports` and `runner.report.sealed`.
    """
    from runner.storage.sealed import SealedScores

    return SealedScores(ledger.database).of(tag)


def count_effort(
    ledger: Ledger,
    tag: str,
    experiments: tuple[Experiment, ...],
    summary: Summary,
    conditions: tuple[str | None, float | None],
) -> Effort:
    """Read what went into a campaign.

    Args:
        experiments: all, or the newest ones.
        summary: of the whole campaign.
        conditions: its profile, and its budget in USD: 0: no limit; None: not known.
    """
    from runner.report.effort import Effort

    campaign = ledger.campaign(tag)
    profile, budget_usd = conditions
    return Effort(
        experiments=experiments,
        summary=summary,
        usage=ledger.conversations.usage_totals(tag),
        target=0 if campaign is None else campaign.target,
        profile=profile,
        budget_usd=budget_usd,
    )


def campaign_notes(experiments: Sequence[Experiment], sealed: Sequence[SealedScore]) -> list[str]:
    """Describe refusals, sealed scores, findings, early stops, certificates: only those there are."""
    from runner.decision.history import strikes
    from runner.report.findings import find
    from runner.report.notes import certificates, early_stops
    from runner.report.sealed import sealed_gaps

    found = find(experiments, sealed_gaps(sealed))
    return _note_lines(strikes(experiments), sealed, found, early_stops(experiments), certificates(experiments))


def _status_notes(found: Overview, sealed: Sequence[SealedScore]) -> list[str]:
    return _note_lines(found.strikes, sealed, found.findings, found.early_stops, found.certificates)


def _note_lines(
    strikes: Counter[int],
    sealed: Sequence[SealedScore],
    findings: Findings,
    early: EarlyStops,
    certified: Certificates,
) -> list[str]:
    from runner.report.explain import strikes_line
    from runner.report.findings import finding_lines
    from runner.report.notes import certificate_line, early_line
    from runner.report.sealed import sealed_line

    lines = [
        strikes_line(strikes),
        sealed_line(sealed),
        *finding_lines(findings),
        early_line(early),
        certificate_line(certified),
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


def _settings(directory: Path, profile: str | None) -> Config | None:
    """Return what file and environment set now: the command line of a night is not in the ledger."""
    from runner import config

    try:
        return config.load(directory, {}, fallbacks={} if profile is None else {"profile": profile})
    except ConfigError:  # no reason to hide the other figures
        return None


def _status_json(
    campaign: CampaignRow, effort: Effort, found: Overview, sealed: Sequence[SealedScore]
) -> dict[str, Any]:
    from runner.records import Verdict

    last = found.newest[-1] if found.newest else None
    best = found.champion
    return {
        "tag": campaign.tag,
        "done": found.summary.num_experiments,
        "target": campaign.target,
        "counts": {str(verdict): found.summary.counts[verdict] for verdict in Verdict},
        "baseline_bpb": found.summary.baseline_bpb,
        "best_bpb": found.summary.best_bpb,
        "gain_bpb": found.summary.gain_bpb,
        "champion": found.summary.champion,
        "best_commit": None if best is None else best.kept_commit,
        "open_experiment": last.number if last is not None and last.verdict is None else None,
        "cost_usd": effort.usage.cost_usd,
        **effort.as_json(),
        "strikes": found.strikes,
        "sealed": [asdict(one) for one in sealed],
        "findings": asdict(found.findings),
        "early_stop": asdict(found.early_stops),
        "certificates": asdict(found.certificates),
        "tip": asdict(found.tip),
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


def _experiment_lines(
    experiment: Experiment, other: Experiment | None, ruling: Experiment | None, duty_name: str
) -> list[str]:
    """Describe an experiment from its verdict to its runs.

    Args:
        other: what it was compared with.
        ruling: the certificate that decided on it, if it was accepted.
    """
    from runner.records import TrialKind, Verdict
    from runner.report.effort import duty, duty_line
    from runner.report.explain import audit_lines, basis_lines, explain, level_line, pair_lines, rests_on, ruled
    from runner.untrusted import one_line

    lines = [explain(experiment)]
    if experiment.verdict is Verdict.ACCEPT:
        lines.append(ruled(ruling))
    if (level := level_line(experiment)) is not None:
        lines.append(level)
    lines += pair_lines(experiment, other)
    if basis := rests_on(experiment, other):
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
    return lines if hours is None else [*lines, f"{hours} since it was proposed (times in whole seconds)"]


def _run_line(run: RunRecord) -> str:
    wall = "–" if run.wall_seconds is None else f"{run.wall_seconds:.2f} s"
    cpu = "–" if run.cpu_seconds is None else f"{run.cpu_seconds:.2f} s"
    others = "" if run.others_cpu_seconds is None else f"  others {run.others_cpu_seconds:.2f} s"
    clock = "" if run.clock_mhz is None else f"  {run.clock_mhz:,.0f} MHz"
    bpb = "" if run.val_bpb is None else f"  val_bpb {run.val_bpb:.6f}"
    return f"  {run.phase:6s} {run.end:13s} wall {wall}  cpu {cpu}{others}{clock}{bpb}"
