#!/usr/bin/env bash
# Run one of the README's commands on a machine that has nothing but Debian: a container with an engine of its own.
#
#   tests/campaigns/bare_machine.sh root|user COMMAND [ARGUMENT...]
#
#   tests/campaigns/bare_machine.sh root bash deployments/demo.sh
#   tests/campaigns/bare_machine.sh user bash tests/run.sh tests/unit
#
# `user` is an ordinary one who may use sudo and is in the group docker. The command runs in a fresh clone of what is committed. Packages come
# from where this machine gets them. Wants root, and the engine that the tests have. Ends with the command's exit code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
who=${1:?root or user} && shift
[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

image=$(docker image ls --format '{{.Repository}}:{{.Tag}}' 'mailarchiver-backup-stand-in/base' | grep trixie | head -n 1)
[ -n "$image" ] || { echo "no base image yet: run tests/run.sh first" >&2; exit 2; }
name=mailarchiver-backup-bare-$$
trap 'docker rm --force --volumes "$name" >/dev/null' EXIT
git bundle create --quiet "/tmp/$name.bundle" HEAD
# As good as --privileged, which fails where the machine itself lacks a capability.
docker run --detach --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
  --security-opt systempaths=unconfined --device-cgroup-rule 'a *:* rwm' --cgroupns private --name "$name" --volume /var/lib/docker --volume /home --volume /tmp \
  --entrypoint bash "$image" -c 'sleep infinity & wait' >/dev/null
inside() { docker exec --interactive "$name" "$@"; }

docker cp --quiet "/tmp/$name.bundle" "$name:/home/project.bundle"
rm "/tmp/$name.bundle"
for file in /etc/apt/apt.conf.d/99* /etc/pip.conf /usr/local/share/ca-certificates/*.crt; do
  if [ -e "$file" ]; then inside mkdir -p "$(dirname "$file")" && docker cp --quiet --follow-link "$file" "$name:$file"; fi
done
inside bash <tests/stack/control_groups.sh
inside bash -euc '
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git sudo >/dev/null
  groupadd --force --system docker
  useradd --create-home --shell /bin/bash --groups docker,sudo ada
  echo "ada ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/ada
'
home=/root account=root
if [ "$who" = user ]; then home=/home/ada account=ada; fi
inside runuser -u "$account" -- git -c advice.detachedHead=false clone --quiet /home/project.bundle "$home/project"
inside runuser -u "$account" -- env HOME="$home" bash -c 'cd "$HOME/project" && exec "$@"' bash "$@"
