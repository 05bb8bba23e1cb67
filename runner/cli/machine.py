"""Commands about this machine: doctor, prepare, config, clean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runner.cli.options import campaign_options, json_option, resolve_config
from runner.cli.workspace import log_to_file, open_workspace, print_json

MARKS = {"ok": ("✓", "green"), "note": ("•", "yellow"), "problem": ("✗", "red"), "accepted": ("≈", "cyan")}


@click.command("doctor")
@click.option("--fast", is_flag=True, help="Check versions and settings only; start no containers.")
@click.option("--no-pause", is_flag=True, help="Never pause the engine's daemon, even for a few seconds.")
@json_option
def doctor_command(fast: bool, no_pause: bool, as_json: bool) -> None:
    """Check versions, engine, GPU, disk, git, key, and images, and probe what containers prevent.

    The exit code is 1 when there is a problem that the setting `accept` does not accept.
    """
    from runner.sandbox.doctor import examine

    findings = examine(
        Path.cwd(),
        probes=not fast,
        pause_daemon=not no_pause,
        on_progress=lambda doing: click.echo(f"{doing} …", err=True),
    )
    for finding in findings:
        if as_json:
            print_json(vars(finding))
            continue
        mark, color = MARKS[finding.level]
        click.secho(f"{mark} ", fg=color, nl=False)
        click.echo(f"{finding.name}: {finding.fact}")
        if finding.level != "ok":
            for text in (finding.reason, finding.accepted and f"accepted: {finding.accepted}"):
                if text:
                    click.echo(f"    {text}")
            if finding.remedy and finding.accepted is None:
                click.echo(f"    → {finding.remedy}")
    raise SystemExit(1 if any(finding.level == "problem" for finding in findings) else 0)


@click.command("prepare")
@campaign_options
@click.option("--force", is_flag=True, help="Prepare the data again.")
@json_option
def prepare_command(force: bool, as_json: bool, **settings: Any) -> None:
    """Build the base image and prepare the data, unless they exist, and check their hashes."""
    from runner.campaign import setup
    from runner.cli.display import observing
    from runner.storage.lock import exclusive

    with open_workspace(create=True) as workspace:
        config = resolve_config(
            workspace.repository.root, lambda text: click.echo(text, err=True), needs_gpu=False, **settings
        )
        with exclusive(workspace.paths.root), observing() as observer:
            log_to_file(workspace.paths.log("prepare"))
            prepared = setup.prepare(
                config, ledger=workspace.ledger, paths=workspace.paths, observer=observer, force=force
            )
    facts = {
        "engine": prepared.engine.version,
        "base_image": prepared.base_image,
        "evaluation": prepared.locked_digest,
        "data": str(prepared.data.path),
        "data_sha256": prepared.data.manifest_sha256,
    }
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            click.echo(f"{name + ':':13s}{value}")


@click.command("config")
@campaign_options
@json_option
def config_command(as_json: bool, **settings: Any) -> None:
    """Show every setting with its value from the environment, files and options."""
    from runner.storage.repository import Repository

    config = resolve_config(
        Repository(Path.cwd()).root, lambda text: click.echo(text, err=True), needs_gpu=False, **settings
    )
    values = config.model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    for name, field in type(config).model_fields.items():
        click.echo(f"{name:20s} {values[name]!s:24s} {field.description or ''}")


@click.command("clean")
@click.option("--base", is_flag=True, help="Also remove the base images; the next start rebuilds them.")
@click.option("--data", is_flag=True, help="Also remove downloaded and prepared data and packages.")
def clean_command(base: bool, data: bool) -> None:
    """Remove containers, volumes, and candidate images of this repository.

    Git and the ledger are never touched: images are rebuilt from their commits when needed.
    """
    import shutil

    from runner.config import load
    from runner.sandbox import connect, remove_orphans
    from runner.sandbox import images as image
    from runner.storage.lock import exclusive

    with open_workspace(create=True) as workspace, exclusive(workspace.paths.root):
        engine = connect(load(workspace.repository.root, {}).docker_host)
        controller = workspace.ledger.controller
        things = remove_orphans(engine, controller)
        images = image.remove_images(engine.client, {"controller": controller})
        if base:
            for kind in ("base", "rootfs"):
                images += image.remove_images(engine.client, {"kind": kind})
        if data:
            for name in ("data", "sources", "wheels", "locked"):
                shutil.rmtree(workspace.paths.root / name, ignore_errors=True)
    click.echo(
        f"removed {things} containers and volumes, {images} images" + (", data and packages" if data else "")
    )
