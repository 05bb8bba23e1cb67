"""Commands for a training program of the user's own: adopt it, and check it against the contract."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.options import campaign_options, json_option
from runner.cli.workspace import print_json
from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.edits.contract import Breach
    from runner.evaluation.smoke_test import Checked
    from runner.records import Files

GUIDE = "docs/adopt.md"
CHECK_SECONDS = {"cpu": 10.0, "cuda": 60.0}
"""Training time of a check by profile; on a GPU a program may compile first."""
KEPT = ("__init__.py", "checkpoint.py")
"""Files of `workload/` that an adopted program keeps."""

_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")
_REMEDIES = (
    (
        "no checkpoint",
        "publish(…) sooner: DEADLINE_SECONDS count from workload.STARTED_AT",
    ),
    ("the checkpoint has", "publish weights without optimizer state, or set output_bytes higher"),
    ("the checkpoint, loaded", "load all that the model computes with from the checkpoint, and draw nothing"),
    ("workload.model.load", "make load(path, device) rebuild the model from what train.py publishes"),
    ("the forward pass", "let forward(tokens) take up to score_batch_rows rows, and return (B, T, V) logits"),
    ("not causal", "mask later positions: is_causal=True in attention, no mean or shift over the whole row"),
    ("logits of a row", "compute each row on its own: no normalization or sorting over the batch"),
    ("the same input", "return the same logits for the same input: no dropout, no state that forward changes"),
    ("logits are NaN", "return finite logits, or at least −inf instead of NaN and +inf"),
    ("it ran out of memory", "use a smaller batch or model, or set memory_bytes higher"),
)


@click.command("adopt")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), help="Folder to write (default: workload).")
def adopt_command(path: Path, target: Path | None) -> None:
    """Turn a single-file trainer into the first version of a workload, and list what to change."""
    from runner.edits import Refusal
    from runner.edits.adoption import adopt
    from runner.edits.contract import breaches
    from runner.storage.repository import Repository

    repository = Repository(Path.cwd())
    ours = repository.root / "workload"
    folder = ours if target is None else target
    if target is None:
        repository.check_ready()  # what is replaced is in git
    elif target.exists():
        raise ConfigError(f"{target} exists already", "choose another folder: --to FOLDER")
    adopted = adopt(path.read_text("utf-8", "replace"), path.name)
    if isinstance(adopted, Refusal):
        raise ConfigError(adopted.reason, f"see {GUIDE}")
    files = {name: (ours / name).read_text("utf-8") for name in KEPT}
    files |= {"model.py": adopted.model, "train.py": adopted.train}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    click.echo(
        f"{path.name} was cut at line {adopted.first_line}: what it defines ({adopted.model_class} among it) "
        f"is in {folder}/model.py, what it runs in {folder}/train.py"
    )
    found = breaches(read_folder(folder))
    for breach in found:
        _show(breach.place, breach.sentence, breach.remedy)
    click.echo(f"then: autoresearch check-workload {'' if target is None else folder}".rstrip() + f" ({GUIDE})")


@click.command("check-workload")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@campaign_options
@json_option
def check_workload_command(path: Path | None, as_json: bool, **settings: Any) -> None:
    """Check a workload: read it, train it for a moment in the sandbox, and score random tokens.

    PATH is a folder; workload/ as it is now when omitted. The exit code is 1 when something must change.
    """
    from runner.storage.repository import Repository

    files = read_folder(path or Repository(Path.cwd()).root / "workload")
    problems = _read(files) or _run(files, settings)
    for place, sentence, remedy in problems:
        if as_json:
            print_json({"place": place, "problem": sentence, "remedy": remedy})
        else:
            _show(place, sentence, remedy)
    if not problems and not as_json:
        click.secho("✓ ", fg="green", nl=False)
        click.echo("it trains, publishes a checkpoint, loads, and can be scored and audited")
    raise SystemExit(1 if problems else 0)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Contents of a folder as the files of a candidate.

    Raises:
        ConfigError: it has none.
    """
    files = {
        f"workload/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    if not files:
        raise ConfigError(f"{folder} has no files", f"autoresearch adopt train.py makes one; see {GUIDE}")
    return files


def _show(place: str, sentence: str, remedy: str) -> None:
    click.secho("✗ ", fg="red", nl=False)
    click.echo(f"{place}: {sentence}")
    click.echo(f"    → {remedy}")


def _read(files: Files) -> list[tuple[str, str, str]]:
    """Return what reading the files finds."""
    from runner.edits.contract import breaches

    return [(one.place, one.sentence, one.remedy) for one in breaches(files)]


def _run(files: Files, settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what running them finds."""
    from runner.cli.night import open_night
    from runner.evaluation import smoke_test

    with open_night(**settings) as (controller, stop):
        config = controller.config
        seconds = settings["train_seconds"] or min(config.train_seconds, CHECK_SECONDS[config.profile])
        checked = smoke_test.examine(
            controller.evaluator,
            files,
            0,
            config.model_copy(update={"train_seconds": seconds}),
            lambda: stop.requested,
        )
    found = _found(files, checked)
    return [] if found is None else [found]


def _found(files: Files, checked: Checked) -> Breach | None:
    """The problem of a run, with the place to change and a remedy."""
    from runner.edits.contract import Breach, training_loop
    from runner.records import RunEnd
    from runner.untrusted import one_line

    problem = checked.problem
    if problem is None:
        return None
    text = problem.traceback or (checked.training.log_tail if checked.training.end is RunEnd.FAILED else "")
    cause = one_line(next((line for line in reversed(text.splitlines()) if line.strip()), ""))
    sentence = f"{problem.reason}: {cause}" if cause and problem.place else problem.reason
    missing = _MISSING_MODULE.search(text)
    if missing is not None and missing[1].partition(".")[0] != "workload":
        return Breach(problem.place or "workload/", sentence, f"echo {missing[1]} >> images/extra.in; see {GUIDE}")
    remedy = next((words for begin, words in _REMEDIES if problem.reason.startswith(begin)), "change that line")
    return Breach(problem.place or training_loop(files), sentence, remedy)
