#!/usr/bin/env bash
# Make sure that a Docker engine answers.
#
#   images/engine.sh
#
# Asks DOCKER_HOST if it is set, else the default socket. When no engine answers at the default socket: as root on
# Debian or Ubuntu, installs docker.io from the distribution and starts dockerd (with systemd where it runs, else by
# hand, log in /var/log/autoresearch-dockerd.log); anywhere else, names what is missing and the command to type.
# Prints one line when an engine answers. Exit status: 0 an engine answers, 1 no engine is available, 130 interrupted.
set -euo pipefail

readonly SOCKET=/var/run/docker.sock
readonly PIDFILE=/var/run/docker.pid
readonly LOG=/var/log/autoresearch-dockerd.log
readonly APT_LOG=/var/log/autoresearch-engine.log
readonly LOCK=/var/lock/autoresearch-engine.lock
readonly START_SECONDS=60
# debootstrap: builds the base image where no registry answers. iptables: dockerd refuses to start without it
# on some releases even with --iptables=false.
PACKAGES=(docker.io iptables debootstrap ca-certificates)

say() { printf '%s\n' "engine: $*"; }

# fail MESSAGE [COMMAND TO TYPE]...
fail() {
  printf '%s\n' "engine: $1" >&2
  shift
  (($# == 0)) || printf '  → %s\n' "$@" >&2
  exit 1
}

# ping SOCKET: succeeds when an engine answers there within 3 seconds.
ping() {
  [[ -S $1 ]] || return 1
  if command -v curl >/dev/null; then
    curl --silent --fail --max-time 3 --output /dev/null --unix-socket "$1" http://docker/_ping
  else
    ping_without_curl "$1"
  fi
}

# ping_without_curl SOCKET: the same request from Python, which every user of this project has.
ping_without_curl() {
  python3 -c '
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(3)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(b" 200 " not in connection.recv(64))
except OSError:
    sys.exit(1)
' "$1"
}

# A dockerd that holds the default pidfile. A second one on the same files would steal its socket and leave the
# first one running and unreachable, so nothing is ever started next to it.
running_dockerd() {
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] && printf '%s' "$pid"
}

# wait_for_engine SECONDS [PID]: polls until the engine answers, the time is over, or process PID has ended.
wait_for_engine() {
  local deadline=$((SECONDS + $1)) pid=${2:-}
  until ping "$SOCKET"; do
    ((SECONDS < deadline)) || return 1
    [[ -z $pid || -d /proc/$pid ]] || return 1
    sleep 0.2
  done
}

# The family of this distribution: ubuntu, debian, or nothing.
distribution() {
  local ID='' ID_LIKE=''
  # shellcheck source=/dev/null
  . /etc/os-release 2>/dev/null || true
  case " $ID $ID_LIKE " in
    *" ubuntu "*) printf ubuntu ;;
    *" debian "*) printf debian ;;
  esac
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
}

install_packages() {
  [[ $(distribution) == ubuntu ]] && PACKAGES+=(debian-archive-keyring)
  # With AppArmor in the kernel but without its parser, dockerd cannot start a container.
  [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]] && PACKAGES+=(apparmor)
  say "installing ${PACKAGES[*]} (about 15 seconds)"
  local began=$SECONDS
  # The first try saves the update where package lists are there and fresh; a new machine has none.
  if ! { dpkg --configure -a && apt_install "${PACKAGES[@]}"; } >"$APT_LOG" 2>&1; then
    apt-get -qq update >>"$APT_LOG" 2>&1 || true # one broken third-party source must not stop us
    if ! apt_install "${PACKAGES[@]}" >>"$APT_LOG" 2>&1; then
      tail -n 15 "$APT_LOG" >&2
      fail "apt-get could not install ${PACKAGES[*]} (its last lines are above, all of them in $APT_LOG)" \
        "apt-get update && apt-get install ${PACKAGES[*]}"
    fi
  fi
  say "installed in $((SECONDS - began)) s"
}

start_with_systemd() {
  say "starting docker.service"
  systemctl unmask --quiet docker.service docker.socket 2>/dev/null || true
  systemctl enable --quiet --now docker.service ||
    fail "systemd could not start docker.service" "journalctl --unit docker.service --lines 50"
  wait_for_engine "$START_SECONDS" ||
    fail "docker.service runs but does not answer at $SOCKET" "journalctl --unit docker.service --lines 50"
}

start_by_hand() {
  say "starting dockerd, log in $LOG"
  # No bridge and no firewall rules: every container of ours runs without a network, and a machine without
  # systemd is often a container itself, where neither would work. Its own session, so that Ctrl-C in the
  # caller's terminal does not reach it; descriptor 9 is our lock and must not live as long as it does.
  setsid dockerd --pidfile="$PIDFILE" --host="unix://$SOCKET" --bridge=none --iptables=false --ip6tables=false \
    --live-restore </dev/null >>"$LOG" 2>&1 9>&- &
  local pid=$!
  disown "$pid"
  if ! wait_for_engine "$START_SECONDS" "$pid"; then
    tail -n 15 "$LOG" >&2
    fail "dockerd did not come up (the last lines of its log are above)" "less $LOG"
  fi
}

start_engine() {
  local pid
  mkdir -p "${LOCK%/*}"
  exec 9>"$LOCK"
  # Two callers at once: the second one finds the engine of the first.
  flock --nonblock 9 || { say "waiting for another caller that starts it" && flock 9; }
  if ping "$SOCKET"; then return; fi
  if pid=$(running_dockerd); then
    wait_for_engine 15 "$pid" && return
    [[ -d /proc/$pid ]] &&
      fail "dockerd runs as process $pid but does not answer at $SOCKET" "kill $pid    # then run this again"
  fi
  command -v dockerd >/dev/null || install_packages
  # The package may have started it, with systemd or with its init script.
  if pid=$(running_dockerd) && wait_for_engine 15 "$pid"; then return; fi
  if [[ -d /run/systemd/system ]]; then start_with_systemd; else start_by_hand; fi
}

check_permission() {
  local user
  [[ -S $1 && ! -w $1 ]] || return 0
  user=$(id --user --name 2>/dev/null) || user=$(id --user)
  fail "no permission on $1: $user is not in its group, docker" \
    "sudo usermod --append --groups docker $user, then log in again"
}

check_docker_host() {
  local socket=${DOCKER_HOST#unix://}
  [[ $DOCKER_HOST == unix://* ]] ||
    fail "DOCKER_HOST=$DOCKER_HOST is not local: containers mount files of this machine" "unset DOCKER_HOST"
  if ! ping "$socket"; then
    check_permission "$socket"
    fail "no engine answers at DOCKER_HOST=$DOCKER_HOST" "start that engine, or: unset DOCKER_HOST"
  fi
  say "answers at $DOCKER_HOST"
}

main() {
  trap 'exit 130' INT TERM
  (($# == 0)) || fail "this script takes no arguments" "make engine"
  if [[ -n ${DOCKER_HOST:-} ]]; then
    check_docker_host
    return
  fi
  if ping "$SOCKET"; then
    say "answers at $SOCKET"
    return
  fi
  check_permission "$SOCKET"
  ((EUID == 0)) || fail "no Docker engine answers at $SOCKET, and only root can start one" "sudo make engine"
  command -v dockerd >/dev/null || [[ $(distribution) == @(debian|ubuntu) ]] ||
    fail "no Docker engine is installed, and this is neither Debian nor Ubuntu" \
      "install Docker (https://docs.docker.com/engine/install/) and start it, then: make engine"
  # An unprivileged container or pod lets not even root mount or make namespaces, which every container needs.
  unshare --mount true 2>/dev/null ||
    fail "no Docker engine answers at $SOCKET, and this container or pod may not start containers itself" \
      "use a machine or virtual machine of your own, or a privileged pod; then: make engine"
  start_engine
  say "answers at $SOCKET"
}

main "$@"
