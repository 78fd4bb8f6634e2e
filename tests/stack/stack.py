"""A whole Mail Archiver stack for a test, with mail in it: made, looked into, and taken away without a trace.

python -m tests.stack.stack up DIR --megabytes 50
python -m tests.stack.stack down DIR
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tests.stack import engine
from tests.stack.compose_file import Layout, compose_text, dotenv_text
from tests.stack.images import POSTGRES, application_image, ensure_images
from tests.stack.seed import seed_database

APPLICATION_SERVICE = "mailarchive-app"
# Only a directory with this file is ever removed from the command line: it might be somebody's real installation.
MARK = ".made-by-tests.stack"
POSTGRES_SERVICE = "postgres"


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that was started. It keeps no connection: it may be stopped, restored or broken meanwhile."""

    directory: Path
    project: str
    app_url: str
    user: str = "mailuser"
    password: str = field(default="masterkey", repr=False)
    database: str = "MailArchiver"

    def compose(
        self, *arguments: str, timeout_seconds: float = 120, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `docker compose` in the stack's directory, as its operator would; raise where it fails."""
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=self.directory,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"docker compose {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done

    def container(self, service: str) -> Any:
        """Give the Docker SDK's container of a service, as it is now; raise LookupError where there is none."""
        found = engine.engine().containers.list(
            all=True,
            ignore_removed=True,
            filters={"label": [f"{engine.PROJECT_LABEL}={self.project}", f"com.docker.compose.service={service}"]},
        )
        if not found:
            raise LookupError(f"{self.project} has no container of {service}")
        return found[0]

    def states(self) -> dict[str, tuple[str, str, str]]:
        """Give each service's container: its id, its state, and when it was started (the same time: never restarted)."""
        found = engine.engine().containers.list(
            all=True, filters={"label": f"{engine.PROJECT_LABEL}={self.project}"}, ignore_removed=True
        )
        return {
            container.labels["com.docker.compose.service"]: (
                container.id,
                container.status,
                container.attrs["State"]["StartedAt"],
            )
            for container in found
        }

    def address(self, service: str = POSTGRES_SERVICE) -> str:
        """Give the IP address of a service's running container."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"]
        found = next((network["IPAddress"] for network in networks.values() if network["IPAddress"]), None)
        if not found:
            raise LookupError(f"{service} of {self.project} has no address: it does not run")
        return str(found)

    def dsn(self, database: str | None = None, **more: str) -> str:
        """Give a connection string for PostgreSQL at its container's own address, with the password."""
        words = {"user": self.user, "password": self.password, "connect_timeout": "3", **more}
        return make_conninfo(host=self.address(), dbname=database or self.database, **words)

    def psql(
        self, query: str, parameters: Sequence[object] | None = None, *, database: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement and commit; return its rows (none for statements without)."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def probe(self, path: str = "/Auth/Login") -> int | None:
        """Ask the application for a page: the status it answers, None where it does not answer at all."""
        try:
            with urllib.request.urlopen(self.app_url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def stats(self) -> dict[str, int]:
        """Give what the application counts: emails, accounts and attachments."""
        return dict(self._json("/api/v1/stats"))

    def set_writing(self, per_second: float) -> None:
        """Have the application insert so many mails a second from now on; 0 stops it. Lasts until its restart."""
        self._json(f"/standin/writing?per_second={per_second:g}", method="POST")

    def written(self) -> int:
        """Tell how many mails the application has committed since its start."""
        return int(self._json("/standin")["written"])

    def wait_postgres(self, seconds: float = 60) -> None:
        """Wait until a login over TCP works (the image's temporary first server answers on its socket only)."""
        wait_until(lambda: self.psql("SELECT 1"), seconds, "PostgreSQL does not answer")

    def wait_app(self, seconds: float = 60) -> None:
        """Wait until the application answers 200."""
        wait_until(lambda: self.probe() == 200, seconds, "the application does not answer 200")

    def destroy(self) -> None:
        """Remove containers, networks, volumes and the directory with all in it; what is gone already is fine."""
        engine.remove_project(self.project)
        engine.remove_directory(self.directory, image=POSTGRES)

    def _json(self, path: str, method: str = "GET") -> dict[str, Any]:
        with urllib.request.urlopen(urllib.request.Request(self.app_url + path, method=method), timeout=10) as answer:
            found = json.load(answer)
        assert isinstance(found, dict)
        return found


def create_stack(
    directory: Path,
    *,
    project: str | None = None,
    megabytes: float = 5,
    compose: str | None = None,
    postgres_image: str = POSTGRES,
    user: str = "mailuser",
    password: str = "masterkey",
    database: str = "MailArchiver",
    write_per_second: float = 0,
    imap: tuple[str, int] | None = None,
    sync_delay_seconds: float = 5,
    named_volumes: bool = False,
    password_in_dotenv: bool = False,
    data_target: str = "/var/lib/postgresql/data",
    seed_number: int = 1,
    large_attachment_megabytes: int = 0,
    extras: bool = True,
    application_environment: Mapping[str, str] | None = None,
    postgres_environment: Mapping[str, str] | None = None,
    postgres_command: Sequence[str] = (),
    health_interval: str = "1s",
    restart: str = "always",
    start_application: bool = True,
) -> Stack:
    """Write an upstream-like stack into `directory`, start it, and fill it with mail before its application starts.

    Returns when the application answers 200. `megabytes=0` seeds nothing (the application then makes its own schema).
    `compose` replaces the compose file's text; in it @PROJECT@, @PORT@ and @APPLICATION_IMAGE@ are filled in, and it must
    say the same user, password and database. `imap` is the enabled account's mail server (see `engine.host_address`).
    On failure nothing is left on the engine.
    """
    layout = Layout(
        project=project or engine.new_project(),
        port=free_port(),
        postgres_image=postgres_image,
        application_image=application_image(),
        user=user,
        password=password,
        database=database,
        data_target=data_target,
        named_volumes=named_volumes,
        password_in_dotenv=password_in_dotenv,
        health_interval=health_interval,
        restart=restart,
        application_environment={
            "STANDIN_SYNC_DELAY_SECONDS": f"{sync_delay_seconds:g}",
            "STANDIN_WRITE_PER_SECOND": f"{write_per_second:g}",
            **(application_environment or {}),
        },
        postgres_environment=postgres_environment or {},
        postgres_command=postgres_command,
    )
    stack = Stack(directory, layout.project, f"http://127.0.0.1:{layout.port}", user, password, database)
    _write_files(directory, layout, compose)
    try:
        stack.compose("up", "--detach", "--no-build", POSTGRES_SERVICE)
        stack.wait_postgres()
        if megabytes:
            seed_database(
                stack.dsn(),
                megabytes=megabytes,
                number=seed_number,
                large_attachment_megabytes=large_attachment_megabytes,
                imap=imap,
                extras=extras,
            )
        if start_application:
            stack.compose("up", "--detach", "--no-build")
            stack.wait_app()
    except BaseException as error:
        error.add_note(engine.last_words(stack.project))
        engine.remove_project(stack.project)
        raise
    return stack


def open_stack(directory: Path) -> Stack:
    """Read the stack of a directory from its compose file (one that `create_stack` wrote)."""
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"], cwd=directory, capture_output=True, timeout=60, check=True
    )
    config = json.loads(done.stdout)
    environment = config["services"][POSTGRES_SERVICE]["environment"]
    port = config["services"][APPLICATION_SERVICE]["ports"][0]["published"]
    # `config` prints a file that Compose can read again, so a literal dollar comes doubled.
    words = (environment[name].replace("$$", "$") for name in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"))
    return Stack(directory, config["name"], f"http://127.0.0.1:{port}", *words)


def content(stack: Stack, *, database: str | None = None) -> dict[str, str]:
    """Tell what the database holds, by plain SQL that owes nothing to the program under test.

    Per table its row count and a digest of its rows in any order; per sequence its state; per large object its digest;
    and the extensions. Two databases with the same content give equal values.
    """
    found: dict[str, str] = {}
    with psycopg.connect(stack.dsn(database), autocommit=True) as connection:
        connection.execute(
            "SET extra_float_digits = 3; SET bytea_output = hex; SET \"DateStyle\" = 'ISO, YMD'; SET TimeZone = 'UTC'"
        )
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            # One short digest a row, sorted: order on disk does not matter, and no row is held in memory whole.
            digest = f"SELECT count(*) || ' ' || coalesce(md5(string_agg(d, '' ORDER BY d)), '') FROM (SELECT md5(t::text) d FROM ONLY {table} t) x"
            found[table] = str(_only(connection.execute(digest.encode()).fetchone()))
        sequences = connection.execute(
            "SELECT format('%I.%I', schemaname, sequencename), start_value, min_value, max_value, increment_by, cycle"
            " FROM pg_sequences ORDER BY 1"
        ).fetchall()
        for name, *facts in sequences:
            state = connection.execute(f"SELECT last_value, is_called FROM {name}".encode()).fetchone()
            found[f"sequence {name}"] = str((*facts, state))
        for oid, digest in connection.execute("SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1"):
            found[f"large object {oid}"] = str(digest)
        for name, version in connection.execute("SELECT extname, extversion FROM pg_extension ORDER BY 1"):
            found[f"extension {name}"] = str(version)
    return found


def writer_counts(stack: Stack, *, database: str | None = None) -> tuple[int, int, int]:
    """Count the writer's mails, attachments and contents: in any consistent moment all three are equal."""
    rows = stack.psql(
        """SELECT (SELECT count(*) FROM mail_archiver."ArchivedEmails" WHERE "MessageId" LIKE '<written-%'),
                  (SELECT count(*) FROM mail_archiver."EmailAttachments" WHERE "FileName" LIKE 'written-%'),
                  (SELECT count(*) FROM mail_archiver."EmailAttachments" attachment
                   JOIN mail_archiver."AttachmentContents" content ON content."Id" = attachment."AttachmentContentId"
                   JOIN mail_archiver."ArchivedEmails" mail ON mail."Id" = attachment."ArchivedEmailId"
                   WHERE attachment."FileName" LIKE 'written-%' AND mail."MessageId" LIKE '<written-%')""",
        database=database,
    )
    mails, attachments, contents = rows[0]
    return mails, attachments, contents


def wrong_hashes(stack: Stack, *, database: str | None = None) -> int:
    """Count the attachment contents whose SHA-256 is not the one they are stored under."""
    query = """SELECT count(*) FROM mail_archiver."AttachmentContents"
               WHERE "Hash" <> encode(sha256("Content"), 'hex') OR "Size" <> length("Content")"""
    return int(stack.psql(query, database=database)[0][0])


def wait_until(done: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Ask again and again until the answer is true; raise AssertionError with the last error after so many seconds.

    Most questions go to a database or to Docker, and cost them as much as what is waited for: the longer, the less often.
    """
    deadline = time.monotonic() + seconds
    pause_seconds = 0.05
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except (psycopg.Error, OSError, LookupError) as error:
            last = error
        time.sleep(pause_seconds)
        pause_seconds = min(0.25, pause_seconds * 1.1)
    raise AssertionError(f"{otherwise} after {seconds:g} s" + (f": {last}" if last else ""))


def free_port() -> int:
    """Find a port of 127.0.0.1 that nothing listens on, below those that the kernel hands out by itself."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _write_files(directory: Path, layout: Layout, compose: str | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not layout.named_volumes:
        (directory / "postgres-data").mkdir()
        (directory / "data-protection-keys").mkdir()
    text = compose_text(layout)
    if compose is not None:
        text = compose.replace("@PROJECT@", layout.project).replace("@PORT@", str(layout.port))
        text = text.replace("@APPLICATION_IMAGE@", layout.application_image)
    (directory / "docker-compose.yml").write_text(text, encoding="utf-8")
    if layout.password_in_dotenv:
        (directory / ".env").write_text(dotenv_text(layout), encoding="utf-8")


def _only(row: tuple[Any, ...] | None) -> Any:
    assert row is not None
    return row[0]


def _up(options: argparse.Namespace) -> None:
    ensure_images()
    if (options.directory / MARK).exists():
        stack = open_stack(options.directory)
        stack.compose("up", "--detach")
        stack.wait_app()
    elif options.directory.exists() and any(options.directory.iterdir()):
        raise SystemExit(f"{options.directory} is not empty and was not made by this program: give another directory")
    else:
        stack = create_stack(
            options.directory,
            project=options.project,
            megabytes=options.megabytes,
            write_per_second=options.write_per_second,
            health_interval="10s",
        )
        (options.directory / MARK).touch()
    print(f"Mail Archiver (a stand-in) of project {stack.project} answers at {stack.app_url}: {stack.stats()}")


def _down(options: argparse.Namespace) -> None:
    if not options.directory.exists():
        print(f"nothing to take down: there is no {options.directory}")
        return
    if not (options.directory / MARK).exists():
        raise SystemExit(f"{options.directory} was not made by this program, so it is left alone")
    stack = open_stack(options.directory)
    stack.destroy()
    print(f"removed project {stack.project} and {options.directory}")


def main() -> None:
    """Put up a stack with mail in it, or take one down with all its data."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    actions = parser.add_subparsers(required=True)
    up = actions.add_parser("up", help="make and start a stack; start it again where it is there")
    up.add_argument("directory", type=lambda text: Path(text).absolute())
    up.add_argument("--project", default=None)
    up.add_argument("--megabytes", type=float, default=50)
    up.add_argument("--write-per-second", type=float, default=0)
    up.set_defaults(act=_up)
    down = actions.add_parser("down", help="remove the stack, its data and its directory")
    down.add_argument("directory", type=lambda text: Path(text).absolute())
    down.set_defaults(act=_down)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
