"""The documents against the code: commands, settings, targets, links and file names."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner import config
from runner.cli import COMMANDS, cli
from runner.records import Verdict
from runner.report.table import RESULTS_COLUMNS
from runner.storage.paths import StatePaths

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "commands.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

MADE_LATER = {"autoresearch.toml", "results.tsv", "sealed.tsv", "manifest.json", "meta.json"}
MADE_LATER |= {"findings.tsv", "minimal.patch"}
MADE_LATER |= {"index.lock", "HEAD.lock", "packed-refs.lock"}
"""Names of files that a user or a run makes, so that no file of the repository has them."""

_FOLDERS = ("runner", "locked_eval", "workload", "images", "tests", "docs", ".ci")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"[A-Za-z0-9_.-]+\.(?:py|md|toml|sh|lock|in|json|tsv|patch)")
_PLACEHOLDER = re.compile(r"\{\{\w+\}\}")

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def section(name):
    """What `docs/commands.md` says of one command."""
    found = re.search(rf"^## autoresearch {name}$(.*?)(?=^## )", REFERENCE, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def anchors(text):
    """The anchors that a page gets for its headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document):
    return _LINK.findall(_FENCE.sub("", document.read_text("utf-8")))


def broken_links(document):
    """Links of a document to files or headings that are not there."""
    broken = []
    for link in links(document):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        inside = path.is_relative_to(ROOT) or path.is_relative_to(document.parent)
        if not inside or not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            broken.append(link)
    return broken


def unknown_files(text):
    """Names in code quotes that look like a file of this repository and are none."""
    names = {path.name for folder in _FOLDERS for path in (ROOT / folder).rglob("*")}
    names |= {path.name for path in ROOT.iterdir()}
    unknown = []
    for name in _CODE.findall(_FENCE.sub("", text)):
        if name.startswith(tuple(f"{folder}/" for folder in _FOLDERS)) and not re.search(r"[<>\s…]", name):
            if not any(ROOT.glob(name.rstrip("/"))):
                unknown.append(name)
        elif _FILE.fullmatch(name) and name not in names | MADE_LATER:
            unknown.append(name)
    return unknown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_both_documents_with_an_example(name):
    assert f"| `autoresearch {name}` |" in README
    assert re.search(rf"^(\w+=\w+ )?autoresearch {name}\b", section(name), re.MULTILINE), "no example"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_stands_in_its_section(name):
    command = cli.get_command(SimpleNamespace(), name)
    options = {option for one in command.params for option in one.opts if option.startswith("--")}
    missing = {option for option in options if f"`{option}`" not in section(name)}
    assert not missing


def test_no_command_is_described_that_does_not_exist():
    described = set(re.findall(r"^## autoresearch (\w+)$", REFERENCE, re.MULTILINE))
    described |= set(re.findall(r"^\| `autoresearch (\w+)` \|", README, re.MULTILINE))
    assert described == set(COMMANDS)


def test_every_setting_stands_in_the_reference_with_the_values_of_both_profiles():
    told = {
        row[0]: (row[1], row[2])
        for row in re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", REFERENCE, re.MULTILINE)
    }
    profiles = [config.load(Path("/nonexistent"), {"profile": name}, environ={}) for name in ("cpu", "cuda")]
    values = {
        name: tuple("–" if (value := getattr(one, name)) is None else str(value) for one in profiles)
        for name in config.Config.model_fields
    }
    assert told == values


def test_every_make_target_and_variable_stands_in_the_readme():
    targets = re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE)
    variables = re.findall(r"^([A-Z_]+) +\?=", MAKEFILE, re.MULTILINE)
    assert len(targets) > 5 and len(variables) > 3
    assert [name for name in targets if f"`make {name}`" not in README] == []
    assert [name for name in variables if f"`{name}`" not in README] == []


def test_no_make_target_is_named_that_does_not_exist():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    named = {
        name for path in DOCUMENTS for name in re.findall(r"(?:`|^)make ([a-z]+)\b", path.read_text("utf-8"), re.M)
    }
    assert named <= targets


def test_the_state_folder_is_described_as_it_is():
    paths = StatePaths.of(Path())
    for path in (paths.ledger, paths.log("<tag>"), paths.report("<tag>") / "results.tsv", paths.data / "<key>"):
        assert path.as_posix() in README


def test_every_cheat_that_the_readme_names_is_in_the_zoo():
    zoo = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "zoo" / "cheats").glob("*.py"))
    cheats = set(re.findall(r'name="(\w+)"', zoo))
    table = re.search(r"\| met in public .*?\n\n", README, re.DOTALL).group()
    named = {name for row in table.splitlines() for name in _CODE.findall(row.split(" | ")[-1]) if "/" not in name}
    assert len(named) > 15
    assert named <= cheats
    assert len(cheats) >= 60, "SECURITY.md and docs/evaluation.md speak of more than sixty"


def test_trailers_columns_and_verdicts_are_named_as_they_are():
    from runner.campaign.commit_message import kept_message
    from runner.records import Experiment

    one = Experiment(
        number=1, hypothesis="h", proposer="p", model="m", verdict=Verdict.KEEP, val_bpb=1.0, delta_bpb=-0.1,
        tried_commit="c", image_id="i", layer_digest="l",
    )  # fmt: skip
    message = kept_message(one, base_image="b", data="d", evaluation="e")
    trailers = re.findall(r"^([A-Z][\w-]+): ", message, re.MULTILINE)
    assert len(trailers) > 8
    assert [name for name in (*trailers, *RESULTS_COLUMNS) if f"`{name}`" not in README] == []
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    assert [verdict for verdict in Verdict if f"| `{verdict}` |" not in design] == []


@documents
def test_links_resolve(document):
    assert broken_links(document) == []


@documents
def test_no_document_names_a_file_that_does_not_exist(document):
    assert unknown_files(document.read_text("utf-8")) == []


@documents
def test_no_placeholder_is_left(document):
    assert _PLACEHOLDER.findall(document.read_text("utf-8")) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#one-heading) [d](there.md#two) [e](https://example.org)\n"
    )
    assert broken_links(page) == ["gone.md", "there.md#two"]


def test_an_unknown_file_is_found():
    text = "`runner/cli/` `runner/gone.py` `images/*.lock` `judge.py` `nobody.py` `autoresearch.toml` `x.y()`"
    assert unknown_files(text) == ["runner/gone.py", "nobody.py"]
