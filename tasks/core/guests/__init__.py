"""Guests that carry an installation, containers of LXC and virtual machines: what is decided about them from values alone."""
