"""The whole examination, and the short one at the start of a campaign."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from runner.config import Config, load
from runner.errors import AutoresearchError, ConfigError, EngineError, LedgerError
from runner.sandbox import Engine, connect, images, remove_orphans
from runner.sandbox.cards import sizes_at_head
from runner.sandbox.containers import Owner, Sandbox
from runner.sandbox.doctor import daemon, host
from runner.sandbox.doctor.finding import Finding, accepting, check_names
from runner.sandbox.doctor.probes import probe
from runner.sandbox.doctor.versions import collect, driver_finding, version_findings
from runner.sandbox.engine import engine_errors
from runner.sandbox.reservation import Claimant, reserve
from runner.storage import pinned_evaluation
from runner.storage.filesystem import this_file_system
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths
from runner.storage.repository import Repository

log = structlog.get_logger()

CAMPAIGN = ":doctor"
"""Campaign in the labels of the probes' containers and images; no real campaign can have this name."""


def examine(
    directory: Path, *, probes: bool, pause_daemon: bool, on_progress: Callable[[str], None]
) -> list[Finding]:
    """Examine everything; returns the findings in the order in which a person would fix them.

    Args:
        directory: a folder in the repository.
        probes: also start containers, and test what they prevent.
        pause_daemon: probes may stop the engine's daemon for some seconds, where that disturbs no other program.
        on_progress: called with a message before each slow step.

    Raises:
        ConfigError: the setting `accept` names a finding that does not exist.
    """
    repository = _root(directory)
    root = repository or directory
    gpus, broken = host.seen_gpus()
    config, settings = _settings(root, "cuda" if gpus else "cpu")
    check_names(config.accept)
    chosen, gpu = host.choose_gpu(config, gpus, sizes_at_head(root))
    findings = [
        settings,
        Finding(name="python", level="ok", fact=platform.python_version()),
        host.git_finding(directory),
        host.locked_finding(),
        host.key_finding(),
        broken or gpu,
        Finding(name="cores", level="ok", fact=str(len(os.sched_getaffinity(0)))),
        *host.disk_findings("", root, config.profile),
        host.file_system_finding(this_file_system(root)),
        host.clock_finding(time.time(), host.clock_state()),
    ]
    try:
        engine = connect(config.docker_host)
    except AutoresearchError as error:
        findings.append(Finding(name="docker", level="problem", fact=error.message, remedy=error.remedy))
        return accepting([*findings, *version_findings(None, config.profile)], config.accept)
    try:
        findings += host.engine_findings(engine, engine.client.info(), chosen, time.time())
        base = images.find_base(engine.client, config.profile)
        findings += [host.base_finding(base), *version_findings(engine, config.profile)]
        if probes:
            # A GPU that the settings do not name is left to the reservation: another campaign may have the first.
            reserved = config if config.gpu is None else chosen
            findings += _probe(engine, reserved, base, repository, pause_daemon, on_progress)
        return accepting(findings, config.accept)
    finally:
        engine.client.close()


def refuse_unfit(engine: Engine, config: Config) -> None:
    """Refuse an engine or a driver with which no candidate can run, before anything is built or downloaded.

    Problems that the operator accepts are skipped.

    Raises:
        EngineError: names the setting or the version.
    """
    with engine_errors("asking the engine for its limits"):
        findings = host.limit_findings(engine.client.info())
    if config.profile == "cuda":
        findings.append(driver_finding())
    for one in accepting(findings, config.accept):
        if one.level == "problem":
            raise EngineError(f"{one.fact}: {one.reason}", one.remedy)


def announce(engine: Engine, config: Config, note: Callable[[str], None]) -> None:
    """Report and log known flaws of the versions here at the start of a campaign; takes less than a second.

    Raises:
        EngineError: the engine stopped answering.
    """
    findings = accepting(version_findings(engine, config.profile), config.accept)
    wrong = [one.name for one in findings if one.level == "problem"]
    log.info("versions_examined", open=wrong, accepted=dict(config.accept))
    if wrong:
        count = f"{len(wrong)} finding{'' if len(wrong) == 1 else 's'} on versions"
        note(f"{count} ({', '.join(wrong)}): autoresearch doctor --fast explains them")


def _root(directory: Path) -> Path | None:
    try:
        return Repository(directory).root
    except AutoresearchError:
        return None  # a finding of its own


def _settings(root: Path, profile: host.Profile) -> tuple[Config, Finding]:
    """The settings of a campaign here; the defaults when they are invalid, so that the rest is examined too."""
    fallbacks = {"profile": profile}
    try:
        config = load(root, {}, fallbacks=fallbacks)
    except ConfigError as error:
        config = load(root / "nowhere", {}, environ={}, fallbacks=fallbacks)
        return config, Finding(
            name="settings",
            level="problem",
            fact=error.message,
            reason="no campaign starts; the rest is examined with the default settings",
            remedy=error.remedy,
        )
    return config, Finding(name="settings", level="ok", fact=f"profile {config.profile}")


def _probe(
    engine: Engine,
    config: Config,
    base: str | None,
    root: Path | None,
    pause_daemon: bool,
    on_progress: Callable[[str], None],
) -> list[Finding]:
    """Run the probes, unless a campaign has the lock or another controller's containers share the cores."""
    if base is None:
        return [_not_probed("there is no base image yet", "autoresearch prepare")]
    if root is None:
        return [_not_probed("there is no repository here to lock", "run it inside your repository")]
    paths = StatePaths.of(root)
    try:
        with exclusive(paths.root), Ledger(paths.ledger) as ledger:
            owner = Owner(controller=ledger.controller, campaign=CAMPAIGN, experiment=0)
            remove_orphans(engine, owner.controller)
            controllers = daemon.running_others(engine, owner.controller).of_controllers
            if controllers:
                return [
                    _not_probed(
                        f"{controllers} containers of another controller run on this engine",
                        "try again when its campaign has ended",
                    )
                ]
            folder, _ = pinned_evaluation.pin(paths.root)
            claimant = Claimant(controller=owner.controller, campaign=CAMPAIGN, folder=root)
            with reserve(engine, config, claimant) as reserved:
                return probe(
                    Sandbox(engine=engine, config=reserved, locked=folder, owner=owner),
                    base_image=base,
                    scratch=paths.probes,
                    torch_version=collect(None, config.profile)["torch-version"],
                    pause_daemon=pause_daemon,
                    on_progress=on_progress,
                )
    except LedgerError as error:
        return [_not_probed(error.message, "try again when it has ended")]
    except AutoresearchError as error:
        return [Finding(name="probes", level="problem", fact=error.message, remedy=error.remedy)]


def _not_probed(why: str, remedy: str) -> Finding:
    return Finding(
        name="probes",
        level="note",
        fact=f"no container was probed: {why}",
        reason="versions and settings alone do not show what a container prevents",
        remedy=remedy,
    )
