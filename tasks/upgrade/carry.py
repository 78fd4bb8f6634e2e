"""Carry over what no dump holds: the superuser's own password, settings, and who may log in how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from tasks.adapters.archive.reader import CheckedArchive, read_small_member
from tasks.adapters.host.files import write_atomically
from tasks.adapters.host.outside_files import DATA_FILE, read_outside
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.archive.layout import ROLES_MEMBER
from tasks.core.byte_text import bytes_of
from tasks.core.dump.events import Statement
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import BackupError
from tasks.core.quoting import quoted
from tasks.core.stack.installation import Installation
from tasks.core.stack.upgrade import set_for_the_server
from tasks.restore.directory_beside import Copy
from tasks.restore.roles import ROLES_LIMIT_BYTES

# Who may log in how, under which names, and by which certificates: the operator's own, in every version of the same words.
ACCESS_FILES = ("pg_hba.conf", "pg_ident.conf")
CERTIFICATE_SETTINGS = {
    "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "root.crt", "ssl_crl_file": "root.crl", "ssl_dh_params_file": "",
}  # fmt: skip


def carry_settings(view: Installation, wanted: Mapping[str, str]) -> list[str]:
    """Give the new server what the old one's own files said, from its next start on; return in words what it does not know."""
    refused = []
    with server_of(view) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
        for name, value in wanted.items():
            try:
                opened.execute(set_for_the_server(name, value))
            except BackupError as error:
                if error.transient:
                    raise
                refused.append(f"the setting {name} = {value} was not taken over: {error.message}")
    return refused


def give_superuser_its_password(view: Installation, archive: CheckedArchive) -> None:
    """Let the role that the image made be as the dump says: its password may be another than the compose file's by now."""
    user = bytes_of(view.database.superuser), bytes_of(quoted(view.database.superuser))
    words = read_small_member(archive, ROLES_MEMBER, max_bytes=ROLES_LIMIT_BYTES)
    with server_of(view) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
        for event in read_sql_dump(iter((words,))):
            if isinstance(event, Statement) and any(event.sql.startswith(b"ALTER ROLE %s " % each) for each in user):
                opened.run(event.sql)


def keep_access(stack: Installation, view: Installation, copy: Copy, settings: Mapping[str, str]) -> None:
    """Copy who may log in how from the old data directory into the new one, with the new one's owner; certificates too."""
    old, new = stack.data_directory, copy.data / view_inside(view)
    if old is None:
        return
    certificates = (settings.get(name, usual) for name, usual in CERTIFICATE_SETTINGS.items())
    owner = (new / "PG_VERSION").stat()
    for name in (*ACCESS_FILES, *(each for each in certificates if each and "/" not in each)):
        with suppress(FileNotFoundError):
            content, _ = read_outside(old / name, DATA_FILE)
            write_atomically(new / name, content, like=owner)


def view_inside(view: Installation) -> str:
    """Give the data directory's place below the mount, "." where it is the mount itself."""
    return os.path.relpath(view.pgdata, view.data_mount.target)
