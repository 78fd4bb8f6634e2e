"""The server's notes of what changes (`summarize_wal`, since PostgreSQL 17), and the tokens of the backups that it went on from.

Both stand in `postgresql.auto.conf`, by ALTER SYSTEM, and so go with the data directory wherever it goes. PostgreSQL 17 takes a setting
there whose prefix no extension has claimed; it says nothing to any program but this one.
"""

from __future__ import annotations

import re
import secrets
import time

from tasks.adapters.postgres.facts import server_major
from tasks.adapters.postgres.session import Session
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.chains import SUMMARIES_SINCE, TOKENS_KEPT, ServerHistory
from tasks.core.quoting import quoted_literal

TOKENS = "mailarchiver_backup.history"
RELOAD_POLL_SECONDS = 0.005
TAKES_EFFECT_SECONDS = 10.0


def server_history(session: Session) -> ServerHistory:
    """Ask a server what an incremental backup of it could build on."""
    major = server_major(session)
    system = str(session.value("SELECT system_identifier FROM pg_control_system()"))
    if major < SUMMARIES_SINCE:
        return ServerHistory(system, major, False, ())
    found = str(session.value(f"SELECT coalesce(current_setting('{TOKENS}', true), '')"))
    tokens = tuple(each for each in found.split(",") if re.fullmatch("[0-9a-f]{16}", each))
    return ServerHistory(system, major, session.value("SHOW summarize_wal") == "on", tokens)


def switch_on(session: Session) -> bool:
    """Have the server note what changes; tell whether it did not before. Raise Refused where it cannot (`wal_level` minimal, PostgreSQL 16)."""
    if server_history(session).summarizes:
        return False
    level = session.value("SHOW wal_level")
    if server_major(session) < SUMMARIES_SINCE or level == "minimal":
        raise Refused(
            f"this server cannot note what changes: PostgreSQL {session.value('SHOW server_version')}, wal_level {level}",
            hint=f"incremental backups want PostgreSQL {SUMMARIES_SINCE} and wal_level replica",
        )
    session.execute("ALTER SYSTEM SET summarize_wal = on")
    _reload(session, "SHOW summarize_wal", "on")
    return True


def switch_off(session: Session) -> bool:
    """Take back what `switch_on` and the backups have set; tell whether anything was."""
    if server_major(session) < SUMMARIES_SINCE:
        return False
    set_here = {
        str(name)
        for (name,) in session.execute(
            "SELECT name FROM pg_file_settings WHERE name IN ('summarize_wal', %s) AND sourcefile LIKE '%%/postgresql.auto.conf'",
            (TOKENS,),
        )
    }
    for name in sorted(set_here):
        session.execute(f"ALTER SYSTEM RESET {name}")
    if set_here:
        session.execute("SELECT pg_reload_conf()")
    return bool(set_here)


def leave_token(session: Session) -> str:
    """Leave a new token in the server, and return it: a backup that ends now can be built on as long as the server has it."""
    token = secrets.token_hex(8)
    kept = ",".join([*server_history(session).tokens[-(TOKENS_KEPT - 1) :], token])
    session.execute(f"ALTER SYSTEM SET {TOKENS} = {quoted_literal(kept)}")
    _reload(session, f"SELECT current_setting('{TOKENS}', true)", kept)
    return token


def _reload(session: Session, asked: str, wanted: str) -> None:
    """Have the server read its settings again, and return when this session sees them."""
    session.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + TAKES_EFFECT_SECONDS
    while session.value(asked) != wanted:
        if time.monotonic() > deadline:
            raise BackupError(
                f"the server did not take its new settings within {TAKES_EFFECT_SECONDS:g} s ({asked})",
                hint="are they given on its command line? its log says more",
            )
        time.sleep(RELOAD_POLL_SECONDS)
