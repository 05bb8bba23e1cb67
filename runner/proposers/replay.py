"""Replay of a folder of patches in name order: an earlier night, or patches written by hand."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from email.errors import MessageError
from email.header import decode_header, make_header
from pathlib import Path
from typing import NamedTuple

from runner import edits
from runner.errors import ProposerError
from runner.records import Files, NoProposal, Patch, Proposal, ProposalRequest
from runner.untrusted import prompt_text

HYPOTHESIS_CHARACTERS = 1000
CHECKSUM = "replay"
"""Key in `parameters`: CRC-32 of the patch file, so that a changed folder replays only its new patches."""

_EMAIL = re.compile(r"From [0-9a-f]{40} |From: |Subject: |Date: ")
_TAG = re.compile(r"^\[[^\]]*PATCH[^\]]*\]\s*", re.IGNORECASE)


class HypothesisAndDiff(NamedTuple):
    """The two halves of a patch file."""

    hypothesis: str  # "" if there is no text above the diff
    diff: str  # "" if the file has none; `edits.apply` reports it


class ReplayProposer:
    """A proposer of one patch per call. The ledger says which ones are done, so it resumes anywhere.

    Args:
        folder: contains the `*.patch` files.

    Raises:
        ProposerError: no folder, or no patch in it.
    """

    name = "replay"
    model = None
    prefetches = False

    def __init__(self, folder: Path | None) -> None:
        hint = "pass a folder with *.patch files: --from DIR"
        if folder is None:
            raise ProposerError("the replay proposer has no folder of patches", hint)
        self.folder = folder.expanduser()
        if not self.folder.is_dir():
            raise ProposerError(f"{self.folder} is not a folder", hint)
        if not self._patches():
            raise ProposerError(f"{self.folder} contains no *.patch file", hint)

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose the first patch that is not in the ledger.

        Raises:
            ProposerError: the folder or the patch can no longer be read.
        """
        if request.failed is not None:
            return NoProposal(reason="a replayed patch cannot be fixed", exhausted=False, proposer=self.name)
        patches = self._patches()
        done = {one.parameters.get(CHECKSUM) for one in request.history if one.proposer == self.name}
        for path in patches:
            proposal = read_patch(path)
            if proposal.parameters[CHECKSUM] not in done:
                return proposal
        reason = f"all {len(patches)} patches of {self.folder} were replayed"
        return NoProposal(reason=reason, exhausted=True, proposer=self.name)

    def _patches(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.glob("*.patch") if path.is_file())
        except OSError as error:
            raise ProposerError(f"{self.folder} cannot be read: {error.strerror}") from error


class SinglePatch:
    """A proposer of one patch file, once.

    Args:
        path: the patch; read now, so that a wrong path is reported before anything starts.

    Raises:
        ProposerError: it cannot be read.
    """

    name = "patch"
    model = None
    prefetches = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.used = False
        self._proposal = replace(read_patch(path), proposer=self.name)

    def check(self, files: Files) -> None:
        """Make sure that the patch applies to the tip's files: one that does not is no experiment.

        Raises:
            ProposerError: it does not.
        """
        if (reason := self._misfit(files)) is not None:
            raise ProposerError(
                f"{self.path} does not apply to the tip: {reason}",
                "make it against autoresearch/TAG-tip (HEAD before there is one): git diff BRANCH -- workload",
            )

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose the patch the first time, and nothing afterwards."""
        if request.failed is not None:
            return NoProposal(reason="a patch cannot be fixed", exhausted=False, proposer=self.name)
        if self.used:
            return NoProposal(reason=f"{self.path} was tried", exhausted=True, proposer=self.name)
        if (reason := self._misfit(request.files)) is not None:
            return NoProposal(reason=reason, exhausted=True, proposer=self.name)
        self.used = True
        return self._proposal

    def _misfit(self, files: Files) -> str | None:
        applied = edits.apply(files, self._proposal.edits)
        return applied.reason if isinstance(applied, edits.Refusal) else None


def read_patch(path: Path) -> Proposal:
    """Read one patch file as a proposal. `edits.apply` checks it later.

    Args:
        path: a git unified diff against the repository root, with or without text above it.

    Raises:
        ProposerError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # One byte above the limit is enough for `edits` to refuse it: a 50 MB file is never loaded.
            data = file.read(edits.MAX_PATCH_BYTES * 4 + 1)
    except OSError as error:
        raise ProposerError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    # A damaged character becomes U+FFFD, which `edits` refuses: never a silently different patch.
    hypothesis, diff = split(data.decode("utf-8", errors="replace"))
    return Proposal(
        hypothesis=prompt_text(hypothesis or path.name, HYPOTHESIS_CHARACTERS),
        edits=(Patch(text=diff),),
        proposer=ReplayProposer.name,
        parameters={CHECKSUM: float(zlib.crc32(data))},
    )


def split(text: str) -> HypothesisAndDiff:
    """Split a patch file into the text above the diff and the diff; of an email, take subject and message."""
    # Not `splitlines`: the diff must stay the same byte for byte.
    lines = text.split("\n")
    start = next((number for number in range(len(lines)) if _diff_starts(lines, number)), len(lines))
    above = "\n".join(lines[:start]).replace("\r", "")
    diff = "\n".join(lines[start:])
    if _EMAIL.match(above):
        above = _from_email(above)
    return HypothesisAndDiff(above.strip(), diff)


def _diff_starts(lines: list[str], number: int) -> bool:
    line = lines[number]
    following = lines[number + 1] if number + 1 < len(lines) else ""
    return line.startswith("diff --git ") or (line.startswith("--- ") and following.startswith("+++ "))


def _from_email(text: str) -> str:
    head, _, body = text.partition("\n\n")
    unfolded = re.sub(r"\n[ \t]+", " ", head)
    found = re.search(r"^Subject: *(.*)$", unfolded, re.MULTILINE)
    subject = _TAG.sub("", _decoded(found[1])) if found else ""
    message = re.split(r"^---$", body, maxsplit=1, flags=re.MULTILINE)[0]  # below it: the list of files
    return f"{subject}\n\n{message.strip()}"


def _decoded(subject: str) -> str:
    """Decode `=?UTF-8?q?…?=`; a malformed one is left unchanged."""
    try:
        return str(make_header(decode_header(subject)))
    except (MessageError, LookupError, ValueError):
        return subject
