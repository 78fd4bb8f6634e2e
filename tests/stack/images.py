"""The images of the test stack: real ones where a registry answers, stand-ins made from Debian packages where none does.

A stand-in carries a label and a digest of what it was made from, so that it is made once, made again when its recipe
changed, and never taken for (nor put in the place of) a real image.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
POSTGRES = "postgres:17-alpine"
OLDER_POSTGRES = "postgres:15-alpine"
APPLICATION = "s1t5/mailarchiver:latest"
STAND_IN_APPLICATION = "mailarchiver-backup-stand-in/mailarchiver:latest"
STAND_IN_LABEL = "mailarchiver-backup.stand-in"
INPUTS_LABEL = "mailarchiver-backup.stand-in.inputs"

# Versions of the application for tests of its upgrade: tag, migrations by their ids, and more words of its command. The first
# never looks at mailboxes, the others do at once.
VERSIONS = "mailarchiver-backup-stand-in/versions"
_NEXT = {
    "20260929120000_MigrateV2609_1_Notes": 'ALTER TABLE mail_archiver."ArchivedEmails" ADD COLUMN "Note" text;'
    ' UPDATE mail_archiver."ArchivedEmails" SET "Note" = "Subject"'
}
VERSIONS_MADE: Mapping[str, tuple[Mapping[str, str], str]] = {
    "2608.1": ({}, ""),
    "2609.1": (_NEXT, ""),
    "2609.2-fails": ({**_NEXT, "20260930120000_Fails": 'UPDATE mail_archiver."NoSuchTable" SET "A" = 1'}, ""),
    "2609.2-never-listens": (_NEXT, "--never-listens"),
    "2609.2-loses-mail": (
        {**_NEXT, "20260930120000_Loses": 'DELETE FROM mail_archiver."ArchivedEmails" WHERE "Id" % 7 = 0'},
        "",
    ),
    # Staging's accounts are disabled, production's are not: half of it has run there when it fails.
    "2609.2-fails-in-production": (
        {
            **_NEXT,
            "20260930120000_Fails": 'DO $$ BEGIN IF EXISTS (SELECT FROM mail_archiver."MailAccounts" WHERE "IsEnabled")'
            " THEN RAISE 'an account is enabled'; END IF; END $$",
        },
        "",
    ),
}

WITH_PGBACKREST = "mailarchiver-backup-stand-in/postgres-with-pgbackrest:17"

# Suite, major version, packages. Python and psycopg serve the application's stand-in, which shares trixie's base.
SUITES = {"17": "trixie", "15": "bookworm", "17 with pgbackrest": "trixie"}
PACKAGES = {
    "17": "postgresql-17,python3-minimal,python3-psycopg,locales,procps,zstd",
    "15": "postgresql-15,locales,procps,zstd",
    "17 with pgbackrest": "postgresql-17,pgbackrest,locales,procps,zstd",
}


def ensure_images(*, older_postgres: bool = False) -> None:
    """Make the stack's images available under the names that its compose file uses; quick when they are.

    Safe to call from several processes at once. `older_postgres` also makes PostgreSQL 15's, for mismatches.
    The application is always the stand-in: tests need its controls, and seeded data has only part of the real schema.
    """
    with _one_at_a_time():
        client = docker.from_env(timeout=600)
        try:
            _ensure_postgres(client, POSTGRES, "17")
            if older_postgres:
                _ensure_postgres(client, OLDER_POSTGRES, "15")
            _ensure_application(client)
        finally:
            client.close()


def ensure_pgbackrest_image() -> str:
    """Make PostgreSQL 17's stand-in with pgBackRest in it, which wants to live beside the server; give its name. For benchmarks."""
    with _one_at_a_time():
        client = docker.from_env(timeout=600)
        try:
            kind = "17 with pgbackrest"
            files = _files(HERE / "images" / "postgres")
            inputs = _digest({**files, "base": _base_inputs(kind).encode()})
            if _labels(client, WITH_PGBACKREST).get(INPUTS_LABEL) != inputs:
                _build(client, WITH_PGBACKREST, files, inputs, {"BASE": _ensure_base(client, kind), "MAJOR": "17"})
        finally:
            client.close()
    return WITH_PGBACKREST


def ensure_versions() -> None:
    """Make the versions of the application's stand-in that upgrades of it are tried with; quick when they are there."""
    with _one_at_a_time():
        client = docker.from_env(timeout=600)
        try:
            for tag, (migrations, words) in VERSIONS_MADE.items():
                command = ", ".join(f'"{word}"' for word in ["python3", "/app/migrating.py", *words.split()])
                recipe = (
                    f"FROM {STAND_IN_APPLICATION}\nCOPY migrating.py /app/\nCOPY migrations /app/migrations\n"
                    f"ENV STANDIN_SYNC_DELAY_SECONDS={0 if migrations else 100_000}\n"
                    f"LABEL org.opencontainers.image.version={tag}\nENTRYPOINT [{command}]\n"
                )
                files = {
                    **_files(HERE / "images" / "versions"),
                    "Dockerfile": recipe.encode(),
                    "migrations/none": b"",
                    **{f"migrations/{name}.sql": sql.encode() for name, sql in migrations.items()},
                }
                base = _labels(client, STAND_IN_APPLICATION)[INPUTS_LABEL]
                inputs = _digest({**files, "base": base.encode()})
                if _labels(client, f"{VERSIONS}:{tag}").get(INPUTS_LABEL) != inputs:
                    _build(client, f"{VERSIONS}:{tag}", files, inputs, {})
        finally:
            client.close()


def is_stand_in(name: str) -> bool:
    """Tell whether the image of this name was made here."""
    client = docker.from_env()
    try:
        return STAND_IN_LABEL in _labels(client, name)
    finally:
        client.close()


def application_image() -> str:
    """Name the image of the stand-in application: upstream's own name, unless the engine has the real one under it."""
    return APPLICATION if is_stand_in(APPLICATION) else STAND_IN_APPLICATION


def _ensure_postgres(client: Any, name: str, major: str) -> None:
    files = _files(HERE / "images" / "postgres")
    inputs = _digest({**files, "base": _base_inputs(major).encode()})
    labels = _labels(client, name)
    if _exists(client, name) and (STAND_IN_LABEL not in labels or labels.get(INPUTS_LABEL) == inputs):
        return
    if STAND_IN_LABEL not in labels and _registry_has(name):
        logger.info("pulling %s", name)
        client.images.pull(name)
        return
    base = _ensure_base(client, major)
    _build(client, name, files, inputs, {"BASE": base, "MAJOR": major})


def _ensure_application(client: Any) -> None:
    files = {
        **_files(HERE / "images" / "app"),
        "imap.py": (HERE / "imap.py").read_bytes(),
        "schema.sql": (HERE / "schema.sql").read_bytes(),
    }
    inputs = _digest({**files, "base": _base_inputs("17").encode()})
    if _labels(client, STAND_IN_APPLICATION).get(INPUTS_LABEL) != inputs:
        _build(client, STAND_IN_APPLICATION, files, inputs, {"BASE": _ensure_base(client, "17")})
    if not _exists(client, APPLICATION) or STAND_IN_LABEL in _labels(client, APPLICATION):
        repository, _, tag = APPLICATION.partition(":")
        client.images.get(STAND_IN_APPLICATION).tag(repository, tag)


def _ensure_base(client: Any, major: str) -> str:
    suite, packages = SUITES[major], PACKAGES[major]
    name = f"mailarchiver-backup-stand-in/base:{suite}-{_base_inputs(major)[:12]}"
    if _exists(client, name):
        return name
    logger.info("making %s from Debian packages (about 45 s)", name)
    if shutil.which("debootstrap") is None and not Path("/usr/sbin/debootstrap").exists():
        recipe = (
            f"FROM debian:{suite}-slim\n"
            f"RUN apt-get update && apt-get install -y --no-install-recommends {packages.replace(',', ' ')}\n"
        )
        _build(client, name, {"Dockerfile": recipe.encode()}, _base_inputs(major), {})
        return name
    command = [str(HERE / "images" / "base.sh"), suite, name, packages]
    subprocess.run(command if os.geteuid() == 0 else ["sudo", *command], check=True, timeout=900)
    return name


def _base_inputs(major: str) -> str:
    recipe = (HERE / "images" / "base.sh").read_bytes()
    return _digest({"recipe": recipe, "what": f"{SUITES[major]} {PACKAGES[major]}".encode()})


def _build(client: Any, name: str, files: Mapping[str, bytes], inputs: str, arguments: dict[str, str]) -> None:
    logger.info("building %s", name)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    client.images.build(
        fileobj=context,
        custom_context=True,
        tag=name,
        buildargs=arguments,
        labels={STAND_IN_LABEL: "true", INPUTS_LABEL: inputs},
        rm=True,
        forcerm=True,
    )
    # What this build replaced has lost its name; only images made here carry the label.
    client.images.prune(filters={"dangling": True, "label": STAND_IN_LABEL})


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _exists(client: Any, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _labels(client: Any, name: str) -> dict[str, str]:
    try:
        return dict(client.images.get(name).labels or {})
    except docker.errors.ImageNotFound:
        return {}


@cache
def _registry_has(name: str) -> bool:
    # The engine asks, so that its own mirrors and proxies count; a registry that needs long is as good as none.
    client = docker.from_env(timeout=10)
    try:
        client.api.inspect_distribution(name)
    except (docker.errors.APIError, requests.exceptions.RequestException):
        return False
    finally:
        client.close()
    return True


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / f"mailarchiver-backup-images-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ensure_images()
