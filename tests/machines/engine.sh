#!/usr/bin/env bash
# Run the Docker engine of another release of Debian or Ubuntu on this machine, beside the one that is there.
#
#   sudo tests/machines/engine.sh RELEASE STORE FOLDER
#
#   RELEASE  bookworm (Docker 20.10), trixie (26), sid (28), noble (Ubuntu 24.04: 29), …
#   STORE    overlay2 or containerd, where the engine knows both
#   FOLDER   gets the release's root file system and all that the engine stores; removing it removes everything
#
# The engine has a mount namespace of its own, in which folders of people are those of this machine, so that mounts
# into containers work. It has no network, and answers at FOLDER/docker.sock until this script is ended:
#
#   DOCKER_HOST=unix://FOLDER/docker.sock .venv/bin/python tests/machines/run.py
#
# Needs root, debootstrap, and a network at the first start; for Ubuntu also its keys: apt-get install ubuntu-keyring.
set -euo pipefail

readonly SHARED=(proc sys dev home root tmp work var/tmp)
readonly PACKAGES=ca-certificates,debconf,iptables

if (($# != 3)); then
  sed -n '2,/^set/ s/^# \?//p' "$0" >&2
  exit 2
fi
# All mounts are in a namespace that ends with the engine.
[[ -v IN_NAMESPACE ]] || IN_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
release=$1 store=$2
mkdir -p "$3"
folder=$(realpath "$3")
system=$folder/$release

# install: the release's root file system with its engine, which is not started.
install() {
  local mirror=http://deb.debian.org/debian script=sid sources
  sources="deb $mirror $release main"
  if [[ ! $release =~ ^(bookworm|trixie|forky|sid)$ ]]; then
    mirror=http://archive.ubuntu.com/ubuntu script=gutsy  # debootstrap's own name for all that Ubuntu released since
    sources=$(printf 'deb %s %s main universe\n' "$mirror" "$release" "$mirror" "$release-updates")
  fi
  debootstrap --variant=minbase --include="$PACKAGES" "$release" "$system.partial" "$mirror" "$script"
  printf '%s\n' "$sources" >"$system.partial/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' >"$system.partial/usr/sbin/policy-rc.d"
  chmod +x "$system.partial/usr/sbin/policy-rc.d"
  cp --dereference /etc/resolv.conf "$system.partial/etc/"
  mount --bind /proc "$system.partial/proc"
  mount --rbind /dev "$system.partial/dev"
  chroot "$system.partial" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive chroot "$system.partial" apt-get install -y -qq --no-install-recommends docker.io
  umount --recursive "$system.partial/proc" "$system.partial/dev"
  mv "$system.partial" "$system"
}

[[ -d $system ]] || install
mount --bind "$system" "$system"
mkdir -p "$folder/data" "$folder/exec" "$system/etc/docker"
printf '{"features": {"containerd-snapshotter": %s}}\n' "$([[ $store = containerd ]] && echo true || echo false)" \
  >"$system/etc/docker/daemon.json"
group=$(getent group docker | cut -d : -f 3 || true)
rm -f "$folder/pid" "$folder/docker.sock"

for place in "${SHARED[@]}"; do
  [[ ! -d /$place ]] || { mkdir -p "$system/$place"; mount --rbind "/$place" "$system/$place"; }
done
mkdir -p "$system$folder" "$system/.old"
mount --bind "$folder" "$system$folder"
cd "$system"
pivot_root . .old # a root that is only changed to would not do: engines move it
umount --lazy /.old
cd /
exec dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
  --host "unix://$folder/docker.sock" --group "${group:-0}" --bridge=none --iptables=false --ip6tables=false
