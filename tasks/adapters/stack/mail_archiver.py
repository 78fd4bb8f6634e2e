"""What we must know of Mail Archiver itself: its tables, how to keep it from the mailboxes, and whether it answers.

The application logs in to every enabled account soon after it starts, and deletes mail on the real server where an account says so. So
before it starts on restored data, its accounts are disabled: for good on staging (`neutralise`), with a way back in a restore
(`quarantine`, `lift_quarantine`). Columns are looked up, since they differ between versions.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence

from tasks.adapters.postgres.session import Statements, unguarded
from tasks.core.errors import BackupError, Refused
from tasks.core.quoting import quoted, quoted_literal

ACCOUNTS = "MailAccounts"
ENABLED = "IsEnabled"
DELETION = "DeleteAfterDays"
RETENTION = (DELETION, "LocalRetentionDays")
QUARANTINE_SCHEMA = "mailarchiver_backup"
LOGIN_PAGE = "/Auth/Login"
MAILS = "ArchivedEmails"
WHAT_COUNTS = (MAILS, "EmailAttachments", ACCOUNTS, "Users")
_SECRET = "password|secret|token|clientid|apikey|totp|twofactor|backupcode"


def quarantine(session: Statements) -> int:
    """Disable the synchronisation and retention of every mail account, keeping what was set for `lift_quarantine`.

    Return the number of accounts that were changed. Raise Refused where accounts exist that cannot be disabled.
    """
    table = _accounts_table(session)
    if table is None:
        return 0
    columns = _switches(session, table)
    kept = ", ".join(f"{quoted_literal(name)}, {quoted(name)}" for name in columns)
    changed = " OR ".join(f"{quoted(name)}" if name == ENABLED else f"{quoted(name)} IS NOT NULL" for name in columns)
    with unguarded(session):
        session.execute(f"CREATE SCHEMA IF NOT EXISTS {QUARANTINE_SCHEMA}")
        session.execute(
            f"CREATE TABLE IF NOT EXISTS {QUARANTINE_SCHEMA}.quarantined_accounts (account_id text PRIMARY KEY, settings jsonb NOT NULL)"
        )
        session.execute(
            f'INSERT INTO {QUARANTINE_SCHEMA}.quarantined_accounts SELECT "Id"::text, jsonb_build_object({kept}) FROM {table}'
            f" WHERE {changed} ON CONFLICT DO NOTHING"
        )
        _disable(session, table, columns)
    return int(session.value(f"SELECT count(*) FROM {QUARANTINE_SCHEMA}.quarantined_accounts"))


def lift_quarantine(session: Statements) -> int:
    """Give the quarantined accounts the settings they had; return how many. No quarantine is 0 and no error.

    An account that was changed by hand meanwhile (enabled again) keeps what it has now.
    """
    if session.value(f"SELECT to_regclass('{QUARANTINE_SCHEMA}.quarantined_accounts')") is None:
        return 0
    table = _accounts_table(session)
    lifted = 0
    with unguarded(session):
        if table is not None:
            columns = _switches(session, table)
            kept = ", ".join(
                f"{quoted(name)} = (q.settings->>{quoted_literal(name)})::{_type(session, table, name)}"
                for name in columns
            )
            rows = session.execute(
                f"UPDATE {table} a SET {kept} FROM {QUARANTINE_SCHEMA}.quarantined_accounts q"
                f' WHERE a."Id"::text = q.account_id AND NOT a.{quoted(ENABLED)} RETURNING 1'
            )
            lifted = len(rows)
        session.execute(f"DROP SCHEMA {QUARANTINE_SCHEMA} CASCADE")
    return lifted


def in_quarantine(session: Statements) -> int:
    """Count the accounts that wait for `lift_quarantine`."""
    if session.value(f"SELECT to_regclass('{QUARANTINE_SCHEMA}.quarantined_accounts')") is None:
        return 0
    return int(session.value(f"SELECT count(*) FROM {QUARANTINE_SCHEMA}.quarantined_accounts"))


def neutralise(session: Statements) -> int:
    """Disable every mail account and blank every secret, for good: this copy of the data must never reach a mailbox.

    Return the number of accounts. Raise Refused where accounts exist that cannot be disabled.
    """
    secrets = session.execute(
        "SELECT n.nspname, c.relname, a.attname, a.attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid"
        " WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname ~* %s"
        " AND t.typname IN ('text', 'varchar', 'citext') AND c.relname IN (%s, 'Users')",
        (_SECRET, ACCOUNTS),
    )
    table = _accounts_table(session)
    with unguarded(session):
        for schema, name, column, required in secrets:
            empty = "''" if required else "NULL"
            session.execute(f"UPDATE {quoted(schema)}.{quoted(name)} SET {quoted(column)} = {empty}")
        if table is None:
            return 0
        _disable(session, table, _switches(session, table))
    return int(session.value(f"SELECT count(*) FROM {table}"))


def accounts_at_large(session: Statements) -> int:
    """Count the mail accounts that could still reach a mailbox: enabled, or with a secret. `neutralise` leaves none."""
    table = _accounts_table(session)
    if table is None:
        return 0
    found = session.execute(
        "SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = %s::regclass AND a.attnum > 0"
        " AND NOT a.attisdropped AND a.attgenerated = '' AND"
        " (a.attname = %s OR (a.attname ~* %s AND t.typname IN ('text', 'varchar', 'citext'))) ORDER BY 1",
        (table, ENABLED, _SECRET),
    )
    names = [str(name) for (name,) in found]
    if ENABLED not in names:
        _switches(session, table)  # tells what that means
    reaching = " OR ".join(
        quoted(name) if name == ENABLED else f"coalesce({quoted(name)}::text, '') <> ''" for name in names
    )
    return int(session.value(f"SELECT count(*) FROM {table} WHERE {reaching}"))


def count_mails(session: Statements) -> int | None:
    """Count the archived mails; None where there is no table of them."""
    schema = session.value(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = 'ArchivedEmails' AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 1"
    )
    return None if schema is None else int(session.value(f'SELECT count(*) FROM {quoted(schema)}."ArchivedEmails"'))


def server_deletion(session: Statements) -> tuple[int | None, int]:
    """Tell after how many days the first enabled account deletes mail on its server (None: none does), and how many accounts do.

    Mail Archiver takes 0 and less as never. Versions before there was such a setting delete nothing; where a version has no switch
    for accounts, all of them count. Raise Refused where there are no accounts to look at.
    """
    table = _accounts_table(session)
    if table is None:
        raise Refused(f"the database has no table {ACCOUNTS}", hint="is it Mail Archiver's?")
    columns = _columns(session, table)
    if DELETION not in columns:
        return None, 0
    enabled = f" AND {quoted(ENABLED)}" if ENABLED in columns else ""
    (row,) = session.execute(
        f"SELECT min({quoted(DELETION)}), count(*) FROM {table} WHERE {quoted(DELETION)} > 0{enabled}"
    )
    return (None if row[0] is None else int(row[0])), int(row[1])


def count_attachments(session: Statements) -> tuple[int, list[str]]:
    """Recompute the SHA-256 of every attachment's content and compare it with the hash beside it.

    Return how many there are, and in words which of them differ (the first ten).
    """
    schema = session.value(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = 'AttachmentContents' AND c.relkind = 'r' ORDER BY 1 LIMIT 1"
    )
    if schema is None:
        return 0, []
    # The rows are short (the bytes are out of line), so the planner sees no reason for more than one process; hashing is one.
    for setting in ("min_parallel_table_scan_size = 0", "parallel_setup_cost = 0", "parallel_tuple_cost = 0"):
        session.execute(f"SET {setting}")
    table = f'{quoted(schema)}."AttachmentContents"'
    total, wrong = session.execute(
        f'SELECT count(*), (array_agg("Id"::text) FILTER (WHERE encode(sha256("Content"), \'hex\') IS DISTINCT FROM lower("Hash")))'
        f" FROM {table}"
    )[0]
    return int(total), [f"attachment content {name} does not match its SHA-256" for name in (wrong or [])[:10]]


def wait_until_answers(addresses: Sequence[str], port: int, *, timeout_seconds: float) -> None:
    """Return once the application's login page answers with 200; raise BackupError with what it said last when it never does."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        problem = ask_login_page(addresses, port)
        if not problem:
            return
        if time.monotonic() > deadline:
            raise BackupError(
                f"the application does not answer on port {port} after {timeout_seconds:g} s: {problem}",
                hint="look at its log: docker compose logs",
            )
        time.sleep(0.1)


def ask_login_page(addresses: Sequence[str], port: int) -> str:
    """Ask for the application's login page once: "" where it answers with 200, else what came instead."""
    last = "no address"
    for address in addresses:
        try:
            connection = http.client.HTTPConnection(address, port, timeout=5)
            try:
                connection.request("GET", LOGIN_PAGE)
                status = connection.getresponse().status
            finally:
                connection.close()
            if status == http.client.OK:
                return ""
            last = f"HTTP status {status}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
    return last


def count_what_counts(session: Statements) -> dict[str, int]:
    """Count the rows that no new version of the application may lose: mails, attachments, accounts, users; tables it has not are left out."""
    rows = session.execute(
        "SELECT c.relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p') ORDER BY 1, 2",
        (list(WHAT_COUNTS),),
    )
    found: dict[str, int] = {}
    for table, schema in rows:
        found.setdefault(table, int(session.value(f"SELECT count(*) FROM {quoted(schema)}.{quoted(table)}")))
    return found


def mails_digest(session: Statements) -> str:
    """Sum up which mails there are, in any order: their numbers and message ids; "" where there is no such table."""
    schema = session.value(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = %s AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 1",
        (MAILS,),
    )
    if schema is None:
        return ""
    words = "\"Id\"::text || ' ' || coalesce(\"MessageId\", '')"
    return str(
        session.value(
            f"SELECT coalesce(sum(hashtextextended({words}, 0)::numeric), 0)::text FROM {quoted(schema)}.{quoted(MAILS)}"
        )
    )


def _accounts_table(session: Statements) -> str | None:
    schema = session.value(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = %s AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 1",
        (ACCOUNTS,),
    )
    return None if schema is None else f"{quoted(schema)}.{quoted(ACCOUNTS)}"


def _switches(session: Statements, table: str) -> list[str]:
    """Find the columns that let an account synchronise or delete."""
    columns = _columns(session, table)
    if ENABLED not in columns:
        raise Refused(
            f"{table} has no column {ENABLED}: its accounts cannot be kept from their mail servers",
            hint="this version of Mail Archiver is not known; do not start it on this data",
        )
    return [ENABLED, *(name for name in RETENTION if name in columns)]


def _columns(session: Statements, table: str) -> set[str]:
    found = session.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", (table,)
    )
    return {name for (name,) in found}


def _disable(session: Statements, table: str, columns: Sequence[str]) -> None:
    off = ", ".join(f"{quoted(name)} = {'false' if name == ENABLED else 'NULL'}" for name in columns)
    session.execute(f"UPDATE {table} SET {off}")
    still = session.value(f"SELECT count(*) FROM {table} WHERE {quoted(ENABLED)}")
    if still:
        raise Refused(
            f"{still} mail accounts could not be disabled", hint="does a trigger in the database set them again?"
        )


def _type(session: Statements, table: str, column: str) -> str:
    return str(
        session.value(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            (table, column),
        )
    )
