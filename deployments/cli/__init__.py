"""`mailarchiver-backup`: the commands, in files by what they are for. Thin: read options, call a flow, show its result."""

from deployments.cli.program import main

__all__ = ["main"]
