"""Commands that run experiments: baseline, overnight, try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.options import campaign_options, json_option, proposer_options, resolve_config
from runner.cli.output import say
from runner.cli.workspace import as_json as experiment_json
from runner.cli.workspace import log_to_file, open_workspace, print_json
from runner.errors import AutoresearchError

if TYPE_CHECKING:
    from runner.campaign.campaign import Controller
    from runner.campaign.stop_switch import StopSwitch
    from runner.cli.workspace import Workspace
    from runner.config import Config
    from runner.records import Experiment


@contextmanager
def open_night(
    check: Callable[[Config, Workspace], object] = lambda *_: None,
    *,
    commit: str | None = None,
    verdicts: bool = True,
    **settings: Any,
) -> Iterator[tuple[Controller, StopSwitch]]:
    """A prepared machine under the controller's lock, with signals and progress in place.

    Args:
        check: looks at settings and records before anything is set up, and may raise.
        commit: to study; its campaign supplies the name and the settings that are not among `settings`.
        verdicts: whether progress has a line for each verdict.
    """
    from runner.campaign import setup
    from runner.campaign.stop_switch import StopSwitch
    from runner.cli.display import observing
    from runner.sandbox import doctor, reservation, swept_when_interrupted
    from runner.storage.lock import exclusive

    with open_workspace(create=True) as workspace:
        if commit is not None:
            settings = _with_campaign_of(commit, workspace, settings)
        config = resolve_config(workspace.repository.root, say, recorded=workspace.recorded, **settings)
        check(config, workspace)
        doctor.check_names(config.accept)
        stop = StopSwitch()
        with (
            exclusive(workspace.paths.root),
            observing(verdicts=verdicts) as observer,
            stop.installed(observer.note),
        ):
            log_to_file(workspace.paths.log(config.tag))
            prepared = setup.prepare(config, ledger=workspace.ledger, paths=workspace.paths, observer=observer)
            doctor.announce(prepared.engine, config, observer.note)
            claimant = reservation.Claimant(
                controller=workspace.ledger.controller, campaign=config.tag, folder=workspace.repository.root
            )
            with (
                reservation.reserve(prepared.engine, config, claimant) as reserved,
                swept_when_interrupted(prepared.engine, workspace.ledger.controller),
            ):
                yield (
                    setup.open_controller(
                        reserved,
                        prepared,
                        repository=workspace.repository,
                        ledger=workspace.ledger,
                        paths=workspace.paths,
                        observer=observer,
                    ).listening(lambda: stop.requested),
                    stop,
                )


def _with_campaign_of(commit: str, workspace: Workspace, settings: dict[str, Any]) -> dict[str, Any]:
    """Fill in what was left out: a study of a past campaign makes sense under no other settings."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "tag" not in given and (tag := workspace.campaign_of(commit)) is not None:
        given["tag"] = tag
    recorded = workspace.recorded(given["tag"]) if "tag" in given else {}
    return {**settings, **recorded, **given}


@click.command("overnight")
@campaign_options
@proposer_options
@json_option
def overnight_command(as_json: bool, **settings: Any) -> None:
    """Run experiments until a limit (hours, experiments, or dollars) is reached or you press Ctrl-C.

    A campaign of the same name continues where it stopped. Ctrl-C once: finish the current run and stop. Twice:
    kill it now; no container is left, and the next start repeats the run.
    """
    from runner.campaign import night
    from runner.cli.status import campaign_notes, count_effort, sealed_scores
    from runner.proposers import create
    from runner.report.summary import summarize

    # Report a missing key or patch folder before anything is set up.
    with open_night(lambda config, _: create(config), **settings) as (controller, stop):
        try:
            reason = night.run(controller, create(controller.config), stop)
        except BaseException:
            with suppress(AutoresearchError, OSError):  # what ended the night is what people must read
                write_night_reports(controller)
            raise
        files = write_night_reports(controller)
        experiments = controller.ledger.experiments(controller.config.tag)
        notes = [
            *campaign_notes(experiments, sealed_scores(controller.ledger, controller.config.tag)),
            *count_effort(
                controller.ledger,
                controller.config.tag,
                experiments,
                summarize(experiments),
                (controller.config.profile, controller.config.budget_usd),
            ).lines(),
        ]
    _finish(experiments, notes, controller, reason, files, json_wanted=as_json)


@click.command("baseline")
@click.option(
    "--repeats",
    type=click.IntRange(0),
    default=0,
    help="Run so many more trials of it; candidates are compared with these as well.",
)
@campaign_options
@json_option
def baseline_command(repeats: int, as_json: bool, **settings: Any) -> None:
    """Measure the unmodified workload several times, which also measures the noise.

    With --repeats, prints mean, standard deviation, and noise with its degrees of freedom. Repeats count as
    trials of experiment 0, even if another experiment is the champion by now.
    """
    from runner.campaign.baseline import ensure_baseline, measure_again
    from runner.campaign.night import open_campaign
    from runner.report.notes import measure_noise, noise_line

    with open_night(**settings) as (controller, stop):
        campaign = open_campaign(controller)
        baseline = ensure_baseline(campaign)
        asked = 0
        while asked < repeats and not stop.requested:
            baseline = measure_again(campaign)
            asked += 1
        noise = measure_noise(campaign.experiments, controller.config)
    if as_json:
        print_json({**experiment_json(baseline, full=True), "noise": asdict(noise)})
        return
    _print_experiment(baseline, json_wanted=False)
    click.echo(noise_line(noise))
    if asked < repeats:
        click.echo(f"stopped after {asked} of {repeats} repeats; the rest: --repeats {repeats - asked}")


@click.command("try")
@click.argument("patch", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@campaign_options
@json_option
def try_command(patch: Path, as_json: bool, **settings: Any) -> None:
    """Take PATCH, a git unified diff against the repository root, through the whole pipeline.

    It is an experiment of the campaign like any other: recorded, and accepted onto the tip if it is probably
    better. A patch that does not apply to the tip is an error, and no experiment. The exit code is 1 when it got
    no score: refused, crashed, or lost to infrastructure.
    """
    from runner.campaign import night
    from runner.campaign.tip_control import tip_workload
    from runner.errors import Interrupted
    from runner.proposers.replay import SinglePatch
    from runner.records import Verdict

    proposer = SinglePatch(patch)

    def check(config: Config, records: Workspace | Controller) -> None:
        proposer.check(tip_workload(records.ledger, records.repository, config.tag))

    with open_night(check, **settings) as (controller, stop):
        reason = night.run(controller, proposer, stop, more=1)
        ledger, tag = controller.ledger, controller.config.tag
        tried = ledger.experiment(tag, ledger.num_experiments(tag) - 1)
        assert tried is not None
        if not proposer.used:
            check(controller.config, controller)  # an interrupted experiment may have been kept first
    if tried.proposer != proposer.name or not proposer.used:
        raise Interrupted(f"the patch was not tried: {reason}", "run the same command again to continue")
    if tried.verdict is None:
        raise Interrupted("the patch was stopped between two runs", "the next start of this campaign continues it")
    _print_experiment(tried, json_wanted=as_json)
    raise SystemExit(0 if tried.verdict in (Verdict.ACCEPT, Verdict.DISCARD) else 1)


def _print_experiment(experiment: Experiment, *, json_wanted: bool) -> None:
    from runner.report.explain import explain

    if json_wanted:
        print_json(experiment_json(experiment, full=True))
    else:
        click.echo(explain(experiment))


def write_night_reports(controller: Controller) -> tuple[Path, ...]:
    """Write the files of the report of a controller's campaign; returns their paths."""
    from runner.cli.status import sealed_scores, write_reports
    from runner.storage.paths import StatePaths

    tag = controller.config.tag
    experiments, sealed = controller.ledger.experiments(tag), sealed_scores(controller.ledger, tag)
    return write_reports(experiments, sealed, StatePaths.of(controller.repository.root), tag)


def _finish(
    experiments: tuple[Experiment, ...],
    notes: list[str],
    controller: Controller,
    reason: str,
    files: tuple[Path, ...],
    *,
    json_wanted: bool,
) -> None:
    from runner.cli.display import first_line, print_table
    from runner.report.summary import summary_text

    if json_wanted:
        for experiment in experiments:
            print_json(experiment_json(experiment))
        return
    print_table(experiments)
    click.echo("\n".join([summary_text(experiments), *notes]))
    commits = [one for one in experiments if one.number > 0 and one.kept_commit]
    number = f"{len(commits)} kept commit{'' if len(commits) == 1 else 's'}"
    click.echo(f"\n{reason}; branch {controller.branch} has {number}{':' if commits else ''}")
    for one in reversed(commits):
        click.echo(f"  {(one.kept_commit or '')[:10]}  {one.val_bpb:.6f}  {first_line(one.hypothesis)}")
    for path in files:
        click.echo(f"wrote {path}")
