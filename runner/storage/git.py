"""git plumbing: commands in a clean environment, objects and refs. The only importer of GitPython.

Every git process ends within the call that started it: there is nothing to close.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar, cast

from runner.errors import DiskFullError, RepositoryError, remedy_of
from runner.storage.git_errors import ObjectGoneError, first_line, refusal

if TYPE_CHECKING:
    import git

T = TypeVar("T")

IDENTITY = ("autoresearch", "autoresearch@localhost")
REGULAR_FILE = "100644"
FOLDER = "040000"
ATTEMPTS = 5
"""Number of times to try a write while another git process removes objects or folders that it needs."""

_SETTINGS = (
    "core.hooksPath=/dev/null",  # `update-ref` runs the reference-transaction hook
    "core.fsmonitor=false",  # may name a program, which `status` would run
    "core.filesRefLockTimeout=2000",  # milliseconds; a fetch or a push may hold the lock
    "reftable.lockTimeout=2000",
    "core.fsync=committed,reference",  # the ledger survives a power cut, so must the commits it names
    "i18n.commitEncoding=UTF-8",  # part of the commit's id
)

# Variables that say where git's configuration and programs are. Every other GIT_* variable can send
# our objects and refs somewhere else: inside a hook, git itself sets GIT_DIR and GIT_INDEX_FILE.
_HARMLESS_VARIABLES = re.compile(r"GIT_(CONFIG_\w+|EXEC_PATH|DISCOVERY_ACROSS_FILESYSTEM|PYTHON_\w+)")


class Answer(NamedTuple):
    """Exit status and output of one git command."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace").removesuffix("\n")


class Entry(NamedTuple):
    """One line of a tree."""

    mode: str
    kind: str  # "blob", "tree" or "commit" (a submodule)
    id: str
    name: str


class Git:
    """git in one folder. Not for use by two threads at once.

    Args:
        folder: where commands run; the top level of a repository, once it is known.

    Raises:
        RepositoryError: there is no git program.
    """

    def __init__(self, folder: Path) -> None:
        self._program = _start_git()
        self.folder = folder

    def run(
        self, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Answer:
        """Run one git command, cut off from the caller's GIT_* variables.

        Raises:
            RepositoryError: with `check`, the command failed.
            DiskFullError: with `check`, for lack of room.
        """
        variables = {
            "GIT_OPTIONAL_LOCKS": "0",  # otherwise `status` rewrites the user's index
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **{f"GIT_{who}_NAME": IDENTITY[0] for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": IDENTITY[1] for who in ("AUTHOR", "COMMITTER")},
            **(env or {}),
        }
        foreign = [
            name
            for name in os.environ
            if name.startswith("GIT_") and name not in variables and not _HARMLESS_VARIABLES.fullmatch(name)
        ]
        # GitPython can add variables for a child but not take any away; env(1) can, for this child alone.
        command = ["env", *(part for name in foreign for part in ("-u", name))] if foreign else []
        command += [self._program.GIT_PYTHON_GIT_EXECUTABLE or "git", "-C", str(self.folder), "--no-pager"]
        command += [part for setting in _SETTINGS for part in ("-c", setting)]
        with _scratch_errors(), nullcontext() if stdin is None else _as_file(stdin) as stream:
            result = self._program.execute(
                [*command, *arguments],
                istream=stream,
                env=variables,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                start_new_session=True,  # a Ctrl-C on the terminal is for us, not for git
            )
        answer = Answer(*result)
        if check and answer.status != 0:
            raise refusal(arguments[0], answer.stderr)
        return answer

    # Objects

    def list_tree(self, *arguments: str) -> list[Entry]:
        """Entries of a tree, as `git ls-tree` gives them."""
        entries = []
        for line in self.run("ls-tree", "-z", "--full-tree", *arguments).stdout.split(b"\0")[:-1]:
            facts, _, name = line.partition(b"\t")
            mode, kind, found = facts.decode("ascii").split()
            entries.append(Entry(mode, kind, found, name.decode("utf-8", "surrogateescape")))
        return entries

    def read_blobs(self, ids: Iterable[str]) -> list[bytes]:
        """Contents of files, in the order of their ids."""
        output = self.run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in ids).encode()).stdout
        contents = []
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            header = output[position:end].decode()
            if not re.fullmatch(r"[0-9a-f]+ blob [0-9]+", header):
                raise RepositoryError(f"the object database of {self.folder} is damaged: {header}", "git fsck")
            start, size = end + 1, int(header.split()[2])
            contents.append(output[start : start + size])
            position = start + size + 1
        return contents

    def write_files(self, files: Mapping[str, bytes]) -> str:
        """Write files (by path below their folder) and the trees that hold them; returns the folder's tree id."""
        with _scratch_errors(), ExitStack() as stack:
            # By descriptor: a file without a name is gone with this process, however that ends.
            streams = [stack.enter_context(_as_file(content)) for content in files.values()]
            names = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in streams]
            written = self.run(
                *("hash-object", "-w", "--no-filters", "--stdin-paths"),
                stdin="".join(f"{name}\n" for name in names).encode(),
            )
        blobs = dict(zip(files, written.text.splitlines(), strict=True))
        return self._write_folder({tuple(path.split("/")): blob for path, blob in blobs.items()})

    def _write_folder(self, blobs: Mapping[tuple[str, ...], str]) -> str:
        entries = [Entry(REGULAR_FILE, "blob", blob, path[0]) for path, blob in blobs.items() if len(path) == 1]
        for folder in sorted({path[0] for path in blobs if len(path) > 1}):
            if (folder,) in blobs:
                raise RepositoryError(f"{folder} is both a file and a folder")
            below = {path[1:]: blob for path, blob in blobs.items() if path[0] == folder}
            entries.append(Entry(FOLDER, "tree", self._write_folder(below), folder))
        return self.write_tree(entries)

    def write_tree(self, entries: Iterable[Entry]) -> str:
        """Write one tree and return its id.

        By `hash-object`, because `mktree` reads no settings, so that it does not wait for the disk.
        """
        lines = []
        for entry in entries:
            name = entry.name.encode("utf-8", "surrogateescape")
            line = entry.mode.lstrip("0").encode() + b" " + name + b"\0" + bytes.fromhex(entry.id)
            lines.append((name + b"/" if entry.kind == "tree" else name, line))
        body = b"".join(line for _, line in sorted(lines))
        return self.run("hash-object", "-w", "-t", "tree", "--stdin", stdin=body).text

    # Refs

    def commit_at(self, name: str) -> str | None:
        """The commit that a ref names; None when there is no such ref, or no such commit."""
        answer = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        return answer.text if answer.status == 0 else None

    def refs(self, prefix: str) -> dict[str, str]:
        """Every ref below `prefix` (`refs/autoresearch/tried/night`) with the commit that it names."""
        lines = self.run("for-each-ref", "--format=%(refname) %(objectname)", prefix).text.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def update_ref(self, name: str, new: str, expected_old: str | None) -> Answer:
        """Move a ref by compare-and-swap; None: it must not exist. Does not raise when git refuses."""
        return self._update_refs("-m", "autoresearch", name, new, expected_old or "")

    def update_refs(self, commands: Sequence[str]) -> None:
        """Move several refs in one transaction, by commands in the format of `git update-ref -z --stdin`."""
        answer = self._update_refs("-z", "--stdin", stdin="".join(f"{part}\0" for part in commands).encode())
        if answer.status != 0:
            raise refusal("update-ref", answer.stderr)

    def _update_refs(self, *arguments: str, stdin: bytes | None = None) -> Answer:
        for _ in range(ATTEMPTS - 1):
            answer = self.run("update-ref", *arguments, stdin=stdin, check=False)
            # A `git pack-refs --prune` can remove a ref's empty folder between git's making and using it.
            if not re.search(r"cannot lock ref .*No such file or directory", answer.stderr):
                return answer
        return self.run("update-ref", *arguments, stdin=stdin, check=False)

    def worktree_of(self, name: str) -> str | None:
        """The folder in which a branch (`refs/heads/…`) is checked out, or None."""
        worktree = None
        for line in self.run("worktree", "list", "--porcelain").text.splitlines():
            key, _, value = line.partition(" ")
            if key == "worktree":
                worktree = value
            elif key == "branch" and value == name:
                return worktree
        return None


def write_again(write: Callable[[], T]) -> T:
    """The result of `write`, repeated while a garbage collection removes objects before a ref names them."""
    for _ in range(ATTEMPTS - 1):
        with suppress(ObjectGoneError):
            return write()
    return write()


def _start_git() -> git.Git:
    try:
        import git  # lazy: GitPython looks for the git program on import, and fails without one
    except ImportError as error:
        raise RepositoryError(f"git does not start: {first_line(str(error))}", "apt-get install git") from error
    return git.Git()


@contextmanager
def _scratch_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"files for git cannot be written in {tempfile.gettempdir()}: {error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(what, remedy_of(error)) from error
        raise RepositoryError(what, remedy_of(error)) from error


def _as_file(content: bytes) -> BinaryIO:
    """`content` as an open file, the only input that GitPython passes on; the caller closes it."""
    stream = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115
    stream.write(content)
    stream.seek(0)
    return stream
