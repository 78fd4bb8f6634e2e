"""The keys of age as its library takes them: built from text, in this process or in one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyrage

from tasks.core.archive.recipients import plugin_of, recipient_kind


class _Nobody:
    """Answers a plugin that wants to ask somebody: there is nobody."""

    def display_message(self, message: str) -> None:
        """Leave what it says unsaid."""

    def confirm(self, message: str, yes: str, no: str | None) -> bool | None:
        """Confirm nothing."""
        return None

    def request_public_string(self, description: str) -> str | None:
        """Give no answer."""
        return None

    def request_passphrase(self, description: str) -> str | None:
        """Give no passphrase."""
        return None


def recipients_of(texts: Sequence[str]) -> list[Any]:
    """Build recipients; raise RecipientError for what is none, or where its plugin is not installed."""
    built: list[Any] = []
    for text in texts:
        kind = recipient_kind(text)
        if kind == "ssh":
            built.append(pyrage.ssh.Recipient.from_str(text))
        elif kind == "plugin":
            one = pyrage.plugin.Recipient.from_str(text)
            built.append(pyrage.plugin.RecipientPluginV1(plugin_of(text), [one], [], _Nobody()))
        else:
            built.append(pyrage.x25519.Recipient.from_str(text))
    return built


def identities_of(texts: Sequence[str]) -> list[Any]:
    """Build identities; raise IdentityError for what is none, or where its plugin is not installed."""
    built: list[Any] = []
    for text in texts:
        if text.upper().startswith("AGE-PLUGIN-"):
            one = pyrage.plugin.Identity.from_str(text)
            built.append(pyrage.plugin.IdentityPluginV1(one.plugin(), [one], _Nobody()))
        elif text.upper().startswith("AGE-SECRET-KEY-"):
            built.append(pyrage.x25519.Identity.from_str(text))
        else:
            built.append(pyrage.ssh.Identity.from_buffer(text.encode()))
    return built
