"""`images/engine.sh`: quiet when an engine answers, one clear error when none is available, never two engines.

Scripts on PATH and the environment stand in for everything that would change the machine: apt, dockerd, systemd,
another distribution.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "images" / "engine.sh"
"""Programs that the script needs before it can install anything."""
BASICS = ("bash", "cat", "flock", "id", "mkdir", "setsid", "sleep", "tail", "touch")


@contextmanager
def fake_engine(path: Path, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"):
    """A socket that gives every caller the same answer, or none when it is empty."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(8)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


class Machine:
    """A copy of the script with its fixed paths in the test's folder, and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.pidfile = folder / "docker.pid"
        self.log = folder / "dockerd.log"
        self.calls = folder / "calls"
        self.calls.touch()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environment: dict[str, str] = {}
        for tool in BASICS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.bin / tool).symlink_to(found)
        (self.bin / "unshare").symlink_to(shutil.which("true"))
        (self.bin / "curl").symlink_to(shutil.which("curl") or "/nonexistent")
        (folder / "os-release").write_text("ID=debian\n")
        text = SCRIPT.read_text()
        for old, new in (
            ("/var/run/docker.sock", self.socket),
            ("/var/run/docker.pid", self.pidfile),
            ("/var/log/autoresearch-dockerd.log", self.log),
            ("/var/lock/autoresearch-engine.lock", folder / "lock"),
            ("/etc/os-release", folder / "os-release"),
            ("/run/systemd/system", folder / "systemd"),
            ("/sys/module/apparmor/parameters/enabled", folder / "apparmor"),
            ("EUID", "PRETENDED_UID"),
        ):
            assert old in text, old
            text = text.replace(old, str(new))
        self.script = folder / "engine.sh"
        self.script.write_text(text)
        self.uid = 0

    def add(self, name: str, script: str) -> None:
        """Put a program on PATH that logs its calls."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def add_python(self) -> None:
        # Not the python3 on PATH: a version manager's would need more of PATH than this machine has.
        (self.bin / "python3").symlink_to(Path(sys.executable).resolve())

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(self.script)],
            env={"PATH": str(self.bin), "HOME": "/", "PRETENDED_UID": str(self.uid), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        process = self.start()
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def clear_error(result: subprocess.CompletedProcess[str]) -> str:
    """Check the form of a failed run (nothing on stdout, one error, one next command); returns its message."""
    assert result.returncode == 1
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith("engine: ")
    assert [line[:4] for line in rest] == ["  → "]
    return result.stderr


# An engine answers


def test_an_engine_at_the_default_socket_gives_one_line(machine):
    with fake_engine(machine.socket):
        result = machine.run()
    assert (result.returncode, result.stdout, result.stderr) == (0, f"engine: answers at {machine.socket}\n", "")


def test_an_engine_is_found_without_curl(machine):
    (machine.bin / "curl").unlink()
    machine.add_python()
    with fake_engine(machine.socket):
        assert machine.run().returncode == 0


def test_a_user_with_access_to_the_socket_need_not_be_root(machine):
    machine.uid = 1000
    with fake_engine(machine.socket):
        assert machine.run().returncode == 0


def test_docker_host_goes_before_the_default_socket(machine, tmp_path):
    with fake_engine(tmp_path / "other.sock") as url:
        machine.environment["DOCKER_HOST"] = url
        result = machine.run()
    assert result.stdout == f"engine: answers at {url}\n"


# No engine is available


def test_a_dead_docker_host_is_named_and_nothing_is_started(machine):
    machine.add("dockerd", "")
    machine.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    assert "DOCKER_HOST=unix:///nowhere/docker.sock" in clear_error(machine.run())
    assert machine.called() == []


@pytest.mark.parametrize("curl", [True, False])
def test_another_server_does_not_pass_for_an_engine(machine, tmp_path, curl):
    if not curl:
        (machine.bin / "curl").unlink()
        machine.add_python()
    with fake_engine(tmp_path / "x.sock", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as url:
        machine.environment["DOCKER_HOST"] = url
        assert "no engine answers" in clear_error(machine.run())


@pytest.mark.parametrize("url", ["tcp://192.0.2.1:2375", "ssh://user@elsewhere"])
def test_an_engine_elsewhere_is_refused(machine, url):
    machine.environment["DOCKER_HOST"] = url
    assert f"DOCKER_HOST={url} is not local" in clear_error(machine.run())


def test_without_root_the_error_names_sudo(machine):
    machine.uid = 1000
    assert "sudo make engine" in clear_error(machine.run())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take its own permission away for a child")
def test_no_permission_on_the_socket_names_the_group(machine):
    machine.uid = 1000
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(machine.socket))
    machine.socket.chmod(0o600)
    for folder in (machine.folder, *machine.folder.parents):
        if not folder.stat().st_mode & 0o001 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    for path in (machine.script, machine.bin):
        path.chmod(0o755)
    result = subprocess.run(
        ["bash", str(machine.script)],
        env={"PATH": str(machine.bin), "HOME": "/", "PRETENDED_UID": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
        user=1000,
        group=1000,
        extra_groups=[],
        check=False,
    )
    server.close()
    message = clear_error(result)
    assert f"no permission on {machine.socket}" in message
    assert "usermod --append --groups docker" in message


def test_another_distribution_gets_a_link_to_docker(machine):
    (machine.folder / "os-release").write_text('ID=fedora\nID_LIKE="rhel centos"\n')
    assert "neither Debian nor Ubuntu" in clear_error(machine.run())


def test_a_pod_that_may_not_start_containers_is_one_sentence(machine):
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    machine.add("unshare", f'exec {setpriv} --bounding-set=-sys_admin {unshare} "$@"')
    assert "this container or pod may not start containers itself" in clear_error(machine.run())


def test_an_argument_is_refused(machine):
    result = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert "takes no arguments" in clear_error(result)


# Installing and starting


START = """\
echo $$ >{pidfile}
echo "dockerd is up"
exec python3 -c '
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(8)
for _ in range(int(sys.argv[2])):
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
    connection.close()
' {socket} {answers}
"""


@pytest.fixture
def dockerd(machine):
    """Install a stand-in for dockerd that ends after a number of answers."""
    machine.add_python()

    def install(answers: int = 1) -> str:
        script = START.format(pidfile=machine.pidfile, socket=machine.socket, answers=answers)
        machine.add("dockerd", script)
        return script

    return install


def test_an_installed_engine_is_started_by_hand_and_its_log_kept(machine, dockerd):
    dockerd()
    result = machine.run()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"engine: answers at {machine.socket}"
    assert machine.called() == [
        f"dockerd --pidfile={machine.pidfile} --host=unix://{machine.socket} --bridge=none --iptables=false"
        " --ip6tables=false --live-restore"
    ]
    assert "dockerd is up" in machine.log.read_text()


def test_the_started_engine_outlives_the_lock(machine, dockerd):
    dockerd(answers=2)
    assert machine.run().returncode == 0
    with (machine.folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if dockerd had inherited it
    assert machine.run().returncode == 0


def test_two_callers_at_once_start_one_engine(machine, dockerd):
    dockerd(answers=2)
    callers = [machine.start() for _ in range(2)]
    assert [caller.communicate(timeout=60)[1] for caller in callers] == ["", ""]
    assert [caller.returncode for caller in callers] == [0, 0]
    assert len(machine.called()) == 1


def test_an_engine_that_does_not_come_up_shows_the_end_of_its_log(machine):
    machine.add("dockerd", "echo 'failed to start daemon: no such thing'; exit 1")
    result = machine.run()
    assert result.returncode == 1
    log, error, remedy = result.stderr.splitlines()
    assert log == "failed to start daemon: no such thing"
    assert error.startswith("engine: dockerd did not come up")
    assert str(machine.log) in remedy


def test_a_second_engine_is_never_started_next_to_a_silent_one(machine):
    # The first one holds the pidfile, lives, and has lost its socket.
    machine.script.write_text(machine.script.read_text().replace("wait_for_engine 15", "wait_for_engine 1"))
    name = machine.folder / "dockerd"
    name.symlink_to(shutil.which("sleep"))
    machine.add("dockerd", "exit 1")
    silent = subprocess.Popen([str(name), "1000"])
    try:
        while Path(f"/proc/{silent.pid}/comm").read_text() != "dockerd\n":
            assert silent.poll() is None  # Popen returns a moment before the kernel has renamed the process
        machine.pidfile.write_text(f"{silent.pid}\n")
        result = machine.run()
    finally:
        silent.kill()
        silent.wait()
    assert f"dockerd runs as process {silent.pid} but does not answer" in clear_error(result)
    assert machine.called() == []


def test_a_stale_pidfile_does_not_stop_a_start(machine, dockerd):
    dockerd()
    machine.pidfile.write_text(f"{os.getpid()}\n")  # alive, but no dockerd
    assert machine.run().returncode == 0


def test_a_missing_engine_is_installed_from_the_distribution(machine, dockerd):
    program = dockerd()
    (machine.bin / "dockerd").unlink()
    # Package lists are missing at first, as on a new machine.
    machine.add(
        "apt-get",
        f"[[ $* == *update* ]] && touch {machine.folder}/lists && exit 0\n"
        f"[[ -e {machine.folder}/lists ]] || {{ echo 'E: Unable to locate package docker.io'; exit 100; }}\n"
        f"mv {machine.folder}/unpacked {machine.bin}/dockerd",
    )
    machine.add("dpkg", "")
    (machine.bin / "mv").symlink_to(shutil.which("mv"))
    unpacked = machine.folder / "unpacked"
    unpacked.write_text(f"#!{shutil.which('bash')}\n{program}\n")
    unpacked.chmod(0o755)
    result = machine.run()
    assert (result.returncode, result.stderr) == (0, "")
    updates = [call for call in machine.called() if "update" in call]
    installs = [call for call in machine.called() if " install " in call]
    assert (len(updates), len(installs)) == (1, 2)
    assert installs[1].endswith("docker.io iptables debootstrap ca-certificates")


def test_ubuntu_gets_debians_keyring_and_apparmor_its_parser(machine):
    (machine.folder / "os-release").write_text("ID=pop\nID_LIKE='ubuntu debian'\n")
    (machine.folder / "apparmor").write_text("Y\n")
    machine.add("apt-get", "echo 'E: broken'; exit 100")
    machine.add("dpkg", "")
    result = machine.run()
    assert result.returncode == 1
    assert "E: broken" in result.stderr
    assert "apt-get could not install" in result.stderr
    installs = [call for call in machine.called() if " install " in call]
    assert installs[-1].endswith("ca-certificates debian-archive-keyring apparmor")


def test_systemd_starts_it_where_systemd_runs(machine, tmp_path):
    (machine.folder / "systemd").mkdir()
    machine.add("dockerd", "")
    os.mkfifo(tmp_path / "enabled")
    machine.add("systemctl", f"[[ $* == *enable* ]] || exit 0; echo up >{tmp_path}/enabled")
    process = machine.start()
    assert (tmp_path / "enabled").read_text() == "up\n"
    with fake_engine(machine.socket):
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == f"engine: answers at {machine.socket}"
    assert [call for call in machine.called() if call.startswith("dockerd")] == []


def test_an_interrupt_ends_it_with_130_and_leaves_the_lock_free(machine, tmp_path):
    os.mkfifo(tmp_path / "started")
    machine.add("dockerd", f"echo $$ >{tmp_path}/started; exec sleep 1000")
    process = machine.start()
    dockerd = int((tmp_path / "started").read_text())
    try:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        with (machine.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.getsid(dockerd) == dockerd  # a terminal's Ctrl-C does not reach it: it may still come up
    finally:
        os.kill(dockerd, signal.SIGKILL)
