#!/usr/bin/env bash
# Make a base image from Debian packages alone, for machines that reach no image registry.
#
#   base.sh SUITE IMAGE PACKAGE[,PACKAGE...]
#
# Needs root, debootstrap and a running engine. The tree is built in memory where there is room: debootstrap
# spends most of its time waiting for fsync.
set -euo pipefail

suite=$1 image=$2 packages=$3

# The machine's own apt sources name the mirror that it can reach; on others than Debian debootstrap's default has to do.
debian_mirror() {
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
    grep -v '^[[:space:]]*#' |
    grep -oE '(https?|file)://[^[:space:]]+/debian/?([[:space:]]|$)' | head -n 1 | tr -d '[:space:]' || true
}

place=$(mktemp -d -t mailarchiver-backup-base.XXXXXX)
mounted=
give_back() {
  [ -z "$mounted" ] || umount -l "$place" || true
  rm -rf --one-file-system "$place"
}
trap give_back EXIT

if [ "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)" -gt 3072 ] &&
  mount -t tmpfs -o size=2g tmpfs "$place" 2>/dev/null; then
  mounted=yes
  # A tmpfs hides the directory's own mode, and apt's sandbox user must be able to enter.
  chmod 0755 "$place"
fi

root=$place/root
# Packages must not start their services: those of a chroot would run on the host.
mkdir -p "$root/usr/sbin"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"

if ! debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$(debian_mirror)" >"$place/log" 2>&1; then
  tail -n 20 "$place/log" "$root/debootstrap/debootstrap.log" >&2 || true
  exit 1
fi

# What no container needs: downloads, manuals, and the just-in-time compiler with its 130 MB.
cd "$root"
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc/* usr/share/man/* usr/share/info/* \
  var/lib/postgresql/* etc/postgresql/* usr/lib/*/libLLVM* usr/lib/llvm-* usr/lib/postgresql/*/lib/llvmjit* \
  usr/lib/postgresql/*/lib/bitcode usr/sbin/policy-rc.d
find usr/share/locale -mindepth 1 -maxdepth 1 ! -name locale.alias -exec rm -rf {} +

tar --create --numeric-owner --one-file-system . | docker import - "$image" >/dev/null
