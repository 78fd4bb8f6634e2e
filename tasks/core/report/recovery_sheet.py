"""What the recovery sheet says: the commands that bring the mail back with age, tar and PostgreSQL's own programs alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.archive.layout import DATA_DIRECTORY, DUMP_KINDS, KEYS_DIRECTORY, MANIFEST_NAME, OUTSIDE, ROLES_MEMBER
from tasks.core.archive.manifest import DatabaseFacts, Manifest
from tasks.core.archive.names import RECORD_EXTENSION, SEALED_EXTENSION, extension_of
from tasks.core.copies.parts import PART
from tasks.core.quoting import quoted, quoted_literal

KEY_FILE = "recovery-key.txt"
NEUTRALISE = 'UPDATE mail_archiver."MailAccounts" SET "IsEnabled" = false'


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what is done, in words, and the lines to type."""

    title: str
    words: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SheetFacts:
    """What a sheet is about; `manifest` is that of the newest backup, which stands for those to come.

    `copies` are the places with copies, as rclone calls them (`NAME:path`, or a directory).
    """

    manifest: Manifest
    directory: Path
    repository: Path
    signing_public: str
    signing_file: Path
    copies: tuple[str, ...] = ()

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the backups are encrypted."""
        return self.manifest.encryption is not None

    @property
    def archive(self) -> str:
        """Name the newest backup's file."""
        return self.manifest.name + extension_of(self.manifest.format, sealed=self.is_encrypted)


def recovery_steps(facts: SheetFacts) -> tuple[Step, ...]:
    """Give the steps in their order; typed one after another in one shell they bring everything back."""
    manifest = facts.manifest
    plain = extension_of(manifest.format, sealed=False)
    file = f'"$NAME{plain}{SEALED_EXTENSION if facts.is_encrypted else ""}"'
    steps = [
        Step(
            "Name the backup",
            f"In an empty directory with room for the backup three times and more, as root. Copy the newest archive and its record ({RECORD_EXTENSION}) there;"
            " its name is NAME. Names carry date and time (UTC); this was the newest one when the sheet was written.",
            (f"NAME={manifest.name}", *([f"KEY={KEY_FILE}"] if facts.is_encrypted else [])),
        ),
        Step(
            "Put its parts together",
            f"A large archive lies at another place in parts ({PART}0001 and so on): copy all of them. Where there are none, this does nothing.",
            (f"[ ! -e {file}{PART}0001 ] || cat {file}{PART}???? > {file}",),
        ),
        Step(
            "See that it is whole",
            "Both lines must show the same number of 64 letters and digits; otherwise take another copy.",
            (f"sha256sum {file}", f'grep -m 1 sha256 "$NAME{RECORD_EXTENSION}"'),
        ),
    ]
    if facts.is_encrypted:
        steps.append(
            Step(
                "Decrypt",
                f"Put the recovery key (AGE-SECRET-KEY-1...) into the file {KEY_FILE}, on a line of its own. The program age is in every"
                " distribution. A line with error means a wrong key or a damaged part: do not go on.",
                (
                    f"tar -xf {file}",
                    f'for part in "$NAME{plain}.age"/*.age; do age -d -i "$KEY" "$part" || break; done > "$NAME{plain}"',
                ),
            )
        )
    unpack = "-xzpf" if manifest.format == "guide" else "--zstd -xpf"
    steps.append(
        Step(
            "Unpack",
            "It becomes a directory of the backup's name. The program zstd must be installed."
            if manifest.format == "fast"
            else "It becomes a directory of the backup's name.",
            (f'tar --numeric-owner {unpack} "$NAME{plain}"',),
        )
    )
    dump = next((each.name for each in manifest.members if each.name in DUMP_KINDS), "")
    steps += _dump_steps(manifest.database, dump) if dump else _directory_steps(facts)
    return (*steps, _files_step(facts))


def _dump_steps(database: DatabaseFacts, dump: str) -> list[Step]:
    name = database.name
    load = (
        f'psql -q -v ON_ERROR_STOP=1 -d {shlex.quote(name)} -f "$NAME/{dump}"'
        if DUMP_KINDS[dump] == "sql"
        else f'pg_restore --exit-on-error --single-transaction -d {shlex.quote(name)} "$NAME/{dump}"'
    )
    return [
        Step(
            "Load the database",
            f"Into an empty PostgreSQL {database.server_major} or newer, with its client programs; the first line says where it is and who its superuser"
            f" is. That a role exists already is no problem. The archive was made by {database.server_version}.",
            (
                "export PGHOST=127.0.0.1 PGUSER=postgres",
                f'psql -q -d postgres -f "$NAME/{ROLES_MEMBER}"',
                *_typed("psql -q -d postgres", _create(database)),
                load,
            ),
        ),
        Step(
            "Switch the mail accounts off",
            "Otherwise the application synchronises at once, and deletes old mail on the servers. Switch each on again when you have looked at it.",
            (f"psql -q -d {shlex.quote(name)} -c {shlex.quote(NEUTRALISE)}",),
        ),
    ]


def _typed(program: str, sql: str) -> tuple[str, ...]:
    """Give SQL to a program as people best type it: as lines of its input; as a quoted word where it has lines of its own."""
    if "\n" in sql:
        return (f"{program} -c {shlex.quote(sql)}",)
    return (f"{program} <<'END'", f"{sql};", "END")


def _create(database: DatabaseFacts) -> str:
    words = [f"CREATE DATABASE {quoted(database.name)} TEMPLATE template0 OWNER {quoted(database.owner)}"]
    words.append(f"ENCODING {quoted_literal(database.encoding)}")
    if database.locale_provider == "libc":
        words.append(
            f"LC_COLLATE {quoted_literal(database.collation)} LC_CTYPE {quoted_literal(database.character_type)}"
        )
    return " ".join(words)


def _directory_steps(facts: SheetFacts) -> list[Step]:
    database = facts.manifest.database
    return [
        Step(
            "Put the data directory in place",
            f"It runs under PostgreSQL {database.server_major} of the same kind of image alone ({database.server_version}, {database.libc or 'libc unknown'}),"
            f" which must not run yet. Owners are kept when this is done as root.",
            (f"mkdir -p {_text(facts.directory)}", f'cp -a "$NAME/{DATA_DIRECTORY}" {_text(facts.directory)}/'),
        )
    ]


def _files_step(facts: SheetFacts) -> Step:
    kept = {*DUMP_KINDS, DATA_DIRECTORY, ROLES_MEMBER, MANIFEST_NAME, OUTSIDE}
    tops = sorted({each.name.split("/")[0] for each in facts.manifest.members} - kept)
    outside = any(each.name.startswith(f"{OUTSIDE}/") for each in facts.manifest.members)
    return Step(
        "Put keys and configuration back",
        f"The data-protection keys ({KEYS_DIRECTORY}) and the compose file belong into the stack's directory."
        + (f" What lies under {OUTSIDE}/ came from other directories." if outside else "")
        + " Then: docker compose up -d.",
        (
            f"mkdir -p {_text(facts.directory)}",
            *(f'cp -a "$NAME"/{shlex.quote(each)} {_text(facts.directory)}/' for each in tops),
        ),
    )


def program_lines(facts: SheetFacts) -> Sequence[str]:
    """Give the shorter way from an archive that is at hand, where this program is."""
    return (f"mailarchiver-backup restore ./{facts.archive} --into {_text(facts.directory)}{_proofs(facts)}",)


def from_copies_lines(facts: SheetFacts) -> Sequence[str]:
    """Give the shorter way from each place with copies: it chooses the newest backup there by itself."""
    found = []
    for place in facts.copies:
        config = "" if place.startswith("/") else " --rclone-config rclone.conf"
        words = f"{shlex.quote(place)} --into {_text(facts.directory)}{config}{_proofs(facts)}"
        found.append(f"mailarchiver-backup recover-from {words}")
    return found


def _proofs(facts: SheetFacts) -> str:
    key = f" --identity {KEY_FILE}" if facts.is_encrypted else ""
    return key + (f" --trusted-key {facts.signing_public}" if facts.signing_public else " --foreign")


def signing_key_lines(facts: SheetFacts) -> Sequence[str]:
    """Give what puts the signing key back, so that the former backups are known as the installation's own."""
    place = facts.signing_file
    return (f"install -d -m 700 {_text(place.parent)}", f"install -m 600 signing-key {_text(place)}")


def _text(path: Path) -> str:
    return shlex.quote(str(path))
