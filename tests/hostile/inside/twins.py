"""Harmless twins: what honest programs do that looks like an attack from afar. Every one must succeed."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import resource
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

from .attempts import SUCCEEDED, Group

GROUP = Group()


def twin(name: str):
    """Register a harmless act."""
    return GROUP.attempt(name, SUCCEEDED)


@twin("sixteen threads")
def _threads() -> None:
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


@twin("thirty children that exit")
def _children() -> None:
    for child in [os.fork() or os._exit(0) for _ in range(30)]:
        assert os.waitpid(child, 0)[1] == 0


@twin("a compiler and the program that it makes")
def _compile() -> None:
    Path("/tmp/twin.c").write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-o", "/tmp/twin", "/tmp/twin.c"], check=True)
    subprocess.run(["/tmp/twin"], check=True)


@twin("a pair of AF_UNIX sockets")
def _pair() -> None:
    left, right = socket.socketpair()
    left.sendall(b"x")
    assert right.recv(1) == b"x"


@twin("a server on the own loopback")
def _loopback() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        accepted.sendall(b"x")
        assert client.recv(1) == b"x"
        accepted.close()


@twin("a worker process with a queue")
def _queue() -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    worker = fork.Process(target=queue.put, args=(7,))
    worker.start()
    assert queue.get(timeout=5) == 7
    worker.join()


@twin("shared memory between processes")
def _shared() -> None:
    room = shared_memory.SharedMemory(create=True, size=8 << 20)
    child = os.fork()
    if child == 0:
        room.buf[0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert room.buf[0] == 7
    room.close()
    room.unlink()


@twin("half of /dev/shm")
def _half_of_shm() -> None:
    Path("/dev/shm/half").write_bytes(bytes(32 << 20))
    os.unlink("/dev/shm/half")


@twin("half of the scratch, and a file with a hole that fits")
def _scratch() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(64 << 20))
        file.truncate(128 << 20)


@twin("a thousand small files")
def _small_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1000):
            Path(folder, str(number)).touch()


@twin("memory by mmap, of nothing and of a file")
def _mmap() -> None:
    mmap.mmap(-1, 64 << 20).write(b"x" * (1 << 20))
    with open("/data/shard-00.bin", "rb") as file:
        assert mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:1]


@twin("links, a pipe with a name and modes among own files")
def _links() -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own")
        own.touch()
        os.link(own, own.with_name("hard"))
        os.symlink(own, own.with_name("soft"))
        os.mkfifo(own.with_name("pipe"))
        own.chmod(0o600)
        os.utime(own, (0, 0))


@twin("files in the output, renamed over each other")
def _output() -> None:
    for _ in range(20):
        Path("/out/.partial").write_bytes(bytes(1 << 20))
        os.replace("/out/.partial", "/out/model-step.00042.pt")


@twin("an alarm and a handler")
def _alarm() -> None:
    rung = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rung.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    assert rung.wait(5)


@twin("signals to an own child")
def _signals() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(60)
    os.kill(child, signal.SIGSTOP)
    os.kill(child, signal.SIGCONT)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@twin("clocks")
def _clocks() -> None:
    time.sleep(0.01)
    assert time.time() > 1.7e9
    assert time.monotonic() > 0
    assert time.process_time() > 0
    assert time.clock_getres(time.CLOCK_MONOTONIC) > 0


@twin("lower limits, less priority, the own cores")
def _modest() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    os.nice(1)
    os.sched_setaffinity(0, os.sched_getaffinity(0))


@twin("events: epoll, eventfd, inotify, memfd")
def _events() -> None:
    with select.epoll() as poll:
        poll.register(os.eventfd(1), select.EPOLLIN)
        assert poll.poll(1)
    assert ctypes.CDLL(None).inotify_init() >= 0
    os.write(os.memfd_create("twin"), b"x")


@twin("a terminal of its own")
def _terminal() -> None:
    left, right = os.openpty()
    os.write(right, b"x")
    assert os.read(left, 1) == b"x"


@twin("the kernel's facts")
def _facts() -> None:
    for path in (
        "/proc/self/status",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/self/maps",
        "/sys/devices/system/cpu/online",
    ):
        assert Path(path).read_bytes()


@twin("training with automatic differentiation")
def _training() -> None:
    import torch

    net = torch.nn.Linear(8, 1)
    before = net.weight.clone()
    loss = (net(torch.ones(4, 8)) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad
    assert not torch.equal(before, net.weight)


@twin("a loader with a worker process")
def _loader() -> None:
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    batches = list(DataLoader(list(range(8)), batch_size=4, num_workers=1))
    assert len(batches) == 2


@twin("a checkpoint by torch.save, and back")
def _checkpoint() -> None:
    import torch

    torch.save({"weight": torch.ones(3)}, "/out/weights.pt")
    assert torch.load("/out/weights.pt", weights_only=True)["weight"].sum() == 3
