"""Stands in for Mail Archiver in tests: what a backup tool can see of it, and its three dangers.

It answers on port 5000 only while its database answers, makes the schema where there is none, writes a data-protection key,
logs in to every enabled mail account soon after it started (as the real one does: that is what staging must prevent), and
inserts mail continuously on request, each in one transaction across three tables.

Environment: `ConnectionStrings__DefaultConnection` (else /app/appsettings.json), `STANDIN_WRITE_PER_SECOND` (0),
`STANDIN_SYNC_DELAY_SECONDS` (5; the real one waits 60), `STANDIN_SYNC_INTERVAL_SECONDS` (3).
`POST /standin/writing?per_second=N` changes the rate; `GET /standin` tells it and how many mails were committed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

HERE = Path(__file__).parent
KEYS = HERE / "DataProtection-Keys"
PARAMETERS = {
    "host": "host",
    "server": "host",
    "port": "port",
    "database": "dbname",
    "db": "dbname",
    "username": "user",
    "userid": "user",
    "uid": "user",
    "user": "user",
    "password": "password",
    "pwd": "password",
}


def parse_connection_string(text: str) -> dict[str, str]:
    """Read an ADO.NET connection string: `Key=value;` pairs, values quoted where they hold `;` or quotes.

    >>> parse_connection_string('Host=db; User Id=x;Password="a;""b";Timeout=3')
    {'host': 'db', 'user': 'x', 'password': 'a;"b'}
    """
    found: dict[str, str] = {}
    rest = text
    while rest.strip(" ;"):
        key, _, rest = rest.lstrip(" ;").partition("=")
        rest = rest.lstrip(" ")
        if rest[:1] in ("'", '"'):
            quote, value, place = rest[0], "", 1
            while place < len(rest):
                if rest[place] != quote:
                    value += rest[place]
                elif rest[place + 1 : place + 2] == quote:
                    value += quote
                    place += 1
                else:
                    break
                place += 1
            rest = rest[place + 1 :].partition(";")[2]
        else:
            value, _, rest = rest.partition(";")
            value = value.rstrip(" ")
        parameter = PARAMETERS.get(key.strip().lower().replace(" ", ""))
        if parameter is not None:
            found[parameter] = value
    return found


def connection_string() -> str:
    """Give the application's connection string: the environment's, else the settings file's."""
    given = os.environ.get("ConnectionStrings__DefaultConnection", "")  # noqa: SIM112 - .NET spells it so
    if given:
        return given
    settings = json.loads((HERE / "appsettings.json").read_text(encoding="utf-8-sig"))
    return str(settings["ConnectionStrings"]["DefaultConnection"])


def connect(**more: object) -> psycopg.Connection:
    """Log in to the database anew: nothing here is ever remembered from an earlier answer."""
    return psycopg.connect(
        **parse_connection_string(connection_string()), connect_timeout=3, application_name="standin", **more
    )


def migrate() -> None:
    """Make the schema where there is no migrations history, as EF Core does; go on trying until the database answers."""
    while True:
        try:
            with connect() as connection:
                connection.execute("SELECT pg_advisory_xact_lock(2608)")
                if connection.execute("SELECT to_regclass('public.\"__EFMigrationsHistory\"')").fetchone()[0] is None:
                    connection.execute((HERE / "schema.sql").read_text(encoding="utf-8"))
                    print("migrations applied", flush=True)
            return
        except psycopg.Error as error:
            print(f"migrations failed: {error}", flush=True)
            time.sleep(1)


def write_key() -> None:
    """Write a data-protection key, in plain XML, where there is none yet."""
    KEYS.mkdir(exist_ok=True)
    if any(KEYS.glob("key-*.xml")):
        return
    name, now = uuid.uuid4(), datetime.now(UTC)
    (KEYS / f"key-{name}.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?>
<key id="{name}" version="1">
  <creationDate>{now.isoformat()}</creationDate>
  <activationDate>{now.isoformat()}</activationDate>
  <expirationDate>{(now + timedelta(days=90)).isoformat()}</expirationDate>
  <descriptor><descriptor>
    <encryption algorithm="AES_256_CBC" /><validation algorithm="HMACSHA256" />
    <masterKey><value>{os.urandom(64).hex()}</value></masterKey>
  </descriptor></descriptor>
</key>
"""
    )


def sync_for_ever() -> None:
    """Log in to every enabled account, again and again: the moment a staging stack must never reach."""
    time.sleep(float(os.environ.get("STANDIN_SYNC_DELAY_SECONDS", "5")))
    while True:
        try:
            with connect() as connection:
                accounts = connection.execute(
                    'SELECT "Id", "ImapServer", "ImapPort", "Username", "Password" FROM mail_archiver."MailAccounts"'
                    ' WHERE "IsEnabled" AND "ImapServer" IS NOT NULL'
                ).fetchall()
            for account, server, port, user, password in accounts:
                if log_in(server, port or 143, user or "", password or ""):
                    with connect() as connection:
                        connection.execute(
                            'UPDATE mail_archiver."MailAccounts" SET "LastSync" = now()::timestamp WHERE "Id" = %s',
                            [account],
                        )
        except psycopg.Error as error:
            print(f"sync failed: {error}", flush=True)
        time.sleep(float(os.environ.get("STANDIN_SYNC_INTERVAL_SECONDS", "3")))


def log_in(server: str, port: int, user: str, password: str) -> bool:
    """Log in to one mail server; tell whether it let us in."""

    def quoted(word: str) -> str:
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    try:
        with socket.create_connection((server, port), timeout=3) as connection:
            lines = connection.makefile("rb")
            lines.readline()
            connection.sendall(f"a1 LOGIN {quoted(user)} {quoted(password)}\r\n".encode())
            answer = lines.readline()
            connection.sendall(b"a2 LOGOUT\r\n")
            return answer.startswith(b"a1 OK")
    except OSError as error:
        print(f"cannot log in to {server}:{port}: {error}", flush=True)
        return False


class Writer(threading.Thread):
    """Inserts mails at a rate; each is one transaction of a mail, its attachment, and the attachment's content."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.per_second = float(os.environ.get("STANDIN_WRITE_PER_SECOND") or 0)
        self.written = 0

    def run(self) -> None:
        """Write for ever, reconnecting whenever the database was away."""
        while True:
            try:
                with connect(autocommit=True) as connection:
                    self._write(connection)
            except psycopg.Error as error:
                print(f"writing failed: {error}", flush=True)
                time.sleep(0.5)

    def _write(self, connection: psycopg.Connection) -> None:
        due = time.monotonic()
        while True:
            if self.per_second <= 0:
                time.sleep(0.1)
                due = time.monotonic()
                continue
            due = max(due + 1 / self.per_second, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            account = connection.execute('SELECT min("Id") FROM mail_archiver."MailAccounts"').fetchone()[0]
            if account is None:
                time.sleep(0.5)
                continue
            with connection.transaction():
                self._insert(connection, account)
            self.written += 1

    def _insert(self, connection: psycopg.Connection, account: int) -> None:
        name, content = uuid.uuid4(), os.urandom(4096)
        mail = connection.execute(
            'INSERT INTO mail_archiver."ArchivedEmails" ("MailAccountId", "MessageId", "Subject", "Body", "HtmlBody",'
            ' "From", "To", "SentDate", "ReceivedDate", "HasAttachments")'
            " VALUES (%s, %s, 'Just written', %s, '', 'writer@example.org', 'reader@example.org', now(), now(), true)"
            ' RETURNING "Id"',
            [account, f"<written-{name}@example.org>", f"The body of {name}\n"],
        ).fetchone()[0]
        stored = connection.execute(
            'INSERT INTO mail_archiver."AttachmentContents" ("Hash", "Content", "Size", "CreatedAt")'
            ' VALUES (%s, %s, %s, now()) RETURNING "Id"',
            [hashlib.sha256(content).hexdigest(), content, len(content)],
        ).fetchone()[0]
        connection.execute(
            'INSERT INTO mail_archiver."EmailAttachments" ("ArchivedEmailId", "FileName", "ContentType", "Size",'
            ' "AttachmentContentId") VALUES (%s, %s, %s, %s, %s)',
            [mail, f"written-{name}.bin", "application/octet-stream", len(content), stored],
        )


WRITER = Writer()


class Pool:
    """Keeps one connection for the pages, as the real application's pool does; one that broke is replaced at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None

    def use(self, work: Callable[[psycopg.Connection], dict[str, object]]) -> dict[str, object]:
        """Answer from the database, over the kept connection or over a new one."""
        with self._lock:
            if self._connection is not None:
                try:
                    return work(self._connection)
                except psycopg.OperationalError:
                    self._connection.close()
            self._connection = connect(autocommit=True)
            return work(self._connection)


POOL = Pool()


def page(connection: psycopg.Connection, path: str) -> dict[str, object]:
    """Read what every page needs."""
    connection.execute('SELECT "MigrationId" FROM public."__EFMigrationsHistory" ORDER BY 1 DESC LIMIT 1')
    return {"page": path}


def stats(connection: psycopg.Connection) -> dict[str, object]:
    """Count what there is."""
    tables = {"emails": "ArchivedEmails", "accounts": "MailAccounts", "attachments": "EmailAttachments"}
    return {
        name: connection.execute(f'SELECT count(*) FROM mail_archiver."{table}"').fetchone()[0]
        for name, table in tables.items()
    }


class Handler(BaseHTTPRequestHandler):
    """The few pages that a probe asks for."""

    def do_GET(self) -> None:
        """Answer 200 only where the database answered this very request."""
        path = urlsplit(self.path).path
        if path == "/standin":
            self._answer(200, {"per_second": WRITER.per_second, "written": WRITER.written})
            return
        if path not in ("/", "/Auth/Login", "/api/v1/stats"):
            self._answer(404, {"error": "no such page"})
            return
        try:
            found = POOL.use(stats if path == "/api/v1/stats" else lambda connection: page(connection, path))
        except psycopg.Error as error:
            self._answer(503, {"error": str(error).splitlines()[0]})
            return
        self._answer(200, found)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Change the rate of writing."""
        asked = urlsplit(self.path)
        if asked.path != "/standin/writing":
            self._answer(404, {"error": "no such page"})
            return
        WRITER.per_second = float(parse_qs(asked.query)["per_second"][0])
        self._answer(200, {"per_second": WRITER.per_second, "written": WRITER.written})

    def log_message(self, *_: object) -> None:
        """Keep quiet: probes ask many times a second."""

    def _answer(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def main() -> None:
    """Serve until SIGTERM, which ends everything at once: nothing here needs a farewell."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    write_key()

    def work() -> None:
        migrate()
        WRITER.start()
        sync_for_ever()

    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", 5000), Handler).serve_forever()


if __name__ == "__main__":
    main()
