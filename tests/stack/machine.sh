#!/usr/bin/env bash
# Make this machine able to run the project and its tests: a Docker engine that answers, Compose 2, Python packages.
#
#   tests/stack/machine.sh [--browser]
#
# Says what it installs before it does, installs only what is missing, and may be run again at any time: where no init
# system keeps the engine running, every script calls it. Works as root, or as a user with sudo. Exits 2 where it cannot
# help itself, saying what to install by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

browser=
for option in "$@"; do
  case $option in
    --browser) browser=yes ;;
    *)
      echo "usage: $0 [--browser]" >&2
      exit 2
      ;;
  esac
done

engine_log=${TMPDIR:-/tmp}/mailarchiver-backup-dockerd-$(id -u).log

say() { printf 'machine: %s\n' "$*" >&2; }
give_up() {
  say "$*"
  exit 2
}
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    give_up "this needs root, and there is no sudo: $*"
  fi
}

# Python with venv: the newest of those that are there.
find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

find_browser() {
  local candidate
  for candidate in chromium chromium-browser google-chrome; do
    if has "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

wanted_packages() {
  if ! has dockerd && ! docker info >/dev/null 2>&1; then echo docker.io iptables; fi
  # Debian 13 keeps the client in a package of its own.
  if ! has docker && apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; fi
  if ! find_python >/dev/null; then echo python3 python3-venv; fi
  if ! has debootstrap; then echo debootstrap; fi
  if [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then echo debian-archive-keyring; fi
  if ! has zstd; then echo zstd; fi
  if ! has age; then echo age; fi
  # The tests start one of their own, on a port of the loopback.
  if ! has sshd; then echo openssh-server; fi
  # Containers of the tests' own, below directories of theirs.
  if ! has lxc-start; then echo lxc; fi
  # Virtual machines too: a boot sector each, under software emulation.
  if ! has libvirtd; then echo libvirt-daemon-system libvirt-clients; fi
  if ! has qemu-system-x86_64; then echo qemu-system-x86; fi
  if ! has qemu-img; then echo qemu-utils; fi
  if ! has busybox; then echo busybox-static; fi
  if ! has pgrep; then echo procps; fi
  # Only its program that reads units; it does not become the init system.
  if ! has systemd-analyze; then echo systemd; fi
  if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then echo ca-certificates; fi
  if [ -n "$browser" ] && ! find_browser >/dev/null; then echo chromium; fi
}

install_packages() {
  local packages
  if ! has apt-get; then
    if ! docker info >/dev/null 2>&1 || ! find_python >/dev/null; then
      give_up "no apt-get here. Install by hand: a Docker engine (20.10 or newer, running), the Compose plugin (version 2)," \
        "Python 3.11 or newer with venv${browser:+, Chromium}; then run this again"
    fi
    return 0
  fi
  packages=$(wanted_packages | tr '\n' ' ')
  if [ -n "${packages// /}" ]; then
    say "installing with apt-get: $packages"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # Asked again: only now can apt tell whether this release has a separate client.
    packages=$(wanted_packages | tr '\n' ' ')
    case " $packages" in
      *" openssh-server "*)
        # Debian's own way to have the program and no server: this machine is not opened to anybody.
        say "/etc/ssh/sshd_not_to_be_run keeps this machine from serving SSH; remove it if you want that"
        as_root mkdir -p /etc/ssh
        as_root touch /etc/ssh/sshd_not_to_be_run
        ;;
    esac
    case " $packages" in
      *" lxc "*)
        # Its bridge is not wanted: the tests' containers have no network, and Docker's rules stay as they are.
        if [ -d /run/systemd/system ] && ! systemctl cat lxc-net.service >/dev/null 2>&1; then
          say "lxc-net.service is masked: LXC makes no bridge here; systemctl unmask lxc-net if you want one"
          as_root systemctl mask --quiet lxc-net.service
        fi
        ;;
    esac
    # shellcheck disable=SC2086 # one word a package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  fi
  find_python >/dev/null || give_up "Python 3.11 or newer with venv is needed; this distribution's is $(python3 --version 2>&1)"
}

# An engine that was killed hard leaves its pid file; should the number belong to another program by now, the next engine
# would wait for that one for ever.
remove_stale_pid_files() {
  local file pid
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$(basename "$file" .pid | sed 's/^docker$/dockerd/')" ]; then
      as_root rm -f "$file"
    fi
  done
}

# What udev does elsewhere: a device that libvirt may not open although it is there has it ask qemu anew, for seconds, at every step.
give_kvm_its_group() {
  if [ -c /dev/kvm ] && [ "$(stat -c %G /dev/kvm)" = root ] && getent group kvm >/dev/null; then
    say "/dev/kvm is given to the group kvm, as udev would"
    as_root chgrp kvm /dev/kvm
    as_root chmod 660 /dev/kvm
  fi
}

start_engine() {
  if docker info >/dev/null 2>&1; then return; fi
  if [ -n "${DOCKER_HOST:-}" ]; then give_up "no engine answers at DOCKER_HOST=$DOCKER_HOST"; fi
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine (systemctl start docker)"
    as_root systemctl start docker
  elif ! pgrep -x dockerd >/dev/null; then
    say "starting dockerd in the background, logging to $engine_log"
    remove_stale_pid_files
    : >"$engine_log"
    # A session of its own, for it must outlive this terminal, and none of our open files: a pipe that it inherited would
    # never end for anyone who reads it. Its socket is given to our own group.
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root setsid --fork bash -c '
      for file in /proc/$$/fd/*; do
        number=${file##*/}
        if [ "$number" -gt 2 ]; then eval "exec $number>&-"; fi
      done
      exec dockerd --group "$1"' dockerd "$(id -g)" </dev/null >>"$engine_log" 2>&1
  fi
  local deadline=$((SECONDS + 60)) begun=$SECONDS
  until docker info >/dev/null 2>&1; do
    if [ -d /run/systemd/system ] && as_root docker info >/dev/null 2>&1; then
      give_up "the engine runs, but $(id -un) may not use it: run 'sudo usermod -aG docker $(id -un)' and log in again"
    fi
    if [ ! -d /run/systemd/system ] && [ $((SECONDS - begun)) -ge 3 ] && ! pgrep -x dockerd >/dev/null; then
      deadline=0 # it has given up, so need we not wait
    fi
    if [ $SECONDS -ge $deadline ]; then
      tail -n 20 "$engine_log" >&2 || true
      give_up "no Docker engine answers; its last words are above"
    fi
    sleep 0.2
  done
}

# Two halves side by side: pip keeps one core busy, and without their dependencies neither half needs the other.
install_pinned() {
  local halves half said running=() failed=0
  halves=$(mktemp -d)
  awk -v to="$halves" '/^[A-Za-z0-9]/ { number++ } number { print > (to "/" number % 2) }' requirements.txt
  for half in "$halves"/*; do
    "$@" install --no-deps --require-hashes -r "$half" 2>"$half.said" &
    running+=($!)
  done
  for half in "${running[@]}"; do wait "$half" || failed=1; done
  said=$(cat "$halves"/*.said)
  rm -rf "$halves"
  [ -z "$said" ] || printf '%s\n' "$said" >&2
  case $said in
    *'DO NOT MATCH THE HASHES'*) give_up "a package is another than the one that requirements.txt pins; nothing is taken in its place" ;;
  esac
  return $failed
}

install_python_packages() {
  local inputs stamp=.venv/.installed
  inputs=$(cat pyproject.toml requirements.txt 2>/dev/null | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ] && .venv/bin/python -c '' 2>/dev/null; then return; fi
  say "installing the Python packages of requirements.txt into .venv"
  if ! .venv/bin/python -c '' 2>/dev/null; then
    rm -rf .venv
    "$(find_python)" -m venv .venv
  fi
  local pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
  if [ ! -e requirements.txt ] || ! install_pinned "${pip[@]}"; then
    say "the pinned packages cannot be had from this index: taking what pyproject.toml allows"
  fi
  "${pip[@]}" install -e '.[dev]'
  echo "$inputs" >"$stamp"
}

install_compose() {
  case $(docker compose version --short 2>/dev/null) in [2-9]* | v[2-9]* | [1-9][0-9]*) return ;; esac
  local binary
  binary=$(pwd)/.venv/bin/docker-compose
  [ -x "$binary" ] || give_up "Docker Compose 2 is missing: install the package docker-compose-plugin"
  say "linking Docker Compose 2 into ~/.docker/cli-plugins"
  mkdir -p ~/.docker/cli-plugins
  ln -sfn "$binary" ~/.docker/cli-plugins/docker-compose
  docker compose version >/dev/null || give_up "Docker Compose does not run"
}

# Half a minute of one core, beside what apt-get downloads and unpacks.
python_packages=
if find_python >/dev/null && [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  install_python_packages &
  python_packages=$!
fi
# Also where it ends early because something is missing: nothing goes on behind that message.
trap '[ -z "$python_packages" ] || wait "$python_packages" || true' EXIT
install_packages
give_kvm_its_group
start_engine
[ -z "$python_packages" ] || wait "$python_packages"
install_python_packages # nothing is left to do where it was begun above
install_compose
