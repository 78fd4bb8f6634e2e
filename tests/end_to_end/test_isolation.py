"""P9: staging touches nothing, and a quarantined restore leaves the mailboxes alone; with the guard off, the mail server hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.stack import engine
from tests.stack.imap import imap_server
from tests.stack.stack import Stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

GATEWAY = "172.17.0.1"


def test_no_mailbox_is_touched_before_it_is_allowed(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The stand-in logs in to every enabled account soon after it starts, as the real application does."""
    with imap_server() as mailbox:
        directory = tmp_path / "isolated"
        stack = make_stack(directory, imap=(GATEWAY, mailbox.port), sync_delay_seconds=1, start_application=False)
        operator = Operator(stack.directory, stack.directory / "backups")
        assert stack.psql('SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"')[0][0] > 0
        operator.must("backup", "hot")
        operator.must("backup", "online")
        states = stack.states()
        for backup in operator.must("list"):
            assert operator.must("verify", backup["name"])["verdict"] == "verified"
        assert stack.states() == states
        assert operator.run("doctor").value["installation"]["id"] == directory.name
        assert leftovers(directory.name) == []
        assert mailbox.connections() == []

        for backup in operator.must("list"):
            assert operator.must("restore", backup["name"], "--yes", "--quarantine")["quarantined"] is True
            stack.compose("up", "-d")
            stack.wait_app()
            wait_until_synchronised(stack)
            assert mailbox.connections() == []
            stack.compose("stop", "mailarchive-app")

        operator.must("restore", "latest", "--yes", "--no-quarantine")
        stack.compose("up", "-d")
        stack.wait_app()
        wait_until(mailbox.connections, 20, "the guard was off, and yet nobody came: this test proves nothing")


def wait_until_synchronised(stack: Stack) -> None:
    """Wait for the application's second look at the accounts from now on: it has ended what the first one gave it to do."""
    looks = looks_at_accounts(stack)
    wait_until(lambda: looks_at_accounts(stack) >= looks + 2, 60, "the application does not look for accounts")


def looks_at_accounts(stack: Stack) -> int:
    """Count how often the accounts were read, which the application does before it synchronises them."""
    read = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'MailAccounts'"
    return int(stack.psql(read)[0][0])


def leftovers(installation: str) -> list[str]:
    """Name what a verification of one installation might leave behind on the engine; other tests verify theirs meanwhile."""
    client, ours = engine.engine(), f"staging-{installation}-"
    found = [name for name in engine.container_names() if ours in name]
    found += [network.name for network in client.networks.list() if ours in network.name]
    return found + [volume.name for volume in client.volumes.list() if ours in volume.name]
