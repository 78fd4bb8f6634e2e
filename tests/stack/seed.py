"""Fill a Mail Archiver database with mail: fast, deterministic by a number, and with everything that makes backups fail.

    python -m tests.stack.seed --directory STACKDIR --megabytes 50

Rows are streamed by binary COPY, a megabyte in memory at a time, and indexes are made afterwards, so that gigabytes take
seconds. A second call adds to what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

HERE = Path(__file__).parent
MEGABYTE = 1_000_000
SPLIT = "-- after loading:"
ATTACHMENT_SHARE = 0.86
UNREACHABLE_MAIL_SERVER = ("imap.mail.invalid", 993)
FIRST_DAY = datetime(2019, 1, 1)

# Everything a text column has broken somebody's backup with.
AWKWARD = (
    "Grüße aus Köln: 10 € für das Café ☕",
    "😀👩‍👩‍👧‍👦 emoji with joiners 🏳️‍🌈",
    "مرحبا بالعالم، هذا نص من اليمين إلى اليسار",
    "שלום עולם",
    "日本語の件名です。全角スペース　あり",
    "tab\there\tand\there",
    "line one\r\nline two\nline three\rold mac",
    "backslash \\ and \\n and \\N and \\. and \\\\",
    "\\.",
    "\\N",
    "quotes ' '' \" \"\" ` $$ $1 $tag$",
    'COPY mail_archiver."ArchivedEmails" FROM stdin;',
    "--\n-- PostgreSQL database dump complete\n--\n",
    "\\connect other\n\\unrestrict x",
    "%s %d {0} ${HOME} $(id) `id`",
    " leading and trailing spaces ",
    "",
    "\u200bzero width\ufeff and a combining e\u0301",
)
WORDS = [
    "invoice",
    "meeting",
    "tomorrow",
    "report",
    "please",
    "find",
    "attached",
    "regards",
    "contract",
    "update",
    "delivery",
    "schedule",
    "draft",
    "review",
    "weekly",
    "budget",
    "question",
    "answer",
    "reminder",
    "offer",
    "order",
    "customer",
    "project",
    "release",
    "server",
    "mail",
    "archive",
    "backup",
    "holiday",
    "lunch",
    "ticket",
    "Rechnung",
    "Angebot",
    "Termin",
    "Bestellung",
    "Lieferung",
    "Freundliche",
    "Vertrag",
    "Anhang",
    "Frage",
    "Antwort",
]
FILE_TYPES = (
    ("pdf", "application/pdf"),
    ("jpg", "image/jpeg"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("zip", "application/zip"),
    ("png", "image/png"),
)


@dataclass(frozen=True, slots=True)
class Seeded:
    """What was added, and how long it took. `bytes` counts texts and attachment contents."""

    mails: int
    attachments: int
    contents: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Attachment:
    number: int
    mail: int
    size: int
    kind: str  # "random", "text", "inline" (bytes in the attachment's own row, as older versions stored them), "shared"


def seed_database(
    dsn: str,
    *,
    megabytes: float = 5,
    number: int = 1,
    large_attachment_megabytes: int = 0,
    imap: tuple[str, int] | None = None,
    extras: bool = True,
) -> Seeded:
    """Add so many megabytes of mail to the database, making schema, accounts and extras where they are missing.

    The same arguments on an empty database give the same content. `dsn` must log in as a superuser where `extras` is set.
    The first account is enabled, deletes after 30 days, and points at `imap` (host and port), else at a name that never
    resolves.
    """
    started = time.monotonic()
    tables, _, rest = (HERE / "schema.sql").read_text(encoding="utf-8").partition(SPLIT)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        fresh = _value(connection, "SELECT to_regclass('public.\"__EFMigrationsHistory\"') IS NULL")
        if fresh:
            connection.execute(tables)
        if not _value(connection, 'SELECT count(*) FROM mail_archiver."MailAccounts"'):
            _add_accounts(connection, imap or UNREACHABLE_MAIL_SERVER)
        seeded = _load(connection, megabytes, number, large_attachment_megabytes)
        _set_sequences(connection)
        if fresh:
            connection.execute(SPLIT + rest)
        if extras and _value(connection, "SELECT to_regclass('public.ticket_numbers') IS NULL"):
            _add_extras(connection)
        # A rough sample is enough, and reading toasted texts for a fine one takes seconds.
        connection.execute("SET default_statistics_target = 10")
        connection.execute("ANALYZE")
    return Seeded(*seeded, seconds=time.monotonic() - started)


def _load(connection: psycopg.Connection, megabytes: float, number: int, large: int) -> tuple[int, int, int, int]:
    first_mail = int(_value(connection, 'SELECT coalesce(max("Id"), 0) FROM mail_archiver."ArchivedEmails"'))
    first_content = int(_value(connection, 'SELECT coalesce(max("Id"), 0) FROM mail_archiver."AttachmentContents"'))
    mails = max(len(AWKWARD) * 2, int(megabytes * MEGABYTE / 57_000))
    salt = f"{number}/{first_mail}"
    plan = _plan(mails, int(megabytes * MEGABYTE * ATTACHMENT_SHARE), salt)
    if large:
        plan.append(_Attachment(len(plan) + 1, 1, large * MEGABYTE, "random"))
    with_attachment = {attachment.mail for attachment in plan}
    text_bytes = int(megabytes * MEGABYTE * (1 - ATTACHMENT_SHARE) / mails)
    written = _copy(
        connection,
        "ArchivedEmails",
        {
            "Id": "int4",
            "MailAccountId": "int4",
            "MessageId": "text",
            "Subject": "text",
            "Body": "text",
            "HtmlBody": "text",
            "From": "text",
            "To": "text",
            "Cc": "text",
            "Bcc": "text",
            "SentDate": "timestamp",
            "ReceivedDate": "timestamp",
            "IsOutgoing": "bool",
            "HasAttachments": "bool",
            "FolderName": "text",
            "RawHeaders": "text",
            "BodyUntruncatedText": "text",
            "BodyUntruncatedHtml": "text",
            "OriginalBodyText": "bytea",
            "OriginalBodyHtml": "bytea",
            "ContentHash": "varchar",
            "IsLocked": "bool",
        },
        (_mail(first_mail + mail, mail, mail in with_attachment, text_bytes, salt) for mail in range(1, mails + 1)),
    )
    written += _copy(
        connection,
        "AttachmentContents",
        {"Id": "int4", "Hash": "varchar", "Content": "bytea", "Size": "int8", "CreatedAt": "timestamp"},
        (
            (first_content + attachment.number, hashlib.sha256(content).hexdigest(), content, len(content), FIRST_DAY)
            for attachment in plan
            if attachment.kind in ("random", "text")
            for content in (_content(attachment, salt),)
        ),
    )
    written += _copy(
        connection,
        "EmailAttachments",
        {
            "ArchivedEmailId": "int4",
            "FileName": "text",
            "ContentType": "text",
            "ContentId": "text",
            "Size": "int8",
            "Content": "bytea",
            "AttachmentContentId": "int4",
        },
        _attachment_rows(plan, first_mail, first_content, salt),
    )
    contents = sum(attachment.kind in ("random", "text") for attachment in plan)
    return mails, len(plan), contents, written


def _plan(mails: int, target_bytes: int, salt: str) -> list[_Attachment]:
    chosen = random.Random(f"{salt}/plan")
    plan: list[_Attachment] = []
    total = 0
    while total < target_bytes or len(plan) < 12:
        # The first dozen have every kind, however small the archive is to be.
        place = len(plan) % 12 if len(plan) < 12 else chosen.randrange(40)
        kind = {2: "text", 5: "inline", 7: "shared", 9: "text", 20: "shared"}.get(place, "random")
        if target_bytes < 2 * MEGABYTE:
            size = chosen.randint(100, 20_000)
        elif target_bytes > 40 * MEGABYTE and chosen.random() < 0.02:
            size = chosen.randint(MEGABYTE, 4 * MEGABYTE)
        else:
            size = int(min(chosen.lognormvariate(10.9, 0.9), 2 * MEGABYTE)) + 1
        plan.append(_Attachment(len(plan) + 1, chosen.randint(1, mails), 0 if kind == "shared" else size, kind))
        total += plan[-1].size
    return plan


def _content(attachment: _Attachment, salt: str) -> bytes:
    made = random.Random(f"{salt}/content/{attachment.number}")
    if attachment.kind != "text":
        return made.randbytes(attachment.size)
    line = f"{attachment.number};{made.random()};" + ";".join(made.choices(WORDS, k=30)) + "\r\n"
    return (line * (attachment.size // len(line) + 1)).encode()[: attachment.size]


def _attachment_rows(
    plan: Sequence[_Attachment], first_mail: int, first_content: int, salt: str
) -> Iterator[Sequence[object]]:
    last_stored = _Attachment(0, 0, 0, "random")
    for attachment in plan:
        extension, content_type = FILE_TYPES[attachment.number % len(FILE_TYPES)]
        if attachment.kind in ("random", "text"):
            last_stored = attachment
        inline = _content(attachment, salt) if attachment.kind == "inline" else None
        awkward = AWKWARD[attachment.number % len(AWKWARD)].replace("/", "") if attachment.number % 10 == 0 else "Scan"
        yield (
            first_mail + attachment.mail,
            f"{awkward} {attachment.number}.{extension}",
            content_type,
            f"<part{attachment.number}@example.org>" if attachment.number % 4 == 0 else None,
            len(inline) if inline is not None else last_stored.size,
            inline,
            None if inline is not None else first_content + last_stored.number,
        )


def _mail(row: int, number: int, has_attachments: bool, text_bytes: int, salt: str) -> Sequence[object]:
    made = random.Random(f"{salt}/mail/{number}")
    awkward = AWKWARD[number % len(AWKWARD)]
    sentence = " ".join(made.choices(WORDS, k=40))
    # Text compresses, but not to nothing: every third line is unlike the others.
    paragraph = f"{sentence}\n{made.randbytes(30).hex()}\n{awkward}\n"
    body = paragraph * max(1, text_bytes // (3 * len(paragraph)))
    long_text = "".join(f"{line} {sentence}\n" for line in range(2000)) if number % 500 == 7 else None
    sent = FIRST_DAY + timedelta(minutes=37 * row, microseconds=row)
    sender = f"{made.choice(WORDS).lower()}.{number % 97}@example.org"
    return (
        row,
        number % 3 + 1,
        f"<{row}.{made.getrandbits(64):x}@example.org>",
        f"{awkward} {sentence[:40]}",
        body,
        f"<html><body><p>{body}</p></body></html>",
        sender,
        f'"{awkward}" <reader@example.org>',
        "" if number % 5 else "copy@example.org",
        "",
        sent,
        sent + timedelta(seconds=number % 300),
        number % 11 == 0,
        has_attachments,
        ("INBOX", "Sent", "Archiv/Grüße", "[Gmail]/All Mail")[number % 4],
        f"Received: from mx.example.org by mail.example.org; {sent:%c}\r\nFrom: {sender}\r\nMIME-Version: 1.0\r\n",
        long_text,
        None,
        b"with\x00null\x00bytes " + awkward.encode() if number % 50 == 3 else None,
        None,
        hashlib.sha256(body.encode()).hexdigest() if number % 2 else None,
        number % 25 == 0,
    )


def _copy(connection: psycopg.Connection, table: str, columns: dict[str, str], rows: Iterator[Sequence[object]]) -> int:
    statement = sql.SQL("COPY mail_archiver.{} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    written = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)
            written += sum(len(value) for value in row if isinstance(value, str | bytes))
    return written


def _add_accounts(connection: psycopg.Connection, imap: tuple[str, int]) -> None:
    server, port = imap
    account = 'INSERT INTO mail_archiver."MailAccounts" '
    connection.execute(
        account + '("Name", "EmailAddress", "ImapServer", "ImapPort", "Username", "Password", "UseSSL", "IsEnabled",'
        ' "DeleteAfterDays", "ExcludedFolders") VALUES (%s, %s, %s, %s, %s, %s, false, true, 30, %s)',
        [
            "Grüße 📬",
            "reader@example.org",
            server,
            port,
            "reader@example.org",
            'mailbox "canary" pass\\word',
            "Spam,Trash",
        ],
    )
    connection.execute(
        account + '("Name", "EmailAddress", "Provider", "ClientId", "ClientSecret", "TenantId", "OAuthAccessToken",'
        ' "OAuthRefreshToken", "IsEnabled") VALUES (%s, %s, %s, %s, %s, %s, %s, %s, true)',
        [
            "Office",
            "office@example.org",
            "M365",
            "client-1",
            "client-secret-canary",
            "tenant",
            "access-canary",
            "refresh-canary",
        ],
    )
    connection.execute(
        account + '("Name", "EmailAddress", "ImapServer", "ImapPort", "Username", "Password", "IsEnabled",'
        ' "LocalRetentionDays") VALUES (%s, %s, %s, %s, %s, %s, false, 3650)',
        ["Old", "old@example.org", server, port, "old@example.org", "disabled-canary"],
    )
    connection.execute(
        'INSERT INTO mail_archiver."Users" ("Username", "Email", "PasswordHash", "IsAdmin", "CreatedAt", "TwoFactorSecret",'
        " \"IsTwoFactorEnabled\") VALUES ('admin', 'Admin@example.org', crypt('secure123!', '$2a$06$abcdefghijklmnopqrstuv'),"
        " true, '2019-01-01', 'JBSWY3DPEHPK3PXP', true),"
        " ('Ünal', 'uenal@example.org', NULL, false, '2020-02-29', NULL, false)"
    )
    connection.execute(
        'INSERT INTO mail_archiver."UserMailAccounts" ("UserId", "MailAccountId") VALUES (1, 1), (1, 2), (2, 3);'
        'INSERT INTO mail_archiver."ApiKeys" ("UserId", "Name", "KeyHash", "CreatedAt")'
        " VALUES (1, 'dashboard', repeat('ab', 32), '2024-01-01 00:00+00');"
        'INSERT INTO mail_archiver."AccessLogs" ("Timestamp", "Username", "Type", "EmailSubject")'
        " SELECT timestamp '2024-01-01' + n * interval '7 minutes', 'admin', n % 5, 'Subject ' || n"
        " FROM generate_series(1, 200) n;"
        'INSERT INTO mail_archiver."BandwidthUsage" ("MailAccountId", "Date", "BytesDownloaded")'
        " SELECT 1, date '2024-01-01' + n, n * 4096 FROM generate_series(1, 60) n;"
        'INSERT INTO mail_archiver."SyncCheckpoints" ("MailAccountId", "FolderName", "LastMessageDate")'
        " VALUES (1, 'INBOX', '2024-06-01'), (1, 'Archiv/Grüße', NULL);"
        "INSERT INTO mail_archiver.\"AccountStorageCache\" VALUES (1, 10, 20, 30, '2024-06-01 00:00+00');"
        "INSERT INTO mail_archiver.\"AccountStorageBackfillState\" VALUES (1, 'Done', '2024-06-01 00:00+00')"
    )


def _add_extras(connection: psycopg.Connection) -> None:
    database = sql.Identifier(str(_value(connection, "SELECT current_database()")))
    for role, options in (
        ("mailreader", "NOLOGIN"),
        ("reporting", "LOGIN PASSWORD 'reporting-canary' CONNECTION LIMIT 5"),
    ):
        if not _value(connection, "SELECT count(*) FROM pg_roles WHERE rolname = %s", [role]):
            connection.execute(f"CREATE ROLE {role} {options}")
    connection.execute((HERE / "extras.sql").read_text(encoding="utf-8"))
    for statement in (
        "COMMENT ON DATABASE {} IS 'The mail of a lifetime – don''t lose it'",
        "ALTER DATABASE {} SET work_mem = '8MB'",
        "ALTER DATABASE {} SET \"DateStyle\" = 'ISO, DMY'",
        "ALTER ROLE reporting IN DATABASE {} SET statement_timeout = '30s'",
        "GRANT CONNECT ON DATABASE {} TO reporting",
    ):
        connection.execute(sql.SQL(statement).format(database))


def _set_sequences(connection: psycopg.Connection) -> None:
    for table in ("ArchivedEmails", "AttachmentContents"):
        connection.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence({}, 'Id'), max(\"Id\")) FROM mail_archiver.{}").format(
                sql.Literal(f'mail_archiver."{table}"'), sql.Identifier(table)
            )
        )


def _value(connection: psycopg.Connection, query: str, parameters: Sequence[object] | None = None) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def main() -> None:
    """Seed the stack of a directory."""
    from tests.stack.stack import open_stack

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--number", type=int, default=1, help="another number gives other mail")
    parser.add_argument("--large-attachment-megabytes", type=int, default=0)
    parser.add_argument("--no-extras", action="store_true")
    options = parser.parse_args()
    seeded = seed_database(
        open_stack(options.directory).dsn(),
        megabytes=options.megabytes,
        number=options.number,
        large_attachment_megabytes=options.large_attachment_megabytes,
        extras=not options.no_extras,
    )
    speed = seeded.bytes / MEGABYTE / max(seeded.seconds, 0.001)
    print(
        f"{datetime.now(UTC):%H:%M:%S} added {seeded.mails} mails with {seeded.attachments} attachments,"
        f" {seeded.bytes / MEGABYTE:.0f} MB in {seeded.seconds:.1f} s ({speed:.0f} MB/s)"
    )


if __name__ == "__main__":
    main()
