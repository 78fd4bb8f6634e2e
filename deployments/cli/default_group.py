"""A command that also has others under its name: `restore BACKUP` as ever, and `restore lxc BACKUP`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "database"


class DefaultGroup(TyperGroup):
    """A group whose first word may be left out: what is no subcommand's name is for the command `database`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word there where it was left out; so `--help` is that command's help, which names the others."""
        if not args or args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
