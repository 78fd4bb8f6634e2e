"""The verdict on a guest's backup: what a test came to, and what of it proves something."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tasks.core.errors import BackupError, UsageError
from tasks.core.proxmox.proofs import GuestProof, mails_before, too_few
from tasks.proxmox.backup_guest import proxmox_of
from tasks.proxmox.inside_guest import Content
from tasks.proxmox.trial import Chosen, Restored, verification_of
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import own_records

logger = logging.getLogger(__name__)


@dataclass
class Findings:
    """What a test of a guest's backup has come to so far; what it did not come to is None."""

    guest: int
    chosen: Chosen | None = None
    restored: Restored | None = None
    booted: bool = False
    accounts: int | None = None
    content: Content | None = None
    application: bool = False
    expected: tuple[int, str] | None = field(default=None)

    def proof(self, now: datetime, seconds: float, error: BackupError | None = None) -> GuestProof:
        """Give the verdict: `verified` where everything was come to and nothing speaks against it."""
        copy = self.chosen.copy if self.chosen else None
        said = [*str(error).splitlines(), *getattr(error, "__notes__", ())] if error is not None else []
        problem = " ".join(said)[:4000]
        return GuestProof(
            guest=self.guest, at=now, verdict="failed" if error is not None else "verified", problem=problem,
            backup=copy.name if copy else "", backup_at=copy.at if copy else None, restored_as=self.restored.guest.vmid if self.restored else 0,
            booted=self.booted, accounts=self.accounts, application=self.application, mails=self.content.mails if self.content else None,
            attachments=self.content.attachments if self.content else 0, expected=self.expected[0] if self.expected else None,
            expected_from=self.expected[1] if self.expected else "", restore_seconds=round(self.restored.seconds, 3) if self.restored else 0.0,
            seconds=round(seconds, 3),
        )  # fmt: skip


def guests_to_prove(config: InstallationConfig, guest: int | None) -> Sequence[int]:
    """Give the guests of the settings, or the one that is asked for; raise UsageError where the settings do not name it."""
    verification_of(config)
    known = proxmox_of(config).guests
    if guest is None:
        return known
    if guest not in known:
        raise UsageError(
            f"the settings of {config.id} name no guest {guest}", hint=f"known: {', '.join(map(str, known))}"
        )
    return (guest,)


def compare_content(config: InstallationConfig, found: Findings, now: datetime) -> None:
    """Compare what a guest's backup holds with the application's own backups; raise BackupError where it cannot be right."""
    assert found.chosen is not None
    assert found.content is not None
    content, copy = found.content, found.chosen.copy
    if content.wrong:
        raise BackupError(f"the backup {copy.name} of {found.chosen.guest} is damaged: {'; '.join(content.wrong)}")
    try:
        found.expected = mails_before(own_records(config, now=now), copy.at)
    except BackupError as error:  # a repository that is away refutes no guest's backup
        logger.warning("mails are not compared with the application's own backups: %s", error.message)
    limit = config.settings.retention.shrink_limit_percent
    if found.expected is not None and too_few(content.mails, found.expected[0], limit):
        raise BackupError(
            f"the backup {copy.name} of {found.chosen.guest} holds {content.mails} mails, where {found.expected[1]} before it holds"
            f" {found.expected[0]}",
            hint=f"up to {limit:g} % fewer would be taken (`retention.shrink_limit_percent`); does the guest carry this installation?",
        )
