"""How guests, and what is around them, may be called: patterns, without a settings file's machinery, for anyone who only reads a name."""

from __future__ import annotations

# As a directory of LXC or a domain of libvirt may be called, and nothing that leads elsewhere or looks like an option.
GUEST_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}"

# As Proxmox writes its own names: each may stand in a path of its API, and none can leave its place there.
NODE = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
STORAGE = r"[A-Za-z][A-Za-z0-9._-]{0,98}[A-Za-z0-9]"
DATASTORE = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
NAMESPACE = rf"{DATASTORE}(?:/{DATASTORE}){{0,7}}"
GUEST_POOL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
LARGEST_GUEST = 999_999_999
UPID = rf"UPID:{NODE}(?::[0-9A-Fa-f]{{4,16}}){{3,4}}:[A-Za-z0-9_-]{{1,64}}:[^:/\s]{{0,128}}:[^:/\s]{{1,128}}:"
