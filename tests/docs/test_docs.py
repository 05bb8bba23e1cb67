"""The documents against the code: commands, options, settings, targets, links, file names, and terms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from runner.cli import COMMANDS, cli
from runner.records import Experiment, Verdict
from runner.storage.paths import StatePaths
from tests.docs.settings_table import settings_table, written_table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in DOCUMENTS}
README, REFERENCE, FILES = TEXTS["README.md"], TEXTS["docs/commands.md"], TEXTS["docs/files.md"]
RUNNING, ARCHITECTURE, GLOSSARY = (TEXTS[f"docs/{name}.md"] for name in ("running", "architecture", "glossary"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

MAX_README_LINES = 120
MADE_LATER = {"autoresearch.toml", "results.tsv", "findings.tsv", "sealed.tsv", "minimal.patch"}
MADE_LATER |= {"manifest.json", "meta.json", "index.lock", "HEAD.lock", "packed-refs.lock"}
"""Names of files that a user or a run makes, so the repository does not contain them."""

_FOLDERS = ("runner", "locked_eval", "workload", "images", "tests", "bench", "docs", "examples", ".ci")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"[A-Za-z0-9_.-]+\.(?:py|md|toml|sh|lock|in|json|tsv|patch)")
_PAGE_IN_CODE = re.compile(r"\bdocs/[a-z0-9/-]+\.md\b")
_PLACEHOLDER = re.compile(r"\{\{\w+\}\}")

documents = pytest.mark.parametrize("name", TEXTS)
commands = pytest.mark.parametrize("name", COMMANDS)


def section(name):
    """The section of `docs/commands.md` about one command."""
    found = re.search(rf"^## autoresearch {name}$(.*?)(?=^## )", REFERENCE, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def anchors(text):
    """The anchors that a page gets for its headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document):
    """Links of a document to files or headings that do not exist."""
    broken = []
    for link in _LINK.findall(_FENCE.sub("", document.read_text("utf-8"))):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        inside = path.is_relative_to(ROOT) or path.is_relative_to(document.parent)
        if not inside or not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            broken.append(link)
    return broken


def unknown_files(text):
    """Names in code quotes that look like a file of this repository and do not exist."""
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


def glossary_terms():
    """Every term that the glossary defines, alternatives separately."""
    entries = re.findall(r"^- (\*\*.+?\*\*):", GLOSSARY, re.MULTILINE)
    return [term.strip("`") for entry in entries for term in re.findall(r"\*\*(.+?)\*\*", entry)]


def is_used(term, text):
    """Whether a page uses a term, in singular or plural, in any case."""
    return re.search(rf"(?<!\w){re.escape(term)}(?:s|es|ed)?(?!\w)", text, re.IGNORECASE) is not None


def test_the_readme_fits_on_a_few_screens():
    assert len(README.splitlines()) <= MAX_README_LINES


@commands
def test_every_command_answers_help(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3


@commands
def test_every_command_is_described_with_an_example(name):
    assert f"| `autoresearch {name}` |" in REFERENCE
    assert re.search(rf"^(\w+=\w+ )?autoresearch {name}\b", section(name), re.MULTILINE), "no example"


@commands
def test_every_option_of_a_command_is_in_its_section(name):
    command = cli.get_command(SimpleNamespace(), name)
    options = {option for one in command.params for option in one.opts if option.startswith("--")}
    described = set(re.findall(r"`(--[a-z-]+)`", section(name)))
    assert options - described == set(), "options that are not described"
    assert described - options == set(), "options that do not exist"


def test_no_command_is_described_that_does_not_exist():
    described = set(re.findall(r"^## autoresearch ([\w-]+)$", REFERENCE, re.MULTILINE))
    described |= set(re.findall(r"^\| `autoresearch ([\w-]+)` \|", REFERENCE, re.MULTILINE))
    assert described == set(COMMANDS)


@documents
def test_every_command_line_shown_is_accepted(name):
    """Options, values, and number of arguments of every `autoresearch` line in a shell block; nothing is run."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", TEXTS[name], re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^ *(?:\w+=\S+ )*autoresearch ([^|#\n]+)", block, re.MULTILINE):
            command, *arguments = line.split()
            assert command in COMMANDS, line
            try:
                cli.get_command(SimpleNamespace(), command).make_context(command, arguments)
            except click.BadParameter as error:  # the reader's own file
                assert "does not exist" in error.message, line


def test_the_table_of_settings_is_that_of_the_code():
    assert written_table(REFERENCE) == settings_table(), "python tests/docs/settings_table.py rewrites it"


def test_every_setting_has_a_description():
    from runner.config import Config

    assert [name for name, field in Config.model_fields.items() if not field.description] == []


def test_every_make_target_and_variable_is_described():
    targets = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    variables = re.findall(r"^([A-Z_]+) +\?=", MAKEFILE, re.MULTILINE)
    assert len(targets) > 5 and len(variables) > 3
    described = RUNNING + TEXTS["CONTRIBUTING.md"]
    assert [name for name in targets if f"| `make {name}` |" not in described] == []
    assert [name for name in variables if f"`{name}`" not in RUNNING] == []


@documents
def test_no_make_target_is_named_that_does_not_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)\b", TEXTS[name], re.MULTILINE)) <= targets


def test_the_state_folder_is_described_as_it_is():
    paths = StatePaths.of(Path())
    tree = re.findall(r"[├└]── ([\w./<>]+)", FILES)
    for path in (paths.ledger, paths.log("<tag>"), paths.report("<tag>"), paths.claims("<tag>"),
                 paths.noise("<profile>"), paths.data / "<key>", paths.audits, paths.probes):  # fmt: skip
        assert path.relative_to(paths.root).as_posix() in {name.rstrip("/") for name in tree}


def test_tables_trailers_columns_and_verdicts_are_named_as_they_are():
    from runner.campaign.commit_message import kept_message
    from runner.report.findings import COLUMNS as FINDINGS_COLUMNS
    from runner.report.sealed import COLUMNS as SEALED_COLUMNS
    from runner.report.table import RESULTS_COLUMNS

    one = Experiment(
        number=1, hypothesis="h", proposer="p", model="m", verdict=Verdict.KEEP, val_bpb=1.0, delta_bpb=-0.1,
        tried_commit="c", image_id="i", layer_digest="l", certifies=(1, 2),
    )  # fmt: skip
    message = kept_message(one, base_image="b", data="d", evaluation="e")
    trailers = re.findall(r"^([A-Z][\w-]+): ", message, re.MULTILINE)
    assert len(trailers) > 8
    for columns in (RESULTS_COLUMNS, SEALED_COLUMNS, FINDINGS_COLUMNS):
        assert " | " + ", ".join(f"`{name}`" for name in columns) + " |" in FILES
    assert [name for name in trailers if f"`{name}`" not in FILES] == []
    assert [verdict for verdict in Verdict if f"| `{verdict}` |" not in RUNNING] == []


def test_every_cheat_that_is_named_is_in_the_zoo():
    zoo = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "zoo" / "cheats").glob("*.py"))
    cheats = set(re.findall(r'name="(\w+)"', zoo))
    table = re.search(r"\| met in public .*?\n\n", TEXTS["docs/evaluation.md"], re.DOTALL).group()
    named = {name for row in table.splitlines() for name in _CODE.findall(row.split(" | ")[-1]) if "/" not in name}
    assert len(named) > 15
    assert named <= cheats
    assert len(cheats) >= 60, "README.md and SECURITY.md say more than sixty"


def test_the_contract_publishes_as_the_workload_does():
    line = re.search(r"^from \S+ import publish$", TEXTS["docs/contract.md"], re.MULTILINE).group()
    assert line in (ROOT / "workload" / "train.py").read_text("utf-8").splitlines()


def test_the_floors_of_the_architecture_are_those_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    floors = [set(layer.split(" | ")) for layer in layers]
    rows = re.findall(r"^\| (\d) \| (.+?) \|", ARCHITECTURE, re.MULTILINE)
    described = [
        {name for floor, rooms in rows if int(floor) == number for name in re.findall(r"`runner/(\w+)", rooms)}
        for number in range(len(layers), 0, -1)
    ]
    assert described == floors


def test_every_forbidden_package_is_in_the_table_of_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    of_runner = [one for one in contracts if one.get("source_modules", [""])[0].startswith("runner")]
    forbidden = {name.removeprefix("runner.") for one in of_runner for name in one["forbidden_modules"]}
    table = ARCHITECTURE.partition("| contract | why |")[2].partition("\n\n")[0]
    assert len(forbidden) > 8
    assert {name for name in forbidden if not re.search(rf"\b{name}\b", table)} == set()


def test_every_decision_is_listed():
    pages = (ROOT / "docs" / "decisions").glob("*.md")
    assert [page.name for page in pages if page.name not in ARCHITECTURE] == []


@pytest.mark.parametrize("term", glossary_terms())
def test_every_term_of_the_glossary_is_used_elsewhere(term):
    assert any(is_used(term, text) for name, text in TEXTS.items() if name != "docs/glossary.md")


def test_the_glossary_defines_every_term_that_it_refers_to():
    terms = [re.escape(term) for term in glossary_terms()]
    known = re.compile(rf"(?:{'|'.join(terms)})(?:s|es)?", re.IGNORECASE)
    unknown = [one for one in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", GLOSSARY) if not known.fullmatch(one)]
    assert unknown == ["italics"]


@documents
def test_every_page_is_linked(name):
    path = ROOT / name
    others = [other for other in DOCUMENTS if other != path]
    linked = {
        (other.parent / link.partition("#")[0]).resolve()
        for other in others
        for link in _LINK.findall(other.read_text("utf-8"))
    }
    assert name == "README.md" or path in linked


@documents
def test_links_resolve(name):
    assert broken_links(ROOT / name) == []


@documents
def test_no_document_names_a_file_that_does_not_exist(name):
    assert unknown_files(TEXTS[name]) == []


def test_no_code_names_a_page_that_does_not_exist():
    code = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.py")]
    named = {page for path in code for page in _PAGE_IN_CODE.findall(path.read_text("utf-8"))}
    assert "docs/reliability.md" in named
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []


@documents
def test_no_placeholder_is_left(name):
    assert _PLACEHOLDER.findall(TEXTS[name]) == []


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


def test_a_term_is_found_as_a_word():
    assert is_used("trial", "Three Trials later") and is_used("near miss", "two near misses")
    assert not is_used("run", "the runner prunes")
