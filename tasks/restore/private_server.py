"""A server of our own on a copy of a data directory: for proving it before it takes the current one's place."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tasks.adapters.archive.reader import Archive
from tasks.adapters.engine import containers
from tasks.adapters.engine.labels import COPY_LABEL
from tasks.adapters.host.files import make_directory, remove_tree, sync_file_system
from tasks.core.errors import ArchiveDamaged, BackupError
from tasks.core.stack.installation import Installation, Mount
from tasks.core.stack.server_settings import settings_for_a_data_directory
from tasks.recovery.helper_containers import helper_container
from tasks.restore.directory_beside import Copy, sockets_of
from tasks.run.installations import wait_for_login

START_SECONDS = 600.0
SOCKET_DIRECTORY = "/var/run/postgresql"
STOP_SECONDS = 120


@contextmanager
def private_server(installation: Installation, archive: Archive, copy: Copy) -> Iterator[Installation]:
    """Start PostgreSQL on the copy, in a container without any network, and give the installation as it looks with that server.

    It has the settings of the backup's server that a data directory cannot do without, since those may have stood on its command line.

    It recovers from the WAL where the copy was taken online. Stopped cleanly, and on the disk, when the block ends.
    Raise ArchiveDamaged where it does not start.
    """
    sockets = sockets_of(copy.label)
    make_directory(sockets)
    sockets.chmod(0o777)  # PostgreSQL's user makes its socket there; the directory above is ours alone
    try:
        with helper_container(
            installation,
            settings_for_a_data_directory(archive.manifest.database.server_settings if archive.manifest else {}),
            mounts=[
                Mount("bind", str(copy.data), installation.pgdata, copy.data),
                Mount("bind", str(sockets), SOCKET_DIRECTORY, sockets),
            ],
            environment={"PGDATA": installation.pgdata, "POSTGRES_PASSWORD": secrets.token_urlsafe(16)},
            labels={COPY_LABEL: copy.label},
        ) as helper:
            containers.start_container(helper)
            view = replace(
                installation,
                postgres=replace(
                    installation.postgres,
                    container_id=helper,
                    container_name="the private server",
                    state="running",
                    addresses=(str(sockets),),
                ),
            )
            _wait_for(view)
            yield view
            containers.stop_container(helper, timeout_seconds=STOP_SECONDS)
            sync_copy(copy.data)
    finally:
        remove_tree(sockets.parent)


def _wait_for(view: Installation) -> None:
    """Return once the private server takes logins; raise ArchiveDamaged, with the end of its log, where it gives up."""
    try:
        wait_for_login(lambda: view, timeout_seconds=START_SECONDS, database="postgres")
    except BackupError as error:
        raise ArchiveDamaged(f"PostgreSQL does not start on the restored data: {error.message}") from error


def sync_copy(directory: Path) -> None:
    """Bring all of a copy to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file_system(descriptor)
    finally:
        os.close(descriptor)
