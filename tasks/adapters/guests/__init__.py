"""The programs of LXC and libvirt, and GNU tar."""
