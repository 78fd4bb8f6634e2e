# What an init system would have done in a container that is to run a Docker engine: control groups that can be written,
# and (version 2) nobody in the one above the containers'. Read by bash on its standard input.
set -eu
for place in /sys /proc/sys $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do
  if mountpoint -q "$place"; then mount --options remount,bind,rw "$place"; fi
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p /sys/fs/cgroup/init
  xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs || true
  sed "s/ / +/g; s/^/+/" </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi
