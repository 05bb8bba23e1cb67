"""Rules for paths, texts and trees, with the size limits, and the refusals of the rest of `edits`."""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from runner.edits.parsing import UNREADABLE
from runner.records import Files

ROOT = "workload"
REQUIRED = ("workload/model.py", "workload/train.py")

MAX_FILE_BYTES = 256 * 1024
MAX_TREE_BYTES = 2 * 1024 * 1024
MAX_FILES = 200
MAX_EDITS = 200
MAX_PATCH_BYTES = 1024 * 1024
MAX_PATH_LENGTH = 200
MAX_NAME_LENGTH = 64
MAX_DEPTH = 8

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# PEP 263. `# coding: utf-7` (or `unicode_escape`) makes Python run other code than a diff shows.
_CODING = re.compile(rb"^[ \t]*#.*?coding[:=][ \t]*([-\w.]+)")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Not of those categories, yet invisible: fillers, variation selectors, blank braille.
_HIDDEN_EXTRA = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0})
_HIDDEN_RANGES = (range(0xFE00, 0xFE10), range(0xE0000, 0xE1000))


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The reason why edits or a tree are not accepted: one sentence that names the path and the rule."""

    reason: str


class Refused(Exception):
    """Carries a reason from within a parser to the public functions, which turn it into a `Refusal`."""


def check_tree(files: Files) -> Refusal | None:
    """Check a whole `workload/`: names, sizes, plain text, Python that parses, files that the contract needs.

    Returns:
        The first problem in path order, or `None`.
    """
    try:
        check_layout(files)
        for path, data in sorted(files.items()):
            check_file(path, data)
        for path in REQUIRED:
            if path not in files:
                refuse(f"{path} must stay: the contract with the evaluation needs it")
    except Refused as refused:
        return Refusal(reason=str(refused))
    return None


def check_layout(files: Files) -> None:
    """Refuse a tree for its names, its number of files or their sizes. Their content is not examined."""
    if len(files) > MAX_FILES:
        refuse(f"the tree would have {len(files)} files; at most {MAX_FILES} are allowed")
    for path in sorted(files):
        check_path(path)
    _check_twins(files)
    for path, data in sorted(files.items()):
        if len(data) > MAX_FILE_BYTES:
            refuse(f"{path} would have {len(data)} bytes; at most {MAX_FILE_BYTES} are allowed")
    total = sum(len(data) for data in files.values())
    if total > MAX_TREE_BYTES:
        refuse(f"the tree would have {total} bytes; at most {MAX_TREE_BYTES} are allowed")


@lru_cache(maxsize=64)  # most files of a tree are those of the tree before it
def check_file(path: str, data: bytes) -> None:
    """Refuse a file for its content: it must be plain text, and a `.py` file must parse."""
    _check_text(path, decode(path, data))
    if path.endswith(".py"):
        _check_python(path, data)


def refuse(reason: str) -> NoReturn:
    raise Refused(reason)


def quoted(text: str, limit: int = 120) -> str:
    """Quote hostile text for a reason: reasons go to terminals, ledgers and prompts."""
    return ascii(text if len(text) <= limit else text[:limit] + "…")


def check_path(path: str) -> None:
    shown = quoted(path)
    if not path or len(path) > MAX_PATH_LENGTH:
        refuse(f"path {shown} is empty or longer than {MAX_PATH_LENGTH} characters")
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        refuse(f"path {shown} contains a control character")
    if not path.isascii():
        refuse(f"path {shown} is not ASCII")
    if "\\" in path:
        refuse(f"path {shown} contains a backslash")
    if path.startswith("/"):
        refuse(f"path {shown} is absolute")
    names = path.split("/")
    for name in names:
        _check_name(name, shown)
    if names[0] != ROOT or len(names) < 2:
        refuse(f"path {shown} is outside {ROOT}/")
    if len(names) > MAX_DEPTH:
        refuse(f"path {shown} is nested deeper than {MAX_DEPTH} levels")


def _check_name(name: str, shown: str) -> None:
    if name in ("", ".", ".."):
        refuse(f"path {shown} contains {'an empty name' if not name else repr(name)}")
    if name.startswith("."):  # .git, .gitattributes (filters run programs), .gitmodules, .dockerignore, ...
        refuse(f"path {shown} contains a name that begins with a dot")
    if name.startswith("-"):  # would be read as an option by a command line
        refuse(f"path {shown} contains a name that begins with a hyphen")
    if len(name) > MAX_NAME_LENGTH:
        refuse(f"path {shown} contains a name longer than {MAX_NAME_LENGTH} characters")
    if not _NAME.fullmatch(name) or name.endswith("."):
        refuse(f"path {shown} contains a name that is not portable (letters, digits, '_', '-', '.')")
    if name == "__pycache__" or name.endswith(
        (".pyc", ".pyo", ".pyd", ".so")
    ):  # runs without its source being read
        refuse(f"path {shown} names compiled code")


def _check_twins(files: Files) -> None:
    """Refuse names that differ only in case, or name a file and a folder: other systems cannot hold both."""
    spelling: dict[str, str] = {}
    for path in sorted(files):
        names = path.split("/")
        for depth in range(1, len(names) + 1):
            prefix = "/".join(names[:depth])
            other = spelling.setdefault(prefix.casefold(), prefix)
            if other != prefix:
                refuse(f"{prefix} and {other} differ in upper and lower case only")
            if depth < len(names) and prefix in files:
                refuse(f"{prefix} would be a file and a folder")


def decode(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        refuse(f"{path} is binary: only UTF-8 text is allowed")


def _check_text(path: str, text: str) -> None:
    problem = find_hidden(text)
    if problem is not None:
        refuse(f"{path}: {problem}")


def find_hidden(text: str) -> str | None:
    """Find characters that a diff on a screen would not show.

    Bidirectional controls reorder code on the screen ("trojan source"), zero-width characters make two names look
    alike, a carriage return overwrites a line in a terminal, and escape sequences can do anything there.
    """
    for character in sorted(set(text)):
        if character in "\n\t" or " " <= character <= "~":
            continue
        code = ord(character)
        if character == "\r":
            kind = "a carriage return (use \\n line ends)"
        elif character == "\0":
            kind = "a NUL byte: it is binary"
        elif character == "\ufeff":
            kind = "a byte order mark"
        elif character == "\ufffd":  # left behind by a lossy decoder: not what the author wrote
            kind = "a replacement character: its source was not UTF-8 text"
        elif (
            unicodedata.category(character) in _HIDDEN_CATEGORIES
            or code in _HIDDEN_EXTRA
            or any(code in hidden for hidden in _HIDDEN_RANGES)
        ):
            kind = "an invisible or control character"
        else:
            continue
        line = text.count("\n", 0, text.index(character)) + 1
        return f"line {line} holds {kind} (U+{code:04X})"
    return None


def _check_python(path: str, data: bytes) -> None:
    for line in data.split(b"\n", 2)[:2]:
        coding = _CODING.match(line)
        if coding and coding[1].lower().replace(b"_", b"-") not in (b"utf-8", b"utf8"):
            refuse(f"{path} declares an encoding other than UTF-8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` warns, and the warning must not reach our terminal
            ast.parse(data)
    except SyntaxError as error:
        refuse(f"{path} line {error.lineno}: {quoted(error.msg)[1:-1]}")
    except UNREADABLE:
        # Deep nesting raises one of these; the interpreter in the container would fail in the same way.
        refuse(f"{path} cannot be parsed: nested too deeply, or with too large a literal")


def split_lines(text: str) -> list[str]:
    # Not `splitlines`: it also splits at form feeds, U+2028 and others, where git and Python do not.
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines
