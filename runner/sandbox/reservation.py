"""Cores and GPUs of this machine: chosen for candidates, and reserved against other campaigns.

Two campaigns on one core, or on one GPU, ruin each other's measurements. So a controller locks what it measures
on: one file for each core and GPU, in a folder that every user of this machine shares. The kernel releases a lock
however its holder ends. The labels of running containers are a second witness: for a controller that sees other
files, and for containers that outlive a killed one.

Not covered: programs other than campaigns, which the contention meters see; controllers that share neither files
nor engine.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.config import Config
from runner.errors import ConfigError, EngineError
from runner.sandbox.engine import LABEL, Engine, engine_errors
from runner.sandbox.host import find_gpus
from runner.untrusted import one_line

FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108
"""Places for the locks; the first one that is there and that every user may write to."""
GATE = "choice"
"""Lock that is held for the moment of a choice, so that two controllers do not choose at once."""
GATE_SECONDS = 10.0
_WAIT = "start again when it has ended"


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """The controller that reserves, as others see it."""

    controller: str  # id of the state folder
    campaign: str
    folder: Path  # of the clone

    def __str__(self) -> str:
        """Describe it for the owner of another campaign."""
        return f"campaign {self.campaign} in {self.folder} (process {os.getpid()}, user {_user()})"


def choose_cores(config: Config) -> tuple[int, ...]:
    """Pick the reserved cores, else the last ones; the controller and the engine stay on the first ones."""
    return config.cores or tuple(sorted(os.sched_getaffinity(0))[-config.cpus :])


def spare_cores(config: Config) -> tuple[int, ...]:
    """Pick the cores on which containers import torch while a candidate is measured; may be empty.

    Candidates may have every core, another campaign may measure on the others, and some runtimes (gVisor) cannot
    move a running container.
    """
    if config.runtime is not None:
        return ()
    return tuple(core for core in free_cores() if core not in choose_cores(config))


def free_cores() -> tuple[int, ...]:
    """The cores that this process may use and no campaign has reserved."""
    return tuple(core for core in sorted(os.sched_getaffinity(0)) if _is_free(_core(core)))


def labels(config: Config) -> dict[str, str]:
    """Labels that show what a container's controller measures on."""
    shown = {LABEL + "cores": ",".join(map(str, choose_cores(config)))}
    return shown | ({} if config.gpu is None else {LABEL + "gpu": config.gpu})


@contextmanager
def reserve(engine: Engine, config: Config, claimant: Claimant) -> Iterator[Config]:
    """Reserve free cores, and a free GPU for the profile cuda; yields the settings with them.

    Cores and a GPU that the settings name are reserved, or refused.

    Raises:
        EngineError: too few are free; names the campaign that holds one.
        ConfigError: the settings name what this process may not use.
    """
    with ExitStack() as held:
        with _locked_gate():
            busy = _held_by_containers(engine, claimant.controller)
            cores = _choose(held, [_core(core) for core in _wanted_cores(config)], config.cpus, busy, claimant)
            gpu = None
            if config.profile == "cuda":
                gpus = [config.gpu] if config.gpu is not None else [gpu.uuid for gpu in find_gpus()]
                (name,) = _choose(held, [_gpu(uuid) for uuid in gpus], 1, busy, claimant)
                gpu = next(uuid for uuid in gpus if _gpu(uuid) == name)
        numbers = tuple(sorted(int(name.removeprefix("core-")) for name in cores))
        yield config.model_copy(update={"cores": numbers, "gpu": gpu})


def _wanted_cores(config: Config) -> Sequence[int]:
    """The cores to choose from, best first."""
    allowed = os.sched_getaffinity(0)
    if config.cpus > len(allowed):
        raise ConfigError(
            f"the setting cpus is {config.cpus}, but this process may use {len(allowed)} cores", "set cpus lower"
        )
    if config.cores is None:
        return sorted(allowed, reverse=True)
    if len(set(config.cores)) != config.cpus or not set(config.cores) <= allowed:
        shown = ", ".join(map(str, sorted(allowed)))
        raise ConfigError(
            f"the setting cores is {list(config.cores)}, which are not {config.cpus} of the cores {shown}",
            "set as many cores as cpus, or leave the setting out",
        )
    return config.cores


def _choose(
    held: ExitStack, names: Sequence[str], count: int, busy: Mapping[str, str], claimant: Claimant
) -> list[str]:
    """Lock the first free ones of these names.

    Args:
        held: keeps the locks.
        busy: holders of those that containers run on.
    """
    chosen: list[str] = []
    holder = ""
    for name in names:
        if len(chosen) == count:
            break
        taken = busy.get(name) or _lock(held, name, str(claimant))
        if taken is None:
            chosen.append(name)
        else:
            holder = holder or f"{name.replace('-', ' ', 1)} is reserved by {taken}"
    if len(chosen) < count:
        free = "" if count == 1 else f", and only {len(chosen)} of {count} are free"
        raise EngineError(f"{holder}{free}", _WAIT)
    return chosen


def _lock(held: ExitStack, name: str, note: str) -> str | None:
    """Lock one name and leave a note about us; returns the note of its holder when it is locked already."""
    file = held.enter_context(_opened(name))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return one_line(os.pread(file, 1000, 0).decode("utf-8", "replace")) or "another program"
    with suppress(OSError):  # the lock counts without the note: a full disk, or a file of another user
        os.ftruncate(file, 0)
        os.pwrite(file, note.encode("utf-8", "replace"), 0)
    return None


def _is_free(name: str) -> bool:
    """Whether no campaign holds this name right now."""
    try:
        with _locked_gate(), _opened(name, create=False) as file:  # a choice must not find it locked by this look
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False


@contextmanager
def _locked_gate() -> Iterator[None]:
    with _opened(GATE) as file:
        give_up = time.monotonic() + GATE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise EngineError(
                        f"another program keeps {_path(GATE)} locked", f"fuser -v {_path(GATE)} names it"
                    ) from None
                time.sleep(0.01)
        yield


@contextmanager
def _opened(name: str, *, create: bool = True) -> Iterator[int]:
    """Open a lock, which users share, without following links that another user may have put in its place."""
    path = _path(name)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = _open(path, flags, create=create)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EngineError(f"{path} cannot be opened: {error.strerror}", f"rm {path}") from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise EngineError(f"{path} is not a file of ours", f"rm {path}")
        yield file
    finally:
        os.close(file)


def _open(path: Path, flags: int, *, create: bool) -> int:
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, flags | mode)
        except FileNotFoundError:
            if not create:
                raise
            with suppress(FileExistsError):
                file = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(file, 0o666)  # whatever the umask
                return file
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
    return os.open(path, flags | os.O_RDONLY)


def _path(name: str) -> Path:
    return next(
        (folder for folder in FOLDERS if folder.is_dir() and folder.stat().st_mode & 0o1777 == 0o1777), FOLDERS[-1]
    ) / ("autoresearch-" + name)


def _held_by_containers(engine: Engine, controller: str) -> dict[str, str]:
    """Return what running containers of other controllers measure on, and whose they are."""
    with engine_errors("listing the containers of other campaigns"):
        running = engine.client.api.containers(filters={"label": LABEL + "cores"})
    found: dict[str, str] = {}
    for container in running:
        label: Mapping[str, str] = container.get("Labels") or {}
        if label.get(LABEL + "controller") == controller:
            continue
        holder = f"campaign {one_line(label.get(LABEL + 'campaign', '?'))} (container {container['Id'][:12]})"
        names: Collection[str] = [f"core-{core}" for core in label[LABEL + "cores"].split(",")]
        if LABEL + "gpu" in label:
            names = [*names, _gpu(label[LABEL + "gpu"])]
        found.update(dict.fromkeys(names, holder))
    return found


def _core(core: int) -> str:
    return f"core-{core}"


def _gpu(uuid: str) -> str:
    return "gpu-" + uuid.replace("/", "_")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this id
        return str(os.getuid())
