"""Git: candidates and kept commits as objects and refs. The only importer of GitPython.

Nothing here touches the user's checkout, index, HEAD, current branch, stash, configuration or hooks.
There is no index of our own either: a candidate's tree is its parent's top level with the entry
`workload` exchanged (`ls-tree`, `hash-object --no-filters`, `commit-tree`, `update-ref`), so
that a stale `index.lock`, a running rebase or a clean filter in `.gitattributes` cannot get in the way.

Every git process ends within the call that started it: there is nothing to close.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar, cast

from runner.errors import DiskFullError, RepositoryError, remedy_of
from runner.failpoints import Step, around
from runner.records import Files

if TYPE_CHECKING:
    from git import Git

T = TypeVar("T")

WORKLOAD = "workload"
TRUSTED_FOLDERS = (WORKLOAD, "locked_eval", "images")  # a campaign uses these as committed, never as on disk
IDENTITY = ("autoresearch", "autoresearch@localhost")
REGULAR_FILE = "100644"

_SETTINGS = (
    "core.hooksPath=/dev/null",  # `update-ref` runs the reference-transaction hook
    "core.fsmonitor=false",  # may name a program, which `status` would run
    "core.filesRefLockTimeout=2000",  # milliseconds; somebody else's fetch or push may hold the lock
    "core.fsync=committed,reference",  # the ledger survives a power cut, so must the commits it names
    "i18n.commitEncoding=UTF-8",  # part of the commit's id
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
    "trailer.separators=:",
)

# Variables that say where git's configuration and programs are. Every other GIT_* variable can send
# our objects and refs somewhere else: inside a hook, git itself sets GIT_DIR and GIT_INDEX_FILE.
_HARMLESS_VARIABLES = re.compile(r"GIT_(CONFIG_\w+|EXEC_PATH|DISCOVERY_ACROSS_FILESYSTEM|PYTHON_\w+)")

_KINDS = {"100755": "an executable file", "120000": "a symbolic link", "160000": "a submodule"}


class Staged(NamedTuple):
    """Ids of a candidate in the object database."""

    commit: str
    tree: str


class LoggedCommit(NamedTuple):
    """One commit of a campaign's branch."""

    commit: str
    subject: str
    trailers: Mapping[str, str]


class ObjectGoneError(RepositoryError):
    """Somebody's `git gc --prune=now` took an object that no ref named yet. Writing it again mends that."""


class _Answer(NamedTuple):
    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace").removesuffix("\n")


class Repository:
    """The repository that holds the project. Not for use by two threads at once.

    Args:
        path: the top level or any folder below it; a linked worktree is fine.

    Raises:
        RepositoryError: git is missing, this is no repository or a bare one, somebody else owns it, or it
            has no commit.
    """

    root: Path

    def __init__(self, path: Path) -> None:
        self._git = _start_git()
        self.root = path
        if not path.is_dir():
            raise RepositoryError(f"there is no folder {path}", "change to the folder of the clone")
        found = self._run("rev-parse", "--is-bare-repository", "--is-inside-work-tree", check=False)
        if found.status != 0:
            raise _no_repository(path, found.stderr)
        bare, inside = found.text.split()
        if bare == "true" or inside == "false":
            raise RepositoryError(
                f"{path} is {'a bare repository' if bare == 'true' else 'inside a .git folder'}, without files",
                "git clone it, and run this inside the clone",
            )
        self.root = Path(os.fsdecode(self._run("rev-parse", "--show-toplevel").stdout.removesuffix(b"\n")))
        if self.ref("HEAD") is None:
            raise RepositoryError(
                f"{self.root} has no commit yet", "git add --all && git commit -m 'autoresearch'"
            )

    # Reading

    def check_ready(self) -> str:
        """Make sure that a new campaign would use what the user sees.

        Other paths may be dirty (`program.md` is read from disk), and so may be a merge in progress
        elsewhere. Ignored files do not count.

        Returns:
            The commit that HEAD names.

        Raises:
            RepositoryError: HEAD is detached, or `workload/`, `locked_eval/` or `images/` differ from it.
        """
        if self._run("symbolic-ref", "--quiet", "HEAD", check=False).status != 0:
            rebase = any(self._git_path(name).exists() for name in ("rebase-merge", "rebase-apply"))
            raise RepositoryError(
                f"{self.root} is in the middle of a rebase" if rebase else f"HEAD of {self.root} is detached",
                "git rebase --continue, or git rebase --abort" if rebase else "git switch -c NAME",
            )
        changes = self._run(
            *("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"),
            *("--ignore-submodules=none", "--", *TRUSTED_FOLDERS),
        )
        entries = [entry for entry in changes.text.split("\0") if entry]
        if entries:
            named = ", ".join(entry[3:] for entry in entries[:3])
            more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
            raise RepositoryError(
                f"not committed, so the campaign would not use it: {named}{more}",
                f"commit it: git add {' '.join(sorted({e[3:].split('/')[0] for e in entries}))} && git commit; "
                "or put it away: git stash --include-untracked",
            )
        return self.resolve("HEAD")

    def read_workload(self, commit: str) -> dict[str, bytes]:
        """Contents of `workload/` in a commit, by path from the repository root.

        Raises:
            RepositoryError: the folder is missing, or holds anything but regular files.
        """
        listing = self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", f"{WORKLOAD}/").stdout
        blobs: dict[str, str] = {}
        for entry in listing.split(b"\0")[:-1]:
            meta, _, name = entry.partition(b"\t")
            mode, _, blob = meta.decode("ascii").split()
            path = name.decode("utf-8", "surrogateescape")
            if mode != REGULAR_FILE:
                raise _not_a_regular_file(path, mode)
            blobs[path] = blob
        if not blobs:
            raise RepositoryError(
                f"commit {commit[:12]} has no {WORKLOAD}/ folder with files",
                f"git switch to a branch that has one; git log -- {WORKLOAD} shows where it went",
            )
        return dict(zip(blobs, self._read_blobs(blobs.values()), strict=True))

    def resolve(self, revision: str) -> str:
        """The full commit id of a revision; of one that ends in `^{tree}`, the tree id.

        Raises:
            RepositoryError: there is no such commit.
        """
        object_name = revision if revision.endswith("^{tree}") else f"{revision}^{{commit}}"
        answer = self._run("rev-parse", "--verify", "--quiet", object_name, check=False)
        if revision.startswith("-") or answer.status != 0:
            raise RepositoryError(f"there is no commit {revision!r} in {self.root}", "git log --oneline --all")
        return answer.text

    def ref(self, name: str) -> str | None:
        """The commit that a ref names, or None."""
        answer = self._run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        return answer.text if answer.status == 0 else None

    def refs(self, prefix: str) -> dict[str, str]:
        """Every ref below `prefix` (`refs/autoresearch/tried/night`) with the commit that it names."""
        lines = self._run("for-each-ref", "--format=%(refname) %(objectname)", prefix).text.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def is_whole(self, commits: Iterable[str], since: str) -> bool:
        """Whether every object of these commits is in the database, as far as `since` does not have it.

        A power cut can lose what a file system had promised to keep.
        """
        wanted = "".join(f"{commit}\n" for commit in (*commits, f"^{since}")).encode()
        return self._run("rev-list", "--objects", "--quiet", "--stdin", stdin=wanted, check=False).status == 0

    def branch_head(self, branch: str) -> str | None:
        """The commit at the tip of a branch (`autoresearch/night`), or None."""
        return self.ref(f"refs/heads/{branch}")

    def diff(self, old: str, new: str) -> str:
        """`workload/` of two commits as a git unified diff, the same whatever the user's configuration."""
        return self._run(
            *("diff-tree", "-p", "-r", "--text", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"),
            *("--unified=3", "--abbrev=10", "--src-prefix=a/", "--dst-prefix=b/"),
            *(old, new, "--", f"{WORKLOAD}/"),
        ).stdout.decode("utf-8", "replace")  # fmt: skip

    def trailers(self, revision: str) -> LoggedCommit:
        """Subject and trailers of one commit.

        Raises:
            RepositoryError: there is no such commit.
        """
        return self._log("--max-count=1", self.resolve(revision))[0]

    def log_trailers(self, branch: str, base: str) -> list[LoggedCommit]:
        """Commits of a branch since `base`, oldest first; empty when there is no such branch."""
        head = self.branch_head(branch)
        return [] if head is None else self._log("--first-parent", "--reverse", f"{base}..{head}")

    # Writing: objects and refs, nothing else

    def stage(self, *, parent: str, files: Files, message: str, ref: str, when: str) -> Staged:
        """Write a candidate as a commit and name it by a ref, so that it is never lost.

        The same arguments give the same ids, so a crash between any two steps is mended by calling again.
        When the ref names another candidate (of a campaign that the ledger has forgotten), that one gets
        the ref `<ref>-<its id>`.

        Args:
            parent: the champion's commit.
            files: the whole of the candidate's `workload/`; what is not in it is deleted.
            message: the commit message.
            ref: `refs/autoresearch/tried/<tag>/<number>`.
            when: author's and committer's date, ISO 8601; UTC when it names no zone.

        Raises:
            RepositoryError: a path outside `workload/`, or a name that git does not allow.
        """
        self._check_ref_name(ref)
        return write_again(lambda: self._stage(parent, files, message, ref, when))

    def _stage(self, parent: str, files: Files, message: str, ref: str, when: str) -> Staged:
        entries = self._run("ls-tree", "-z", "--full-tree", parent).stdout.split(b"\0")[:-1]
        entries = [entry for entry in entries if entry.partition(b"\t")[2] != WORKLOAD.encode()]
        tree = self._write_tree(entries, files)
        commit = self.make_commit(tree=tree, parent=parent, message=message, when=when)
        self._name_candidate(ref, commit)
        if not self.is_whole([commit], since=parent):
            self._write_tree(entries, files)  # somebody's `git gc --prune=now` came before the name
        return Staged(commit, tree)

    def _write_tree(self, entries: list[bytes], files: Files) -> str:
        """Write the blobs and trees of a candidate; `entries` are what lies beside `workload/`."""
        with around(Step.OBJECTS_WRITTEN):
            workload = self._write_workload(files) if files else None
        if workload is not None:
            entries = [*entries, b"040000 tree " + workload.encode() + b"\t" + WORKLOAD.encode()]
        return self._make_tree(entries)

    def make_commit(self, *, tree: str, parent: str, message: str, when: str) -> str:
        """Write a commit object and return its id. No ref moves; the same arguments give the same id.

        Args:
            tree: tree id, for example of a `Staged`.
            parent: commit id.
            message: the commit message.
            when: author's and committer's date, ISO 8601; UTC when it names no zone.
        """
        date = datetime.fromisoformat(when)
        stamp = int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
        dates = {f"GIT_{who}_DATE": f"@{stamp} +0000" for who in ("AUTHOR", "COMMITTER")}
        arguments = ("commit-tree", "--no-gpg-sign", "-p", parent, "-F", "-", tree)
        with around(Step.COMMIT_WRITTEN):
            return self._run(*arguments, stdin=message.encode("utf-8", "replace"), env=dates).text

    def advance(self, branch: str, new: str, expected_old: str | None) -> None:
        """Move a branch by compare-and-swap. Already being at `new` is fine.

        A checked-out branch is refused, because the checkout would then show the reverse of the new
        commit as the user's own change. A branch checked out while this runs is not seen.

        Args:
            branch: `autoresearch/<tag>`.
            new: commit id.
            expected_old: where the branch must be now; None when it must not exist.

        Raises:
            RepositoryError: the branch is checked out, or somebody else moved it.
        """
        name = f"refs/heads/{branch}"
        self._check_ref_name(name)
        if self.ref(name) == new:
            return
        self.refuse_checked_out(branch)
        with around(Step.BRANCH_ADVANCED):
            answer = self._update_ref(name, new, expected_old)
        held = self.ref(name)
        if held == new:
            return
        if held != expected_old:
            raise RepositoryError(
                f"somebody else moved branch {branch}: it is at {held or 'no commit'}, "
                f"and the ledger expects {expected_old or 'no branch'}",
                f"look: git log --oneline {branch}; then put it back: "
                + (f"git branch -f {branch} {expected_old}" if expected_old else f"git branch -m {branch} NAME"),
            )
        raise _refused("update-ref", answer.stderr)

    def refuse_checked_out(self, branch: str) -> None:
        """A branch that a worktree holds cannot advance under it.

        Raises:
            RepositoryError: names the worktree.
        """
        worktree = self._worktree_of(f"refs/heads/{branch}")
        if worktree is not None:
            raise RepositoryError(
                f"branch {branch} is checked out in {worktree}, so it cannot advance",
                f"git -C {_quoted(worktree)} switch --detach",
            )

    # Inside

    def _run(
        self, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None, check: bool = True
    ) -> _Answer:
        """Run one git command in the top level, cut off from the caller's GIT_* variables."""
        variables = {
            "GIT_OPTIONAL_LOCKS": "0",  # otherwise `status` rewrites the user's index
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **{f"GIT_{who}_NAME": IDENTITY[0] for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": IDENTITY[1] for who in ("AUTHOR", "COMMITTER")},
            **(env or {}),
        }
        strange = [
            name
            for name in os.environ
            if name.startswith("GIT_") and name not in variables and not _HARMLESS_VARIABLES.fullmatch(name)
        ]
        # GitPython can add variables for a child but not take any away; env(1) can, for this child alone.
        command = ["env", *(part for name in strange for part in ("-u", name))] if strange else []
        command += [self._git.GIT_PYTHON_GIT_EXECUTABLE or "git", "-C", str(self.root), "--no-pager"]
        command += [part for setting in _SETTINGS for part in ("-c", setting)]
        with _scratch_errors(), nullcontext() if stdin is None else _as_file(stdin) as stream:
            result = self._git.execute(
                [*command, *arguments],
                istream=stream,
                env=variables,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                start_new_session=True,  # a Ctrl-C on the terminal is for us, not for git
            )
        answer = _Answer(*result)
        if check and answer.status != 0:
            raise _refused(arguments[0], answer.stderr)
        return answer

    def _git_path(self, name: str) -> Path:
        return self.root / self._run("rev-parse", "--git-path", name).text

    def _read_blobs(self, ids: Iterable[str]) -> list[bytes]:
        output = self._run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in ids).encode()).stdout
        contents = []
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            header = output[position:end].decode()
            if not re.fullmatch(r"[0-9a-f]+ blob [0-9]+", header):
                raise RepositoryError(f"the object database of {self.root} is damaged: {header}", "git fsck")
            start, size = end + 1, int(header.split()[2])
            contents.append(output[start : start + size])
            position = start + size + 1
        return contents

    def _write_workload(self, files: Files) -> str:
        """Write the blobs and trees of `workload/` and return its tree id."""
        for path in files:
            _check_workload_path(path)
        with _scratch_errors(), ExitStack() as stack:
            # By descriptor: a file without a name is gone with this process, however that ends.
            streams = [stack.enter_context(_as_file(content)) for content in files.values()]
            names = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in streams]
            written = self._run(
                *("hash-object", "-w", "--no-filters", "--stdin-paths"),
                stdin="".join(f"{name}\n" for name in names).encode(),
            )
        blobs = dict(zip(files, written.text.splitlines(), strict=True))
        return self._write_folder({tuple(path.split("/")[1:]): blob for path, blob in blobs.items()})

    def _write_folder(self, blobs: Mapping[tuple[str, ...], str]) -> str:
        entries = [f"{REGULAR_FILE} blob {blob}\t{path[0]}" for path, blob in blobs.items() if len(path) == 1]
        for folder in sorted({path[0] for path in blobs if len(path) > 1}):
            if (folder,) in blobs:
                raise RepositoryError(f"{folder} is both a file and a folder in {WORKLOAD}/")
            below = {path[1:]: blob for path, blob in blobs.items() if path[0] == folder}
            entries.append(f"040000 tree {self._write_folder(below)}\t{folder}")
        return self._make_tree([entry.encode("utf-8", "surrogateescape") for entry in entries])

    def _make_tree(self, entries: list[bytes]) -> str:
        """Write a tree of lines as `ls-tree` gives them.

        By `hash-object`, because `mktree` reads no settings, so that it does not wait for the disk.
        """
        parts = []
        for entry in entries:
            facts, _, name = entry.partition(b"\t")
            mode, kind, found = facts.split()
            order = name + b"/" if kind == b"tree" else name
            parts.append((order, mode.lstrip(b"0") + b" " + name + b"\0" + bytes.fromhex(found.decode("ascii"))))
        body = b"".join(part for _, part in sorted(parts))
        return self._run("hash-object", "-w", "-t", "tree", "--stdin", stdin=body).text

    def _name_candidate(self, ref: str, commit: str) -> None:
        held = self.ref(ref)
        if held == commit:
            return
        commands = [f"update {ref}", commit, held or ""]  # "": it must not exist
        if held is not None:
            commands += [f"update {ref}-{held[:12]}", held, ""]
            if self.ref(f"{ref}-{held[:12]}") == held:
                del commands[3:]
        with around(Step.CANDIDATE_NAMED):
            self._run("update-ref", "-z", "--stdin", stdin="".join(part + "\0" for part in commands).encode())

    def _update_ref(self, name: str, new: str, expected_old: str | None) -> _Answer:
        arguments = ("update-ref", "-m", "autoresearch", name, new, expected_old or "")  # "": must not exist
        return self._run(*arguments, check=False)

    def _check_ref_name(self, name: str) -> None:
        if self._run("check-ref-format", name, check=False).status != 0:
            raise RepositoryError(f"{name!r} is no name that git allows", "choose another --tag")

    def _worktree_of(self, name: str) -> str | None:
        worktree = None
        for line in self._run("worktree", "list", "--porcelain").text.splitlines():
            key, _, value = line.partition(" ")
            if key == "worktree":
                worktree = value
            elif key == "branch" and value == name:
                return worktree
        return None

    def _log(self, *arguments: str) -> list[LoggedCommit]:
        form = "--format=%H%x00%s%x00%(trailers:only,unfold)%x00"
        fields = self._run("log", "--no-color", "--no-show-signature", form, *arguments).text.split("\0")
        commits = []
        for commit, subject, block in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            pairs = [line.partition(": ") for line in block.splitlines()]
            trailers = {key: value for key, _, value in pairs if key}
            commits.append(LoggedCommit(commit.strip(), subject, MappingProxyType(trailers)))
        return commits


def write_again(write: Callable[[], T]) -> T:
    """The result of `write`, which writes objects and names them; done again when they were taken in between."""
    try:
        return write()
    except ObjectGoneError:
        return write()


def _start_git() -> Git:
    try:
        from git import Git  # lazy: GitPython looks for the git program on import, and fails without one
    except ImportError as error:
        raise RepositoryError(f"git does not start: {_first_line(str(error))}", "apt-get install git") from error
    return Git()


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
    """`content` as an open file, which is all that GitPython passes on; the caller closes it."""
    stream = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115
    stream.write(content)
    stream.seek(0)
    return stream


def _check_workload_path(path: str) -> None:
    """Refuse what git would store but no checkout should hold. `edits` refuses it first, by name."""
    parts = path.split("/")
    bad = {"", ".", ".."}
    if parts[0] != WORKLOAD or len(parts) < 2 or bad & set(parts) or any(p.lower() == ".git" for p in parts):
        raise RepositoryError(f"{path!r} is not a path inside {WORKLOAD}/")
    if re.search(r"[\0-\x1f\x7f]", path):
        raise RepositoryError(f"{path!r} has control characters in its name")


def _not_a_regular_file(path: str, mode: str) -> RepositoryError:
    remedy = {
        "100755": f"git update-index --chmod=-x {_quoted(path)} && git commit",
        "120000": f"put the file itself in its place, then git add {_quoted(path)} && git commit",
    }.get(mode, f"git rm --cached {_quoted(path)} && git commit")
    return RepositoryError(
        f"{path} is {_KINDS.get(mode, f'of mode {mode}')}; {WORKLOAD}/ may hold regular files only", remedy
    )


def _no_repository(path: Path, stderr: str) -> RepositoryError:
    if "dubious ownership" in stderr:
        command = re.search(r"git config --global --add safe\.directory .+", stderr)
        return RepositoryError(
            f"{path} belongs to another user, and git refuses to work in it",
            command.group() if command else f"git config --global --add safe.directory {_quoted(str(path))}",
        )
    if "not a git repository" in stderr:
        return RepositoryError(f"{path} is not inside a git repository", "run this inside the clone")
    return RepositoryError(f"git cannot open {path}: {_first_line(stderr)}", f"git -C {_quoted(str(path))} status")


def _refused(command: str, stderr: str) -> RepositoryError | DiskFullError:
    lock = re.search(r"'(.+\.lock)': File exists", stderr)
    if lock:
        return RepositoryError(
            f"git {command} found a lock: {lock.group(1)}",
            f"when no other git is running: rm {_quoted(lock.group(1))}",
        )
    clash = re.search(r"'refs/heads/([^']+)' exists; cannot create", stderr)
    if clash:
        name = clash.group(1)
        return RepositoryError(
            f"a branch named {name} is in the way of the campaign's branch", f"git branch -m {name} NAME"
        )
    if re.search(r"nonexistent object|is unavailable|bad object|not a valid object|invalid object", stderr):
        return ObjectGoneError(f"git {command} misses an object: {_first_line(stderr)}", "git fsck")
    failed = f"git {command} failed: {_first_line(stderr)}"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in stderr:
            kind = DiskFullError if number in (errno.ENOSPC, errno.EDQUOT) else RepositoryError
            return kind(failed, remedy_of(OSError(number, "")))
    return RepositoryError(failed, "git fsck")


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^(error|fatal): ", "", lines[0]) if lines else "it gave no reason"


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w@%+=:,./-]+", path) else "'" + path.replace("'", "'\\''") + "'"
