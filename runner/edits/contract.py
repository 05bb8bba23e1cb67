"""Breaches of the contract that reading a workload reveals, with the line to change. Nothing is run.

Whether the program really keeps the contract is for the smoke test; reading finds what a short run does not show
(a seed that is never used) and names the place.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from runner.edits.rules import check_tree
from runner.records import Files

TOKENIZERS = frozenset({"tiktoken", "sentencepiece", "tokenizers", "transformers", "rustbpe", "youtokentome"})
ONLINE = frozenset({"requests", "urllib3", "httpx", "datasets", "huggingface_hub", "wandb", "kernels"})
MODEL = "workload/model.py"
HELPER = "workload/checkpoint.py"
"""Defines `publish`, which says nothing about who calls it."""

_LOADS = frozenset({"memmap", "fromfile", "load_dataset", "open"})


class Breach(NamedTuple):
    """One break of the contract."""

    place: str  # `workload/train.py:12`
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


def breaches(files: Files) -> list[Breach]:
    """Everything that a reader can find, the first cause first."""
    refusal = check_tree(files)
    if refusal is not None:
        return [Breach("workload/", refusal.reason, "docs/contract.md names the files that there must be")]
    trees = {path: ast.parse(data) for path, data in sorted(files.items()) if path.endswith(".py")}
    found = [one for path, tree in trees.items() if (one := own_tokenizer(path, tree)) is not None]
    found += [one for path, tree in trees.items() for one in _online(path, tree)]
    found += _without_load(trees[MODEL])
    found += _unread_variables({path: tree for path, tree in trees.items() if path != HELPER})
    return found


def training_loop(files: Files) -> str:
    """The place of the training loop, as far as it can be found."""
    trees = {path: ast.parse(data) for path, data in files.items() if path.endswith(".py")}
    return _place(trees, _is_training_loop)


def own_tokenizer(path: str, tree: ast.Module) -> Breach | None:
    """A tokenizer that a program brings along."""
    for line, module in _imported(tree):
        if module in TOKENIZERS:
            return _tokenizer(path, line, f"it imports {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "tokenizer" in node.name.lower():
            return _tokenizer(path, node.lineno, f"it defines {node.name}")
    return None


def _tokenizer(path: str, line: int, what: str) -> Breach:
    return Breach(
        f"{path}:{line}",
        f"{what}, and a program with a tokenizer of its own cannot be adopted: a model that chooses its tokens "
        "also chooses what is scored, so all programs of a campaign predict the same tokens",
        "train on the token ids in DATA_DIR; the setting vocab_size chooses how many there are",
    )


def _online(path: str, tree: ast.Module) -> Iterator[Breach]:
    for line, module in _imported(tree):
        if module in ONLINE:
            yield Breach(
                f"{path}:{line}",
                f"it imports {module}, and there is no network where it runs",
                "remove it: data is in DATA_DIR, and what you print is the log",
            )


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every top-level module that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def _without_load(tree: ast.Module) -> list[Breach]:
    """`load` must be there, and take a path and a device."""
    remedy = "def load(path, device): rebuild the model from the checkpoint and return it"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "load":
            positional = len(node.args.posonlyargs) + len(node.args.args)
            if positional >= 2 or node.args.vararg is not None:
                return []
            sentence = f"load takes {positional} positional arguments; it is called with a path and a device"
            return [Breach(f"{MODEL}:{node.lineno}", sentence, remedy)]
        if isinstance(node, ast.ImportFrom) and any((one.asname or one.name) == "load" for one in node.names):
            return []
    last = max((node.end_lineno or 1 for node in tree.body), default=1)
    return [Breach(f"{MODEL}:{last}", "there is no function load, which scoring calls", remedy)]


def _unread_variables(trees: Mapping[str, ast.Module]) -> list[Breach]:
    """The environment of a training that no file reads, with the line that probably should."""
    read = {
        node.value
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    publishes = any(name == "publish" for tree in trees.values() for _, name in _calls(tree))
    questions: tuple[tuple[bool, Callable[[ast.AST], bool], str, str], ...] = (
        (
            "DATA_DIR" in read,
            lambda node: _name_of(node) in _LOADS,
            "DATA_DIR is never read, so it trains on other data or on none",
            'sorted(Path(os.environ["DATA_DIR"]).glob("shard-*.bin")) are the files of token ids',
        ),
        (
            "SEED" in read,
            lambda node: "seed" in (_name_of(node) or ""),
            "SEED is never read, so all trials of a program would be one and the same",
            'torch.manual_seed(int(os.environ["SEED"]))',
        ),
        (
            "DEADLINE_SECONDS" in read,
            _is_training_loop,
            "DEADLINE_SECONDS is never read, so it does not know when it is killed",
            'float(os.environ["DEADLINE_SECONDS"]), less the seconds that the last step and saving take',
        ),
        (
            publishes or "OUT_DIR" in read,
            lambda node: _name_of(node) == "save",
            "nothing is published, so there is no checkpoint to score",
            "from workload.checkpoint import publish; publish(lambda path: torch.save(model.state_dict(), path))",
        ),
    )
    return [
        Breach(_place(trees, wanted), sentence, remedy) for met, wanted, sentence, remedy in questions if not met
    ]


def _calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        name = _name_of(node)
        if name is not None:
            yield getattr(node, "lineno", 1), name


def _name_of(node: ast.AST) -> str | None:
    """The last name of the function that a call calls; None for what is no call."""
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _is_training_loop(node: ast.AST) -> bool:
    return isinstance(node, ast.For | ast.While) and any(name == "backward" for _, name in _calls(node))


def _place(trees: Mapping[str, ast.Module], wanted: Callable[[ast.AST], bool]) -> str:
    """The first node of this kind, else the training loop, else the first line of `train.py`."""
    for is_it in (wanted, _is_training_loop):
        for path in _train_first(trees):
            for node in ast.walk(trees[path]):
                if is_it(node):
                    return f"{path}:{getattr(node, 'lineno', 1)}"
    return "workload/train.py:1"


def _train_first(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: (path != "workload/train.py", path))
