"""Make the machine ready: engine, locked evaluation, base image, data. Repeating it costs a second."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from runner import corpus
from runner.campaign.campaign import Controller
from runner.config import Config, conditions
from runner.corpus.redaction import Redactor
from runner.edits.contamination import SealedText
from runner.evaluation.evaluator import EvaluationRows, Evaluator
from runner.records import Observer
from runner.sandbox import Engine, connect, images, remove_orphans, run_trusted, swept_when_interrupted
from runner.sandbox.containers import Owner, Sandbox
from runner.sandbox.doctor import refuse_unfit
from runner.sandbox.gpu_state import read_gpu
from runner.sandbox.host import cpu_name, find_gpus
from runner.sandbox.images.base import base_inputs
from runner.sandbox.session import Mounts
from runner.sandbox.trusted import TrustedProgram
from runner.storage import pinned_evaluation
from runner.storage.files import remove_partials
from runner.storage.ledger import Ledger
from runner.storage.paths import StatePaths
from runner.storage.repository import Repository

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A machine on which candidates of one configuration can run."""

    engine: Engine
    base_image: str
    locked: Path
    locked_digest: str
    data: corpus.DataSet


def prepare(
    config: Config, *, ledger: Ledger, paths: StatePaths, observer: Observer, force: bool = False
) -> Prepared:
    """Set up what is missing. The controller's lock must be held.

    Args:
        force: prepare the data again, even when it is there and its hashes are right.

    Raises:
        AutoresearchError: whatever is missing and cannot be made; nothing half-done stays behind.
    """
    engine = connect(config.docker_host)
    log.info("engine_connected", url=engine.url, daemon=engine.daemon_id, version=engine.version)
    refuse_unfit(engine, config)
    orphans = remove_orphans(engine, ledger.controller)
    remove_leftovers(paths)
    if orphans:
        observer.note(f"removed {orphans} containers and volumes of an interrupted run")
    folder, digest = pinned_evaluation.pin(paths.root)
    base = images.ensure_base(engine.client, config.profile, paths.root, observer.note)
    owner = Owner(controller=ledger.controller, campaign=config.tag, experiment=0)
    sandbox = Sandbox(engine=engine, config=config, locked=folder, owner=owner)
    with swept_when_interrupted(engine, ledger.controller):
        dataset = prepare_data(sandbox, paths, observer, force=force)
    return Prepared(engine=engine, base_image=base, locked=folder, locked_digest=digest, data=dataset)


def remove_leftovers(paths: StatePaths) -> None:
    """Remove the unfinished files of a controller that was killed. The lock must be held."""
    shutil.rmtree(paths.audits, ignore_errors=True)
    for folder in paths.rewritten:
        remove_partials(folder)


def prepare_data(sandbox: Sandbox, paths: StatePaths, observer: Observer, *, force: bool) -> corpus.DataSet:
    """Return the data set of a configuration; make it in a container when it does not exist."""
    config, engine, locked = sandbox.config, sandbox.engine, sandbox.locked
    source = corpus.fetch_source(config, paths.root, observer.note)
    target = paths.data / corpus.data_key(config, source, pinned_evaluation.preparation_digest(locked))
    if force:
        shutil.rmtree(target, ignore_errors=True)
    if not (target / "manifest.json").exists():
        tools = images.ensure_base(engine.client, "prepare", paths.root, observer.note)
        target.mkdir(parents=True, exist_ok=True)
        try:
            program = TrustedProgram(
                image_id=tools,
                arguments=[
                    "/locked/locked_eval/preparation/prepare.py",
                    *corpus.prepare_arguments(config, str(source.path.relative_to(source.root))),
                ],
                read_only={"/locked": locked, "/source": source.root},
                output=target,
            )
            with images.step(observer.note, f"preparing {source.name}: tokenizer, tokens, splits"):
                run_trusted(engine, program, owner=sandbox.owner, on_line=observer.note)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return corpus.open_data(target)


def open_controller(
    config: Config,
    prepared: Prepared,
    *,
    repository: Repository,
    ledger: Ledger,
    paths: StatePaths,
    observer: Observer,
) -> Controller:
    """Assemble everything that campaigns and studies need."""
    dataset = prepared.data
    validation, test = dataset.sealed_shingles()
    tokens = dataset.token_table()
    evaluator = Evaluator(
        config=config,
        engine=prepared.engine,
        controller=ledger.controller,
        mounts=Mounts(locked=prepared.locked, train=dataset.issue, val=dataset.val, test=dataset.test),
        rows=EvaluationRows(
            val_rows=dataset.val_rows(),
            test_rows=dataset.test_rows(),
            token_bytes=dataset.token_bytes(),
            train_text=dataset.train_text(),
        ),
        redactor=Redactor.open(dataset.corpus_index, tokens),
        scratch=paths.audits,
        claims=paths.claims(config.tag),
        base=images.BaseImage(
            prepared.base_image,
            lambda: images.ensure_base(prepared.engine.client, config.profile, paths.root, observer.note),
        ),
        observer=observer,
        power_limit_watts=None if config.gpu is None else read_gpu(config.gpu, tuple).power_limit_watts,
    )
    return Controller(
        config=config,
        ledger=ledger,
        repository=repository,
        evaluator=evaluator,
        sealed_text=SealedText(validation=validation, test=test, tokens=tokens),
        observer=observer,
        conditions={
            **conditions(config),
            "device": _device(config),
            "runtime": config.runtime or "default",
            "evaluation": prepared.locked_digest,
            "data": dataset.manifest_sha256,
            "base_image": base_inputs(config.profile),
        },
    )


def _device(config: Config) -> str:
    """The device that trains: the same program reaches other scores on another chip."""
    if config.gpu is None:
        return cpu_name()  # a driver that does not answer must not stop the profile cpu
    gpu = next((one for one in find_gpus() if one.uuid == config.gpu), None)
    return cpu_name() if gpu is None else gpu.name
