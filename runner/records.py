"""The nouns of a campaign: frozen values that rooms pass to each other. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol


class Verdict(StrEnum):
    """The verdict on an experiment."""

    KEEP = "keep"  # of a certificate, or of the baseline: it is the champion
    ACCEPT = "accept"  # an edit that is on the tip, not certified yet
    DISCARD = "discard"
    UNCLEAR = "unclear"  # a certificate that proved nothing, either way
    CRASH = "crash"  # the candidate's program failed, hung without a checkpoint, or could not be scored
    INVALID = "invalid"  # edits refused, claims that no model makes, or claims that the audit refutes
    INFRA = "infra"  # our fault: says nothing about the candidate


class Phase(StrEnum):
    """The purpose of a container."""

    TRAIN = "train"
    SCORE = "score"  # claims over the validation rows
    AUDIT = "audit"  # the same checkpoint without the answers
    TEST = "test"  # claims over the sealed rows


class RunEnd(StrEnum):
    """The end of one container execution, by PID 1's exit code and the host's own clock."""

    FINISHED = "finished"  # the candidate returned by itself
    DEADLINE = "deadline"  # killed at the deadline: a normal end of training
    FAILED = "failed"  # the candidate exited non-zero or died by a signal
    OUT_OF_MEMORY = "out_of_memory"
    STARTUP = "startup"  # the interpreter or `import torch` did not come up: infrastructure
    LOST = "lost"  # killed by an unknown hand, or vanished: infrastructure
    STOPPED = "stopped"  # train only: ended early by the host as unpromising; not a failure


@dataclass(frozen=True, kw_only=True)
class Replace:
    """Replace the only occurrence of `old` in an existing file."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Write:
    """Create a file or replace it whole."""

    path: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Remove a file."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A git unified diff against the repository root, applied exactly or not at all."""

    text: str


Edit = Replace | Write | Delete | Patch

Files = Mapping[str, bytes]
"""Contents of `workload/` by path from the repository root (`workload/train.py`)."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The cost of one response of a language model."""

    model: str
    request_id: str | None
    input_tokens: int  # not read from and not written to the cache
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float


@dataclass(frozen=True, kw_only=True)
class UsageTotals:
    """Sums over every response of a campaign, those included that led to no experiment."""

    num_responses: int
    input_tokens: int  # not read from and not written to the cache
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A hypothesis and the edits that test it."""

    hypothesis: str
    edits: tuple[Edit, ...]
    proposer: str
    category: str | None = None
    model: str | None = None
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """The choice of a numeric proposer, so that it can rebuild its state from the ledger."""
    certifies: tuple[int, ...] = ()  # accepted edits whose sum it compares with the champion
    transcript: object | None = None  # JSON of the conversation, for people


@dataclass(frozen=True, kw_only=True)
class NoProposal:
    """The proposer has nothing this time, or nothing any more."""

    reason: str
    exhausted: bool  # True: the campaign ends here (a replay folder is used up)
    proposer: str
    model: str | None = None
    unfinished: bool = False  # True: asked again, the conversation continues with the answers that it has
    transcript: object | None = None  # JSON of the conversation, for people


class Journal(Protocol):
    """The ledger as a proposer sees it that pays for answers. One journal is one conversation.

    A response is opened when its first byte says what it costs, and closed with what it said before anything
    else is done with it. A night that was killed finds it here and does not ask again.
    """

    def refusal(self) -> str | None:
        """Return why no further request may be sent now, in one sentence; None: one may."""

    def exhausted(self) -> str | None:
        """Say in one sentence why this conversation has cost enough, and `refusal` says it; None: it may go on."""

    def recall(self, turn: int, request_sha256: str) -> Any | None:
        """The body that `close_answer` was given for the same request; None: it must be sent.

        Args:
            turn: of the conversation, from 1.
            request_sha256: of all that decides the answer; nothing else, and no secret.
        """

    def open_answer(self, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book what is known at the begin of a response; returns the number to close it with."""

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Correct the booking when the response ends, and keep its body (JSON); None: it did not come whole."""

    def check(self, files: Files) -> str:
        """Run a submission for a moment, unless that is done; why it is no good, or nothing."""


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """Findings of the audit of one trial's claims; see `docs/evaluation.md`."""

    claimed_bpb: float
    num_positions: int  # drawn and answered
    mean_nats: float  # estimated mean overstatement per token
    se_nats: float  # its standard error
    upper_nats: float  # what is added to the claim, per token; never negative
    exceedances: tuple[int, ...]  # drawn positions that overstate by more than 0.1, 0.3, 1 and 3 nats
    repeat: float | None  # mean total variation between equal passes; None: not measured
    suffix: float | None  # … between passes that differ after the drawn position
    neighbors: float | None  # … between passes that differ in other rows
    finding: str | None = None  # name of what the claims are refused for
    reason: str | None = None  # the sentence for it


@dataclass(frozen=True, kw_only=True)
class SealedScore:
    """A score on the sealed test rows: for a person, never for a proposer or a decision."""

    number: int  # of the experiment
    seed: int  # of the trial
    val_bpb: float  # audited, of the same checkpoint
    test_bpb: float


@dataclass(frozen=True, kw_only=True)
class StopReason:
    """The reason why a running training was unpromising; see `runner/decision/early_stopping.py`."""

    fraction: float  # of its time, when that was found
    loss: float  # mean that it printed, in whatever unit; untrusted
    tip_loss: float  # of the tip under the same seed at the same time
    chance: float  # predicted, to be accepted


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses that a training printed, at fixed fractions of its time. Untrusted."""

    losses: tuple[float | None, ...]  # None: nothing was printed just before
    stop_reason: StopReason | None = None  # why it was stopped, or finished on purpose all the same


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One container execution."""

    phase: Phase
    seed: int
    end: RunEnd
    exit_code: int | None
    wall_seconds: float | None  # of candidate code; None when it never started
    cpu_seconds: float | None  # of candidate code and its waited-for children, as the kernel counts
    others_cpu_seconds: float | None = None  # CPU time of other programs on its cores; None: not counted
    clock_mhz: float | None = None  # train only: mean clock of the GPU's processors, else of its cores
    log_tail: str = ""  # train only: cleaned text of the candidate, untrusted
    val_bpb: float | None = None  # score: as claimed; audit: as audited
    claims_sha256: str | None = None  # score: of its claims; audit: of the claims that it examined
    audit: AuditRecord | None = None  # audit only
    curve: Curve | None = None  # train only
    opened_at: str | None = None  # UTC, ISO 8601, to the second: before its container was requested
    closed_at: str | None = None  # … when it had ended


class TrialKind(StrEnum):
    """The purpose of a measurement."""

    CANDIDATE = "candidate"  # for its own verdict
    CONTROL = "control"  # a tip measured again, or a champion in a certificate


class Outcome(StrEnum):
    """The outcome of a trial."""

    SCORED = "scored"
    CRASH = "crash"  # the program failed, hung without a checkpoint, or could not be scored
    INVALID = "invalid"  # claims that no model makes, or claims that the audit refutes
    STOPPED = "stopped"  # ended early by the host: unpromising
    CONTENDED = "contended"  # other programs used its cores: says nothing about the candidate, repeated
    LOST = "lost"  # the infrastructure failed, or the controller was killed: repeated


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One program under one seed: trained, scored and, where a keep may rest on it, audited and sealed."""

    seed: int
    outcome: Outcome
    runs: tuple[RunRecord, ...] = ()
    reason: str | None = None  # why there is no score, in one sentence
    val_bpb: float | None = None  # audited where there was an audit, as claimed otherwise
    claims_sha256: str | None = None
    sealed: bool = False  # its checkpoint has a score on the sealed rows
    kind: TrialKind = TrialKind.CANDIDATE
    id: int = 0  # in the ledger; 0: not recorded there
    opened_seq: int = 0  # ticks of the campaign's logical clock
    closed_seq: int = 0

    @property
    def audit(self) -> AuditRecord | None:
        """Findings of its audit, if there was one."""
        return next((run.audit for run in reversed(self.runs) if run.audit is not None), None)

    @property
    def audited(self) -> bool:
        """Whether an audit confirmed its claims."""
        return self.outcome is Outcome.SCORED and self.audit is not None and self.audit.finding is None

    @property
    def claimed_bpb(self) -> float | None:
        """Score of the claims as they came, before any audit."""
        scores = (run.val_bpb for run in self.runs if run.phase is Phase.SCORE)
        return next((score for score in scores if score is not None), None)

    @property
    def opened_at(self) -> str | None:
        """UTC, ISO 8601, to the second: before its first container was requested."""
        return self.runs[0].opened_at if self.runs else None

    @property
    def training(self) -> RunRecord | None:
        """Its training, if that began."""
        return next((run for run in self.runs if run.phase is Phase.TRAIN), None)


@dataclass(frozen=True, kw_only=True)
class AuditPolicy:
    """The scrutiny of one trial's claims."""

    audit: bool
    seal_below_bpb: float | None = None  # audited scores up to this are sealed, and their claims kept for audits


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The basis of a verdict; see `docs/statistics.md`. Effects are differences of scores: negative is better."""

    trials: tuple[int, ...]  # ids of the candidate's trials
    pool: tuple[int, ...]  # … of what it is compared with: the tip, or the champion
    delta_bpb: float  # difference of the means
    se_bpb: float  # its standard error
    sigma_bpb: float  # noise standard deviation of one trial
    better: float  # probability that the true effect is an improvement
    effect_bpb: float  # posterior mean of it
    low_bpb: float  # ends of its central 90 %
    high_bpb: float


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A verdict with what it rests on."""

    verdict: Verdict
    reason: str
    val_bpb: float | None = None
    delta_bpb: float | None = None
    sigma_bpb: float | None = None
    figures: Figures | None = None

    @property
    def keep(self) -> bool:
        """Whether the candidate becomes the champion."""
        return self.verdict is Verdict.KEEP


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One row of the ledger, as reports and proposers read it."""

    number: int  # 0 is the baseline
    hypothesis: str
    proposer: str
    verdict: Verdict | None  # None: still running, or interrupted
    reason: str | None = None  # one sentence on why
    category: str | None = None
    model: str | None = None
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    retry_of: int | None = None
    certifies: tuple[int, ...] = ()  # of a certificate: the accepted edits that it compares with the champion
    diff: str = ""
    champion: int | None = None  # number of the experiment that was kept last when it was opened
    parent: int | None = None  # … of the one whose program it edits: the tip then, or its champion
    tried_commit: str | None = None
    kept_commit: str | None = None
    val_bpb: float | None = None
    delta_bpb: float | None = None  # expected effect on the tip, or measured gain; negative is better
    sigma_bpb: float | None = None  # the noise figure that the verdict used
    log_tail: str = ""  # of its last training; untrusted
    cost_usd: float = 0.0
    started_at: str | None = None  # UTC, ISO 8601
    ended_at: str | None = None
    image_id: str | None = None
    layer_digest: str | None = None
    figures: Figures | None = None
    trials: tuple[Trial, ...] = ()  # closed ones, in the order in which they were opened
    control_trials: tuple[Trial, ...] = ()  # … that measured it again as tip, or as champion
    opened_seq: int = 0  # ticks of the campaign's logical clock; 0: not yet
    closed_seq: int = 0
    kept_seq: int = 0

    @property
    def is_certificate(self) -> bool:
        """Whether it compares the tip with the champion."""
        return bool(self.certifies)

    @property
    def is_idea(self) -> bool:
        """Whether it tries an idea: it is neither the baseline nor a certificate."""
        return self.number > 0 and not self.certifies

    @property
    def commit(self) -> str | None:
        """The commit of its program: on the champion's branch, else its own."""
        return self.kept_commit or self.tried_commit

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """Every container execution of its own trials, in order."""
        return tuple(run for trial in self.trials for run in trial.runs)

    @property
    def controls(self) -> tuple[RunRecord, ...]:
        """Every container execution of its control trials, in order."""
        return tuple(run for trial in self.control_trials for run in trial.runs)


@dataclass(frozen=True, kw_only=True)
class ProposalRequest:
    """All that a proposer may know: code, scores and cleaned logs; never data. And where it books."""

    number: int  # of the experiment that comes of it, unless others come first
    program: str  # program.md
    profile: str  # "cpu", "cuda", or a tier of it: the module of `workload/sizes/`
    train_seconds: float
    files: Files  # the workload/ of the tip
    history: tuple[Experiment, ...]  # every closed experiment, oldest first, the baseline included
    running: Experiment | None = None  # without a verdict: it is measured meanwhile
    failed: Experiment | None  # the crash to repair, on the one retry of an idea
    seed: int
    journal: Journal
    leaving: Callable[[], bool] = lambda: False  # the controller ends: an answer on its way is cut off


class Observer(Protocol):
    """Receives progress. Calls may come from any thread and must return at once."""

    def note(self, message: str) -> None:
        """One sentence on set-up work or on something that a person should know."""

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """The loop starts: experiments done and wanted; `ends_at` on the monotonic clock."""

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Experiment `number` is now in phase `name`, for at most `seconds`."""

    def line(self, text: str) -> None:
        """The figures of the running training (`runner.untrusted.progress`); untrusted, for display only."""

    def opened(self, experiment: Experiment) -> None:
        """An experiment begins, or resumes after a restart."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """An experiment got its verdict."""
