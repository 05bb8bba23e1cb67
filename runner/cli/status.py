"""Commands that read the ledger: status, log, show, report. They need no engine and no lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.options import json_option, newest_tag_option
from runner.cli.workspace import as_json as experiment_json
from runner.cli.workspace import choose_tag, open_workspace, print_json

if TYPE_CHECKING:
    from runner.records import Experiment, SealedScore
    from runner.storage.ledger import Ledger
    from runner.storage.paths import StatePaths


@click.command("status")
@newest_tag_option
@json_option
def status_command(tag: str | None, as_json: bool) -> None:
    """Where the campaign stands: done, best, kept, spent, and what runs now."""
    from runner.cli.display import first_line
    from runner.cli.effort import read_effort
    from runner.decision.lineage import strikes
    from runner.records import Verdict
    from runner.report.early import early_stops
    from runner.report.findings import find
    from runner.report.stacks import stacks
    from runner.report.table import summary
    from runner.storage.lock import is_running

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        campaign = workspace.ledger.campaign(name)
        assert campaign is not None
        experiments = workspace.ledger.experiments(name)
        effort = read_effort(workspace, campaign)
        sealed = workspace.ledger.sealed(name)
    running = is_running(workspace.paths.root)
    counts = {str(verdict): sum(one.verdict is verdict for one in experiments[1:]) for verdict in Verdict}
    done = sum(one.verdict is not None for one in experiments[1:])
    kept = [one for one in experiments if one.verdict is Verdict.KEEP]
    open_one = experiments[-1] if experiments and experiments[-1].verdict is None else None
    if as_json:
        print_json(
            {
                "tag": name,
                "running": running,
                "done": done,
                "target": campaign.target,
                "counts": counts,
                "baseline_bpb": experiments[0].val_bpb if experiments else None,
                "best_bpb": kept[-1].val_bpb if kept else None,
                "best_commit": kept[-1].kept_commit if kept else None,
                "open_experiment": None if open_one is None else open_one.number,
                "cost_usd": effort.usage.cost_usd,
                **effort.as_json(),
                "strikes": strikes(experiments),
                "sealed": [asdict(one) for one in sealed],
                "findings": asdict(find(experiments, sealed)),
                "early_stop": asdict(early_stops(experiments)),
                "stacks": asdict(stacks(experiments)),
            }
        )
        return
    state = "running" if running else "not running"
    click.echo(f"campaign {name} ({state}): {done} of {campaign.target} experiments")
    if experiments and experiments[0].verdict is not None:
        click.echo("\n".join([summary(experiments), *honesty_lines(experiments, sealed)]))
    if open_one is not None:
        verb = "now" if running else "interrupted, goes on at the next start"
        click.echo(f"experiment {open_one.number} ({verb}): {first_line(open_one.hypothesis)}")
    for line in effort.lines():
        click.echo(line)


@click.command("log")
@newest_tag_option
@json_option
def log_command(tag: str | None, as_json: bool) -> None:
    """Every experiment in one table, the failed ones included."""
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
@click.option("--transcript", "with_transcript", is_flag=True, help="What the language model said instead.")
@click.option("--full", is_flag=True, help="Fold nothing of the transcript.")
def show_command(number: int, tag: str | None, as_json: bool, with_transcript: bool, full: bool) -> None:
    """Experiment ID: why its verdict, its diff, its runs, the end of its log."""
    from runner.cli.effort import duty_word
    from runner.errors import ConfigError
    from runner.report.audits import audit_lines
    from runner.report.duty import duty, duty_line
    from runner.report.explain import basis_lines, explain, rests_on
    from runner.report.transcript import transcript

    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        talk = workspace.ledger.transcript(name, number) if with_transcript else None
        experiments = workspace.ledger.experiments(name)
        experiment = next((one for one in experiments if one.number == number), None)
        sealed = [one for one in workspace.ledger.sealed(name) if one.number == number]
        word = duty_word(workspace.profile_of(name))
    if experiment is None:
        raise ConfigError(f"campaign {name!r} has no experiment {number}", "autoresearch log lists them")
    if with_transcript:
        if talk is None:
            raise ConfigError(
                f"there is no transcript of experiment {number}: no language model proposed it",
                f"autoresearch show {number}",
            )
        if as_json:
            print_json(talk)
        else:
            click.echo(transcript(talk, full=full))
        return
    basis = rests_on(experiment, next((one for one in experiments if one.number == experiment.champion), None))
    if as_json:
        facts = experiment_json(experiment, full=True)
        facts |= {"rests_on": [asdict(one) for one in basis], "sealed": [asdict(one) for one in sealed]}
        print_json(facts)
        return
    click.echo(explain(experiment))
    if basis:
        click.echo("\n".join(["the verdict rests on:", *basis_lines(basis)]))
    for title, value in (
        ("tried commit", experiment.tried_commit),
        ("kept commit", experiment.kept_commit),
        ("image", experiment.image_id),
        ("layer", experiment.layer_digest),
    ):
        if value:
            click.echo(f"{title + ':':14s}{value}")
    trials = () if experiment.figures is None else experiment.figures.trials
    for run in (*experiment.runs, *experiment.controls):
        wall = "–" if run.wall_seconds is None else f"{run.wall_seconds:.2f} s"
        cpu = "–" if run.cpu_seconds is None else f"{run.cpu_seconds:.2f} s"
        others = "" if run.others_cpu_seconds is None else f"  others {run.others_cpu_seconds:.2f} s"
        clock = "" if run.clock_mhz is None else f"  {run.clock_mhz:,.0f} MHz"
        bpb = "" if run.val_bpb is None else f"  val_bpb {run.val_bpb:.6f}"
        part = "  control" if run in experiment.controls else "  look" if run.id in trials else ""
        click.echo(
            f"run {run.id or 0:<5d} {run.phase:6s} seed {run.seed:<10d} {run.end:13s} wall {wall}  cpu {cpu}"
            f"{others}{clock}{bpb}{part}"
        )
        if run.audit is not None:
            click.echo("\n".join(f"    {line}" for line in audit_lines(run.audit)))
    effort = duty_line(duty([replace(experiment, controls=())]), None, word)
    if effort is not None:
        click.echo(f"{effort} since it was proposed (times are whole seconds)")
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

    Prints what the campaign really found: effects shrunken for selection, false keeps to expect, sealed test gap.
    """
    with open_workspace(create=False) as workspace:
        name = choose_tag(workspace.ledger, tag)
        for line in honesty_lines(workspace.ledger.experiments(name), workspace.ledger.sealed(name)):
            click.echo(line)
        for path in write_reports(workspace.ledger, workspace.paths, name):
            click.echo(f"wrote {path}")


def honesty_lines(experiments: Sequence[Experiment], sealed: Sequence[SealedScore]) -> list[str]:
    """Strikes, sealed scores, what was found, stopped early and tried together, as far as there is something."""
    from runner.decision.lineage import strikes
    from runner.report.audits import sealed_line, strikes_line
    from runner.report.early import early_line, early_stops
    from runner.report.findings import find, finding_lines
    from runner.report.stacks import stack_line, stacks

    first = [line for line in (strikes_line(strikes(experiments)), sealed_line(sealed)) if line is not None]
    last = [early_line(early_stops(experiments)), stack_line(stacks(experiments))]
    return [*first, *finding_lines(find(experiments, sealed)), *(line for line in last if line is not None)]


def write_reports(ledger: Ledger, paths: StatePaths, tag: str) -> tuple[Path, ...]:
    """Write the files of a campaign's report; returns their paths."""
    from runner.report.audits import sealed_tsv
    from runner.report.findings import find, findings_tsv
    from runner.report.plot import progress_png
    from runner.report.tsv import results_tsv
    from runner.storage.files import replace_file

    experiments, sealed = ledger.experiments(tag), ledger.sealed(tag)
    folder = paths.report(tag)
    tables = {
        "results.tsv": results_tsv(experiments),
        "sealed.tsv": sealed_tsv(sealed),
        "findings.tsv": findings_tsv(find(experiments, sealed)),
    }
    for name, text in tables.items():
        replace_file(folder / name, text.encode())
    plot = folder / "progress.png"
    progress_png(experiments, plot, f"autoresearch/{tag}")
    return (*(folder / name for name in tables), plot)
