"""How incremental backups stand with a server: does it note what changes, who wants that, and how it is taken back."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.adapters.postgres.wal_summaries import server_history, switch_off
from tasks.core.errors import BackupError
from tasks.core.policy.chains import SUMMARIES_SINCE, OnlineKind
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig

TAKEN_BACK_BY = "mailarchiver-backup wal-summaries --off"


@dataclass(frozen=True, slots=True)
class IncrementalSeen:
    """What the settings want, whether the server notes what changes (None: it could not be asked), and how many backups it went on from."""

    kind: OnlineKind
    summarizes: bool | None
    tokens: int = 0
    why_unknown: str = ""

    def __str__(self) -> str:
        """Tell it in a sentence."""
        if self.summarizes is None:
            return f"not known, for {self.why_unknown}" if self.kind != "full" or self.why_unknown else "not wanted"
        if self.kind == "full":
            return (
                f"not wanted, and summarize_wal is on: `{TAKEN_BACK_BY}` takes it back"
                if self.summarizes
                else "not wanted"
            )
        if self.summarizes:
            return f"{self.kind}; summarize_wal is on, {self.tokens} backups known to the server (`{TAKEN_BACK_BY}` takes it back)"
        return f"{self.kind}; summarize_wal is off, and the next online backup switches it on"


def incremental_seen(config: InstallationConfig, installation: Installation) -> IncrementalSeen:
    """Ask an installation's server; what cannot be asked is told."""
    kind = config.settings.incremental.kind
    try:
        with server_of(installation) as server, session(server, "postgres", purpose="look") as opened:
            found = server_history(opened)
    except BackupError as error:
        return IncrementalSeen(kind, None, why_unknown=error.message)
    if found.major < SUMMARIES_SINCE:
        old = f"PostgreSQL {found.major} has no such backups; {SUMMARIES_SINCE} does"
        return IncrementalSeen(kind, None, why_unknown=old if kind != "full" else "")
    return IncrementalSeen(kind, found.summarizes, len(found.tokens))


def forget_summaries(installation: Installation) -> bool:
    """Take back what incremental backups have set in the server; tell whether anything was. The next online backup is a full one."""
    with server_of(installation) as server, session(server, "postgres", purpose="settings") as opened:
        return switch_off(opened)
