"""Load an archive's dump into the replacement, by our loader or by PostgreSQL's own programs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from tasks.adapters.archive.extraction import extract
from tasks.adapters.archive.reader import (
    Archive,
    CheckedArchive,
    check_while,
    open_member,
)
from tasks.adapters.host.files import make_directory, remove_tree
from tasks.adapters.host.streams import read_ahead
from tasks.adapters.postgres import load, load_programs, loading_role
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, MAINTENANCE_DATABASE, session
from tasks.core.archive.layout import KEYS_DIRECTORY
from tasks.core.archive.manifest import TableCensus
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.dump.left_out import LeftOut
from tasks.core.dump.load_words import is_of_another_server, is_refused_right, needs_rights, unloadable
from tasks.core.errors import ArchiveDamaged, BackupError, ProgramFailed, UsageError
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation
from tasks.core.stack.server_settings import with_known_tablespaces
from tasks.progress import progress
from tasks.restore.database_beside import Guest, Replacement, make_database
from tasks.restore.expected import dump_events, dump_member
from tasks.step import step

logger = logging.getLogger(__name__)

STAGING_FOREIGN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Loaded:
    """A dump that was loaded while its archive was checked: the archive, and the census of the rows as the database has them.

    `left_out` is what was left out on purpose, `notes` say in words what was out of the ordinary.
    """

    archive: CheckedArchive
    rows: dict[str, TableCensus]
    left_out: LeftOut
    notes: tuple[str, ...] = ()
    guest: Guest | None = None


@step(name="load dump", run_name="load {archive.name}", retries=1)
def load_replacement(
    installation: Installation,
    archive: Archive,
    new: Replacement,
    limits: DumpLimits,
    *,
    without: Sequence[str] = (),
    is_staging: bool = False,
) -> Loaded:
    """Load the archive's dump and keys into the replacement while the archive is checked.

    Where our loader refuses or fails, PostgreSQL's own programs are tried with the same bytes. They run whatever the dump says, psql's
    commands too, so that is done only with the installation's own archives. Nor is it done where something is to be left out: they cannot.

    A dump that is not known as the installation's own (`new.role`) is loaded by a role that owns the new database and
    nothing else, and by our loader alone; `hand_over_replacement` follows.

    Safe to repeat: a retry drops what there is and starts over. Raise ArchiveDamaged, with the replacement worth
    nothing, where a byte is not as it was sealed; ProgramFailed, saying that the archive is sound, where PostgreSQL
    itself cannot load what it dumped; UsageError for a name of something to be left out that nothing has.
    """
    if is_staging:  # which has no way to any other server
        limits = replace(limits, foreign_seconds=min(limits.foreign_seconds, STAGING_FOREIGN_SECONDS))
    member = dump_member(archive)
    rows: dict[str, TableCensus] = {}
    left_out = LeftOut(without)
    failures: list[BackupError] = []
    notes: tuple[str, ...] = ()
    with server_of(installation) as server:
        places, guest = make_database(installation, server, archive, new, make_roles=is_staging or not new.role)
        loader = guest.role.login(server) if guest else server
        with progress("load", expected_bytes=_size_of(archive, member)) as tell:
            count = _Counter(tell)

            def take(_: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
                if name == member:
                    # Closed here, whatever happens: nobody else must be reading when the archive is closed.
                    with closing(read_ahead(pieces)) as chunks:
                        try:
                            found = left_out.filter(dump_events(installation, archive, chunks))
                            events = with_known_tablespaces(guest.deferred.filter(found) if guest else found, places)
                            loaded = load.load_dump(loader, new.database, events, limits=limits, on_bytes=count.add)
                        except BackupError as error:
                            if error.transient:
                                raise
                            failures.append(error)
                        else:
                            rows.update(loaded)
                        deque(chunks, maxlen=0)  # the archive's check wants every byte

            checked = check_while(archive, take)
        if guest is not None:
            with session(server, MAINTENANCE_DATABASE, purpose="restore") as opened:
                loading_role.close_role(opened, guest.role, new.database)
        if failures and guest is not None and is_refused_right(failures[0]):
            raise needs_rights(archive.name, failures[0])
        if failures:
            notes = _load_by_program(
                installation, server, checked, new, limits, failures[0],
                may_try=(is_staging or archive.manifest is not None) and not without and not new.role,
                is_staging=is_staging,
            )  # fmt: skip
        elif left_out.missing:
            raise UsageError(
                f"nothing in the dump of {archive.name} is called {', '.join(left_out.missing)}",
                hint="give the name as the failed restore or verification told it, for instance 'TABLE DATA public.a'",
            )
        with session(server, new.database, purpose="analyze", answer_seconds=LONG_ANSWER_SECONDS) as opened:
            # Autovacuum does it within a minute, beside the running application; before the swap it would cost as much as the load of the
            # rows, for statistics of the full-text index alone.
            if opened.value("SHOW autovacuum") == "off":
                opened.execute("ANALYZE")  # which runs an index's functions as its table's owner
    if new.keys is not None:
        remove_tree(new.keys)
        make_directory(new.keys.parent)
        extract(checked, KEYS_DIRECTORY, new.keys, keep_owners=True)
    return Loaded(checked, rows, left_out, notes, guest)


def _load_by_program(
    installation: Installation,
    server: Server,
    archive: CheckedArchive,
    new: Replacement,
    limits: DumpLimits,
    failure: BackupError,
    *,
    may_try: bool,
    is_staging: bool,
) -> tuple[str, ...]:
    """Load the dump by PostgreSQL's own program after our loader has failed; return what is to be told of it.

    Raise the failure, in the words for both, where this fails too or is not to be tried.
    """
    custom = archive.kind == "custom"
    program = load_programs.program_for(custom=custom)
    second: BackupError | None = None
    if not may_try:
        if archive.manifest is None and (isinstance(failure, ArchiveDamaged) or not is_staging):
            raise failure
    elif not is_of_another_server(failure):
        logger.warning("Our loader failed (%s); %s loads the dump instead", failure.message, program)
        places, _ = make_database(installation, server, archive, new, make_roles=True)
        lacking = set(archive.manifest.database.tablespaces) - places if archive.manifest else set()
        try:
            with closing(read_ahead(open_member(archive, dump_member(archive)))) as chunks:
                load_programs.load_by_program(
                    installation, new.database, chunks, limits, custom=custom, lacking=lacking, tablespaces=places
                )
        except ProgramFailed as error:
            second = error
        else:
            return (f"loaded by PostgreSQL's own {program}, for our loader failed: {failure.message}",)
    raise unloadable(archive.name, failure, second, program) from failure


def _size_of(archive: Archive, name: str) -> int | None:
    return next((member.bytes for member in archive.members if member.name == name), None)


class _Counter:
    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._total = tell, 0

    def add(self, count: int) -> None:
        self._total += count
        self._tell(self._total)
