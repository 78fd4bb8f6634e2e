"""A new data directory beside the current one: made and filled under the new image, on a private server, and proven there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.engine import containers, programs
from tasks.adapters.engine.labels import COPY_LABEL
from tasks.adapters.host.files import make_directory, make_mounted_directory, remove_tree
from tasks.adapters.postgres.databases import set_comment
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation, Mount
from tasks.core.stack.server_settings import staging_settings
from tasks.core.stack.upgrade import catalogue_differences, settings_to_carry
from tasks.recovery.helper_containers import helper_container
from tasks.restore.database_beside import Replacement
from tasks.restore.database_load import load_replacement
from tasks.restore.database_proof import apply_attributes, prove_replacement
from tasks.restore.directory_beside import Copy, sockets_of
from tasks.restore.expected import expected_content
from tasks.restore.private_server import SOCKET_DIRECTORY, START_SECONDS, STOP_SECONDS, sync_copy
from tasks.run.installations import LOG_LINES, wait_for_login
from tasks.step import step
from tasks.upgrade.carry import carry_settings, give_superuser_its_password
from tasks.upgrade.old_server import look_at_cluster

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Before:
    """What the old server was like, for the new one to be compared with."""

    objects: Mapping[str, int]
    settings: Mapping[str, str]


def look_before(stack: Installation) -> Before:
    """Look at the old server while it runs."""
    return Before(*look_at_cluster(stack))


@contextmanager
def new_server(stack: Installation, archive: CheckedArchive, copy: Copy) -> Iterator[Installation]:
    """Let the new image make a cluster in the copy's directory, and give the installation as it looks with that server."""
    make_mounted_directory(copy.data)
    with _started(stack, archive, copy) as view:
        _wait_until_made(view)
        yield view


@step(name="start again under new image", retries=0)
def require_start(stack: Installation, archive: CheckedArchive, copy: Copy) -> None:
    """See the new server start with all that was carried over; raise Refused, with the end of its log, where it does not."""
    deadline = time.monotonic() + START_SECONDS
    with _started(stack, archive, copy) as view:
        while True:
            try:
                programs.run_program(view.postgres.container_id, ["pg_isready", "--host", SOCKET_DIRECTORY])
                return
            except BackupError as error:
                found = containers.container(view.postgres.container_id)
                if found is None or found.state != "running" or time.monotonic() > deadline:
                    log = containers.logs(view.postgres.container_id, LOG_LINES).strip()
                    raise Refused(
                        f"{stack.postgres.image} does not start with the settings and the access rules of the old server: {log}",
                        hint="nothing was exchanged; mend postgresql.conf or pg_hba.conf, and start the upgrade again",
                    ) from error
            time.sleep(0.1)


@contextmanager
def _started(stack: Installation, archive: CheckedArchive, copy: Copy) -> Iterator[Installation]:
    """Start the new image on the copy, in a container without any network; stopped cleanly, and on the disk, when the block ends."""
    sockets = sockets_of(copy.label)
    make_directory(sockets)
    sockets.chmod(0o777)  # PostgreSQL's user makes its socket there; the directory above is ours alone
    settings = archive.manifest.database.server_settings if archive.manifest else {}
    database = stack.database
    environment = {
        "PGDATA": stack.pgdata, "POSTGRES_USER": database.superuser, "POSTGRES_DB": MAINTENANCE_DATABASE,
        "POSTGRES_PASSWORD": database.superuser_password or "unused",
        "POSTGRES_INITDB_ARGS": stack.postgres.environment.get("POSTGRES_INITDB_ARGS", ""),
    }  # fmt: skip
    try:
        with helper_container(
            stack,
            staging_settings(settings),
            mounts=[
                Mount("bind", str(copy.data), stack.data_mount.target, copy.data),
                Mount("bind", str(sockets), SOCKET_DIRECTORY, sockets),
            ],
            environment=environment,
            labels={COPY_LABEL: copy.label},
        ) as helper:
            containers.start_container(helper)
            service = replace(
                stack.postgres, container_id=helper, container_name="the private server", state="running", addresses=(str(sockets),)
            )  # fmt: skip
            yield replace(stack, postgres=service)
            containers.stop_container(helper, timeout_seconds=STOP_SECONDS)
            sync_copy(copy.data)
    finally:
        remove_tree(sockets.parent)


def _wait_until_made(view: Installation) -> None:
    """Return once the server takes logins that is to stay: the one that makes the cluster listens nowhere but on the socket."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        wait_for_login(
            lambda: view, timeout_seconds=max(1.0, deadline - time.monotonic()), database=MAINTENANCE_DATABASE
        )
        try:
            with server_of(view) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
                if opened.value("SHOW listen_addresses"):
                    return
        except BackupError as error:
            if not error.transient:
                raise
        if time.monotonic() > deadline:
            raise BackupError(f"the new image made no cluster within {START_SECONDS:g} s", hint="see its log")
        time.sleep(0.1)


@step(name="load under new image", retries=0)
def load_and_prove(view: Installation, archive: CheckedArchive, before: Before, limits: DumpLimits) -> tuple[str, ...]:
    """Load the dump into the new cluster, with its roles and attributes, and prove it equal; return what is to be told.

    Raise Refused, naming them, where there are differences.
    """
    name = view.database.name
    new = Replacement(name, name, "", None, None)
    expected = expected_content(view, archive)
    if expected.census is None:
        raise Refused(f"{archive.name} has no census to be compared with: {expected.note}", hint="see the report")
    loaded = load_replacement(view, archive, new, limits)
    give_superuser_its_password(view, archive)
    wrong = prove_replacement(view, loaded, new, expected, limits)
    refused = apply_attributes(view, archive, new)
    assert archive.manifest is not None
    with server_of(view) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
        set_comment(opened, name, archive.manifest.database.comment)
    objects, settings = look_at_cluster(view)
    wrong += catalogue_differences(before.objects, objects)
    told = carry_settings(view, settings_to_carry(before.settings, settings))
    if wrong:
        raise Refused(
            f"under {view.postgres.image} the data is not what it was: {'; '.join(wrong)}",
            hint="nothing was exchanged; the old data is in place",
        )
    return (*loaded.notes, *refused, *told)
