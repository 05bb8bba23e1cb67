"""The project's repository, as a campaign uses it: candidates and kept commits as objects and refs.

Nothing here touches the user's checkout, index, HEAD, current branch, stash, configuration or hooks.
There is no index of our own either: a candidate's tree is its parent's top level with the entry
`workload` exchanged (`ls-tree`, `hash-object --no-filters`, `commit-tree`, `update-ref`), so
that a stale `index.lock`, a running rebase or a clean filter in `.gitattributes` cannot get in the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from runner.errors import DiskFullError, RepositoryError
from runner.failpoints import Step, around
from runner.records import Files
from runner.storage.git import FOLDER, REGULAR_FILE, Answer, Entry, Git, write_again
from runner.storage.git_errors import ObjectGoneError, cannot_open, refusal

WORKLOAD = "workload"
TRUSTED_FOLDERS = (WORKLOAD, "locked_eval", "images")  # a campaign uses these as committed, never as on disk

_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KINDS = {"100755": "an executable file", "120000": "a symbolic link", "160000": "a submodule"}


class Staged(NamedTuple):
    """Ids of a candidate in the object database."""

    commit: str
    tree: str


class Repository:
    """The repository that holds the project. Not for use by two threads at once.

    Args:
        path: the top level or any folder below it; a linked worktree is fine.

    Raises:
        RepositoryError: git is missing, this is no repository or a bare one, another user owns it, this git
            cannot read its format, or it has no commit.
    """

    def __init__(self, path: Path) -> None:
        self._git = Git(path)
        self._last_read: tuple[str, dict[str, bytes]] | None = None
        if not path.is_dir():
            raise RepositoryError(f"there is no folder {path}", "change to the folder of the clone")
        found = self._git.run("rev-parse", "--is-bare-repository", "--is-inside-work-tree", check=False)
        if found.status != 0:
            raise cannot_open(path, found.stderr)
        bare, inside = found.text.split()
        if bare == "true" or inside == "false":
            raise RepositoryError(
                f"{path} is {'a bare repository' if bare == 'true' else 'inside a .git folder'}, without files",
                "git clone it, and run this inside the clone",
            )
        top_level = self._git.run("rev-parse", "--show-toplevel").stdout.removesuffix(b"\n")
        self._git.folder = Path(os.fsdecode(top_level))
        if self._git.commit_at("HEAD") is None:
            raise RepositoryError(
                f"{self.root} has no commit yet", "git add --all && git commit -m 'autoresearch'"
            )

    @property
    def root(self) -> Path:
        """The top level."""
        return self._git.folder

    # Reading

    def check_ready(self) -> str:
        """Make sure that a new campaign would use the files that the user sees.

        HEAD may be detached: a campaign starts from a commit. Other paths may be dirty (`program.md` is read from
        disk), and a merge may be in progress there. Ignored files do not count.

        Returns:
            The commit that HEAD names.

        Raises:
            RepositoryError: a rebase is in progress, or `workload/`, `locked_eval/` or `images/` differ from HEAD.
        """
        if self._is_rebasing():
            raise RepositoryError(
                f"{self.root} is in the middle of a rebase", "git rebase --continue, or git rebase --abort"
            )
        changes = self._git.run(
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
                "or set it aside: git stash --include-untracked",
            )
        return self.resolve("HEAD")

    def _is_rebasing(self) -> bool:
        if self._git.run("symbolic-ref", "--quiet", "HEAD", check=False).status == 0:
            return False  # during a rebase, HEAD is detached
        traces = self._git.run("rev-parse", "--git-path", "rebase-merge", "--git-path", "rebase-apply").text
        return any((self.root / trace).exists() for trace in traces.splitlines())

    def read_workload(self, commit: str) -> dict[str, bytes]:
        """Contents of `workload/` in a commit, by path from the repository root.

        The last answer is kept, if it was asked for by id: a night needs its champion's files again and again.

        Raises:
            RepositoryError: the folder is missing, or holds anything but regular files.
        """
        if not _OBJECT_ID.fullmatch(commit):
            return self._read_workload(commit)
        if self._last_read is None or self._last_read[0] != commit:
            self._last_read = commit, self._read_workload(commit)
        return dict(self._last_read[1])

    def _read_workload(self, commit: str) -> dict[str, bytes]:
        entries = self._git.list_tree("-r", commit, "--", f"{WORKLOAD}/")
        for entry in entries:
            if entry.mode != REGULAR_FILE:
                raise _not_a_regular_file(entry.name, entry.mode)
        if not entries:
            raise RepositoryError(
                f"commit {commit[:12]} has no {WORKLOAD}/ folder with files",
                f"git switch to a branch that has one; git log -- {WORKLOAD} shows where it went",
            )
        contents = self._git.read_blobs(entry.id for entry in entries)
        return dict(zip((entry.name for entry in entries), contents, strict=True))

    def resolve(self, revision: str) -> str:
        """The full commit id of a revision; of one that ends in `^{tree}`, the tree id.

        Raises:
            RepositoryError: there is no such commit.
        """
        object_name = revision if revision.endswith("^{tree}") else f"{revision}^{{commit}}"
        answer = self._git.run("rev-parse", "--verify", "--quiet", object_name, check=False)
        if revision.startswith("-") or answer.status != 0:
            raise RepositoryError(f"there is no commit {revision!r} in {self.root}", "git log --oneline --all")
        return answer.text

    def message(self, commit: str) -> str:
        """The message of a commit."""
        return self._git.run("log", "-1", "--format=%B", "--no-show-signature", commit).text

    def refs(self, prefix: str) -> dict[str, str]:
        """Every ref below `prefix` (`refs/autoresearch/tried/night`) with the commit that it names."""
        return self._git.refs(prefix)

    def is_whole(self, commits: Iterable[str], since: str) -> bool:
        """Whether every object of these commits that `since` does not have is in the database.

        A power cut can lose data that a file system had promised to keep.
        """
        wanted = "".join(f"{commit}\n" for commit in (*commits, f"^{since}")).encode()
        listed = self._git.run("rev-list", "--objects", "--quiet", "--stdin", stdin=wanted, check=False)
        return listed.status == 0

    def branch_head(self, branch: str) -> str | None:
        """The commit at the tip of a branch (`autoresearch/night`), or None."""
        return self._git.commit_at(f"refs/heads/{branch}")

    # Writing: objects and refs, nothing else

    def stage(self, *, parent: str, files: Files, message: str, ref: str, when: str) -> Staged:
        """Write a candidate as a commit and name it by a ref, so that it is never lost.

        The same arguments give the same ids, so a second call completes one that a crash interrupted. When the
        ref names another candidate (of a campaign that the ledger has forgotten), that one gets `<ref>-<its id>`.

        Args:
            parent: the champion's commit.
            files: the whole of the candidate's `workload/`; a file that is absent here is deleted.
            message: the commit message.
            ref: `refs/autoresearch/tried/<tag>/<number>`.
            when: author's and committer's date, ISO 8601; UTC when it names no zone.

        Raises:
            RepositoryError: a path is outside `workload/`, git does not allow a name, or objects vanish again and
                again.
        """
        self._check_ref_name(ref)
        for path in files:
            _check_workload_path(path)
        return write_again(lambda: self._stage(parent, files, message, ref, when))

    def _stage(self, parent: str, files: Files, message: str, ref: str, when: str) -> Staged:
        entries = [entry for entry in self._git.list_tree(parent) if entry.name != WORKLOAD]
        with around(Step.OBJECTS_WRITTEN):
            below = {path.removeprefix(f"{WORKLOAD}/"): content for path, content in files.items()}
            if below:
                entries.append(Entry(FOLDER, "tree", self._git.write_files(below), WORKLOAD))
        tree = self._git.write_tree(entries)
        commit = self.make_commit(tree=tree, parent=parent, message=message, when=when)
        self._name_candidate(ref, commit)
        if not self.is_whole([commit], since=parent):
            raise ObjectGoneError(f"objects of candidate {commit[:12]} are missing", "git fsck")
        return Staged(commit, tree)

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
            return self._git.run(*arguments, stdin=message.encode("utf-8", "replace"), env=dates).text

    def _name_candidate(self, ref: str, commit: str) -> None:
        held = self._git.commit_at(ref)
        if held == commit:
            return
        commands = [f"update {ref}", commit, held or ""]  # "": it must not exist
        if held is not None:
            spare = f"{ref}-{held[:12]}"
            if self._git.commit_at(spare) != held:
                commands += [f"update {spare}", held, ""]
        with around(Step.CANDIDATE_NAMED):
            self._git.update_refs(commands)

    def advance(self, branch: str, new: str, expected_old: str | None, step: Step = Step.BRANCH_ADVANCED) -> None:
        """Move a branch by compare-and-swap. Already being at `new` is fine.

        A checked-out branch is refused, because the checkout would then show the reverse of the new
        commit as the user's own change. A branch that is checked out while this runs is not noticed.

        Args:
            branch: `autoresearch/<tag>`, or that of its tip.
            new: commit id.
            expected_old: where the branch must be now; None when it must not exist.
            step: what moving it means.

        Raises:
            ObjectGoneError: a garbage collection removed the commit; write it again.
            RepositoryError: the branch is checked out, or was moved by someone else.
        """
        name = f"refs/heads/{branch}"
        self._check_ref_name(name)
        if self._git.commit_at(name) == new:
            return
        self.refuse_checked_out(branch)
        with around(step):
            answer = self._git.update_ref(name, new, expected_old)
        held = self._git.commit_at(name)
        if held != new:
            raise _not_advanced(branch, answer, held, expected_old)

    def refuse_checked_out(self, branch: str) -> None:
        """A branch that a worktree holds cannot advance under it.

        Raises:
            RepositoryError: names the worktree.
        """
        worktree = self._git.worktree_of(f"refs/heads/{branch}")
        if worktree is not None:
            raise RepositoryError(
                f"branch {branch} is checked out in {worktree}, so it cannot advance",
                f"git -C {quote(worktree)} switch --detach",
            )

    def _check_ref_name(self, name: str) -> None:
        if self._git.run("check-ref-format", name, check=False).status != 0:
            raise RepositoryError(f"git does not allow the name {name!r}", "choose another --tag")


def _check_workload_path(path: str) -> None:
    """Refuse paths that git would store but no checkout should hold. `edits` refuses them first, by name."""
    parts = path.split("/")
    bad = {"", ".", ".."}
    if parts[0] != WORKLOAD or len(parts) < 2 or bad & set(parts) or any(p.lower() == ".git" for p in parts):
        raise RepositoryError(f"{path!r} is not a path inside {WORKLOAD}/")
    if re.search(r"[\0-\x1f\x7f]", path):
        raise RepositoryError(f"{path!r} has control characters in its name")


def _not_advanced(
    branch: str, answer: Answer, held: str | None, expected: str | None
) -> RepositoryError | DiskFullError:
    if answer.status == 0 and held is None:
        return ObjectGoneError(f"the new commit of branch {branch} is missing", "git fsck")
    if held == expected:
        return refusal("update-ref", answer.stderr)
    put_back = f"git branch -f {branch} {expected}" if expected else f"git branch -m {branch} NAME"
    return RepositoryError(
        f"branch {branch} was moved by another program: it is at {held or 'no commit'}, "
        f"and the ledger expects {expected or 'no branch'}",
        f"inspect it: git log --oneline {branch}; then put it back: {put_back}",
    )


def _not_a_regular_file(path: str, mode: str) -> RepositoryError:
    remedy = {
        "100755": f"git update-index --chmod=-x {quote(path)} && git commit",
        "120000": f"put the file itself in its place, then git add {quote(path)} && git commit",
    }.get(mode, f"git rm --cached {quote(path)} && git commit")
    return RepositoryError(
        f"{path} is {_KINDS.get(mode, f'of mode {mode}')}; {WORKLOAD}/ may hold regular files only", remedy
    )
