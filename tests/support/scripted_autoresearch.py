"""The command line as a user starts it, with scripted containers: everything else is real.

    python tests/support/scripted_autoresearch.py COMMAND...
    python tests/support/scripted_autoresearch.py serve DESCRIPTOR

The second one starts a process for each request on a socket, see `host_night`. A process stops at the gates of the
variable `GATES`, JSON of failpoints `[["trial_opened", "after", 4], …]` in the order in which they are passed: it
writes a byte to the descriptor `GATE_OUT` and goes on when one comes on `GATE_IN`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
import time
import traceback
from contextlib import nullcontext
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import runner.cli.night
import runner.storage.clock
from runner import failpoints, proposers
from runner.campaign import setup
from runner.cli import main
from runner.report import plot
from runner.sandbox import cleanup, doctor, reservation
from tests.support import scripted_night
from tests.support.scripted_night import CONTEXT, VOCAB_SIZE, Paid


def script_the_machine():
    """Put scripts in the place of engine, images, containers and proposer."""
    os.urandom = bytes  # the campaign's seed: zero
    known = scripted_night.evaluation()
    scripted_night.script_containers(Path(os.environ["IMAGES"]), known)

    def prepare(config, *, paths, **_):
        setup.remove_leftovers(paths)
        return SimpleNamespace(engine=None)

    def open_controller(config, prepared, *, repository, ledger, paths, observer):
        chosen = config.model_copy(update={"vocab_size": VOCAB_SIZE, "context_length": CONTEXT})
        return scripted_night.scripted_controller(chosen, ledger, repository, paths, known, observer)

    setup.prepare = prepare
    doctor.announce = lambda *_: None
    reservation.reserve = lambda _engine, config, _claimant: nullcontext(config)
    setup.open_controller = open_controller
    proposers.create = lambda config: Paid()
    cleanup.remove_orphans = lambda *_: failpoints.reach("orphans_removed", "before")


def jump(seconds):
    """Put the wall clock forward, or back."""
    real = time.time

    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: real() + seconds
    runner.storage.clock.datetime = Jumped


def set_gates():
    """Stop where the environment says."""
    gates = [tuple(gate) for gate in json.loads(os.environ["GATES"])]
    passed = []

    def on_reach(step, side):
        passed.append((step, side))
        if gates and (step, side, passed.count((step, side))) == gates[0]:
            gates.pop(0)
            os.write(int(os.environ["GATE_OUT"]), b".")
            # In short waits, as real code has them: a signal that comes just before a wait does not end it.
            while not select.select([int(os.environ["GATE_IN"])], [], [], 0.1)[0]:
                pass
            os.read(int(os.environ["GATE_IN"]), 1)
            jump(float(os.environ.get("JUMP_SECONDS", "0")))

    failpoints.on_reach = on_reach


def set_gates_around():
    """Two more gates: when a night is over and only words are left, and when the last words are said."""
    finish, say = runner.cli.night._finish, runner.cli.say

    def over(*arguments, **options):
        failpoints.reach("campaign_over", "before")
        finish(*arguments, **options)

    def leaving(text):
        failpoints.reach("leaving", "before")
        say(text)

    runner.cli.night._finish, runner.cli.say = over, leaving


def begin():
    """The command line."""
    script_the_machine()
    set_gates()
    set_gates_around()
    main()


def obey_permissions():
    """As everybody but root does: without the capabilities DAC_OVERRIDE (1) and DAC_READ_SEARCH (2)."""
    libc, drop_from_bounding_set = ctypes.CDLL(None), 24
    for capability in (1, 2):
        libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable
    libc.capget(header, sets)
    for number in range(3):
        sets[number] &= ~0b110
    libc.capset(header, sets)


def become(asked, stdin, stdout, stderr, gate_out, gate_in):
    """The process that a person starts: its streams, session, rights, folder and environment."""
    os.setsid()
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if asked["nohup"]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if asked["mortal"]:
        obey_permissions()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"], GATE_OUT=str(gate_out), GATE_IN=str(gate_in))
    if asked["shell"] is not None:
        for descriptor in (gate_out, gate_in):
            os.set_inheritable(descriptor, True)
        command = [sys.executable, __file__, *asked["arguments"][1:]]
        os.execvp("sh", ["sh", "-c", f'exec "$@" {asked["shell"]}', "sh", *command])
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
    )
    sys.argv = asked["arguments"]
    begin()


def supervise(asked, *descriptors, tell):
    """Start that process, tell its id, wait for it, tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(tell)
        code = 99
        try:
            become(asked, *descriptors)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    os.write(tell, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def serve(control):
    """Start a process for each request. Everything is imported already, so that it starts at once."""
    scripted_night.import_what_nights_import_late()
    for module in ("cli.night", "cli.status", "cli.display", "cli.event_log", "report.effort", "report.explain"):
        import_module(f"runner.{module}")
    import_module("textalloc")
    plot._render([], "the first picture loads fonts and formats")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 6)
        if not request:
            return
        if os.fork() == 0:
            control.close()
            *streams, tell = descriptors
            supervise(json.loads(request), *streams, tell=tell)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        begin()
