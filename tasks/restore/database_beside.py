"""Build a replacement for the current database beside it, and prove it, before anything current is touched."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.extraction import extract
from tasks.adapters.archive.reader import (
    Archive,
    CheckedArchive,
    check_archive,
    check_while,
    open_member,
    read_small_member,
)
from tasks.adapters.engine import containers
from tasks.adapters.host.files import free_space, make_directory, remove_tree
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.streams import read_ahead
from tasks.adapters.postgres import code, databases, load, load_programs, loading_role
from tasks.adapters.postgres import facts as facts_of
from tasks.adapters.postgres.census import take_census
from tasks.adapters.postgres.facts import database_facts, migration_head, server_major, tablespaces
from tasks.adapters.postgres.loading_role import LoadingRole
from tasks.adapters.postgres.session import Server, Session, server_of, session, wait_until_ready
from tasks.core.archive.layout import KEYS_DIRECTORY, ROLES_MEMBER
from tasks.core.archive.manifest import DatabaseFacts, Format, TableCensus
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.byte_text import bytes_of, shown
from tasks.core.dump.census import differences
from tasks.core.dump.code_words import LISTED, new_code, refuse_code
from tasks.core.dump.deferred import Deferred
from tasks.core.dump.events import Statement
from tasks.core.dump.left_out import LeftOut
from tasks.core.dump.load_words import is_of_another_server, is_refused_right, needs_rights, unloadable
from tasks.core.dump.sql import read_sql_dump
from tasks.core.dump.statements import roles_named
from tasks.core.errors import ArchiveDamaged, BackupError, ProgramFailed, Refused, UsageError
from tasks.core.policy.limits import DumpLimits
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.quoting import quoted
from tasks.core.stack.beside import Mark, mark_of_database, mark_of_directory, stamp_of
from tasks.core.stack.compatibility import missing_roles, refuse_unfit_dump
from tasks.core.stack.database_attributes import DEFAULT_TABLESPACE, attribute_differences
from tasks.core.stack.installation import Installation
from tasks.core.stack.server_settings import with_known_tablespaces
from tasks.progress import progress
from tasks.recovery.journalled import journalled
from tasks.restore.expected import Expected, dump_events, dump_member
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "replacement"
COMMENT = "mailarchiver-backup: being restored, not in use"
MAINTENANCE_DATABASE = "postgres"
STAGING_FOREIGN_SECONDS = 10
ROLES_LIMIT_BYTES = 16 << 20
# The load leaves WAL behind besides the tables and indexes.
LOADED_FACTOR = 1.3
_ROLE_STATEMENT = re.compile(
    rb"""(?:CREATE\ ROLE|ALTER\ ROLE|COMMENT\ ON\ ROLE)\ (?P<role>"(?:[^"]|"")+"|[^\s;"]+)
       | GRANT\ (?P<group>"(?:[^"]|"")+"|[^\s;"]+)\ TO\ (?P<member>"(?:[^"]|"")+"|[^\s;"]+)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A database and a keys directory that stand beside the current ones, and what they are to be called after the swap.

    `keys` is None where the archive has none or the installation keeps none. `role` is the role without rights that loads a dump which is not
    known as the installation's own, "" for its own.
    """

    database: str
    current: str
    stamp: str
    keys: Path | None
    current_keys: Path | None
    role: str = ""

    @property
    def aside(self) -> str:
        """Name under which the current database is kept."""
        return Mark("before", self.stamp).database(self.current)

    @property
    def keys_aside(self) -> Path | None:
        """Name under which the current keys are kept."""
        current = self.current_keys
        return None if current is None else Mark("before", self.stamp).directory(current)


@step(name="check target")
def check_target(installation: Installation, archive: Archive) -> None:
    """Raise Refused where this archive may not be restored here; touch nothing."""
    manifest = archive.manifest
    _require_room(installation, archive)
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=60)
        with session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
            major = server_major(opened)
            exists = databases.database_exists(opened, installation.database.name)
        head = None
        if exists:
            with session(server, installation.database.name, purpose="check") as opened:
                head = migration_head(opened)
    refuse_unfit_dump(
        manifest,
        target_major=major,
        target_migration_head=head,
        same_application=manifest is not None
        and bool(manifest.images)
        and manifest.images[0].image_id == installation.application.image_id,
    )


def _require_room(installation: Installation, archive: Archive) -> None:
    """Raise Refused where the loaded database would not fit beside the current one, as far as the host can see its disk."""
    place = installation.data_mount.host_path
    if place is None or archive.manifest is None:
        return
    need = Need(
        "the restored database", str(place), int(archive.manifest.database.size_bytes * LOADED_FACTOR) + MARGIN_BYTES
    )
    free_bytes, free_inodes = free_space(place)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes)


@contextmanager
def replacement(
    installation: Installation, archive: Archive, *, now: datetime, foreign: bool = False
) -> Iterator[Replacement]:
    """Give the names of a replacement; whatever still stands beside the current data at the end of the block is removed.

    What was swapped in by then has lost these names and stays. A journal sees to the same after a crash.
    """
    mark = Mark("restored", stamp_of(now))
    name = installation.database.name
    keys_place = installation.keys_directory
    has_keys = any(member.name.startswith(f"{KEYS_DIRECTORY}/") for member in archive.members)
    new = Replacement(
        database=mark.database(name),
        current=name,
        stamp=mark.stamp,
        keys=mark.directory(keys_place) if keys_place and has_keys else None,
        current_keys=keys_place,
        role=loading_role.name_of(mark.stamp) if foreign else "",
    )
    journal = open_journal(
        KIND,
        {
            "database": new.database,
            "keys": str(new.keys) if new.keys else None,
            "project": installation.project,
            "role": new.role,
        },
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    with journalled(journal, lambda: _remove(installation, new.database, new.keys, new.role)):
        yield new


def settle(journal: Journal) -> str:
    """Remove what a dead restore had built beside the current data; production was not touched by it."""
    installation = installation_of(journal)
    name, keys = str(journal.body["database"]), str(journal.body.get("keys") or "")
    place = installation.keys_directory
    marks = [mark_of_database(name, installation.database.name)]
    if keys:
        marks.append(mark_of_directory(keys, place) if place is not None else None)
    if marks[0] is None or any(mark is None or mark.word != "restored" for mark in marks):
        raise Refused(
            f"{name} and {keys or 'no keys'}: these are not the names that a restore of {installation.id} gives, so nothing is removed",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )
    role = loading_role.name_of(marks[0].stamp) if journal.body.get("role") else ""
    _remove(installation, name, Path(keys) if keys else None, role)
    return f"removed the unfinished restore {name}"


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


@dataclass(frozen=True, slots=True)
class Guest:
    """The role that loads a stranger's dump, and what is to be said to PostgreSQL once it has.

    `public_owner` owned the schema `public` before; `itself` is the new database's own state before the load.
    """

    role: LoadingRole
    public_owner: str
    itself: tuple[object, ...]
    deferred: Deferred = field(default_factory=Deferred)


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

    A dump that is not known as the installation's own (`new.role`) is loaded by a role that owns the new database and nothing else, and by our
    loader alone; `hand_over_replacement` follows.

    Safe to repeat: a retry drops what there is and starts over. Raise ArchiveDamaged, with the replacement worth nothing, where a byte is not
    as it was sealed; ProgramFailed, saying that the archive is sound, where PostgreSQL itself cannot load what it dumped; UsageError for a
    name of something to be left out that nothing has.
    """
    if is_staging:  # which has no way to any other server
        limits = replace(limits, foreign_seconds=min(limits.foreign_seconds, STAGING_FOREIGN_SECONDS))
    member = dump_member(archive)
    rows: dict[str, TableCensus] = {}
    left_out = LeftOut(without)
    failures: list[BackupError] = []
    notes: tuple[str, ...] = ()
    with server_of(installation) as server:
        places, guest = _make_database(installation, server, archive, new, make_roles=is_staging or not new.role)
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
        with session(server, new.database, purpose="analyze") as opened:
            # Autovacuum does it within a minute, beside the running application; before the swap it would cost as much as the load of the
            # rows, for statistics of the full-text index alone.
            if opened.value("SHOW autovacuum") == "off":
                opened.execute("ANALYZE")  # which runs an index's functions as its table's owner
    if new.keys is not None:
        _remove_keys(new.keys)
        make_directory(new.keys.parent)
        extract(checked, KEYS_DIRECTORY, new.keys, keep_owners=True)
    return Loaded(checked, rows, left_out, notes, guest)


@step(name="hand over replacement", retries=0)
def hand_over_replacement(
    installation: Installation, loaded: Loaded, new: Replacement, *, with_code: bool, is_staging: bool = False
) -> list[str]:
    """Give a stranger's data to its owners, and drop the role that loaded it; return in words what code came with it.

    Raise Refused, naming it, where it brings code that the current database does not have, unless that is wanted; on staging, which is taken
    away again, it is only named. Raise Refused too where it changed the new database itself or its owners are not known here.
    """
    guest = loaded.guest
    if guest is None:
        return []
    with server_of(installation) as server:
        with session(server, new.database, purpose="check") as opened:
            changed = loading_role.state_of_itself(opened) != guest.itself
            brought = code.code_of(opened)
        with session(server, MAINTENANCE_DATABASE, purpose="restore") as opened:
            exists = databases.database_exists(opened, new.current)
            facts = _facts_of(loaded.archive, opened, installation)
            owner = _owner(opened, facts, installation)
            wanted = {role for _, sql in guest.deferred.statements for role in roles_named(sql)}
            missing = sorted(role for role in wanted if not databases.role_exists(opened, role))
            if is_staging:
                for role in missing:
                    opened.execute(f"CREATE ROLE {quoted(role)} NOLOGIN")
                missing = []
        known: dict[str, str] = {}
        if exists and brought and not is_staging:
            with session(server, new.current, purpose="check") as opened:
                known = code.code_of(opened)
        names = new_code(brought, known)
        if changed:
            raise Refused(f"{loaded.archive.name} changes settings or privileges of the database itself while it loads")
        if missing:
            raise Refused(
                f"the dump belongs to roles that this server lacks: {', '.join(missing)}",
                hint="; ".join(f"CREATE ROLE {quoted(role)} NOLOGIN" for role in missing),
            )
        if not with_code and not is_staging:
            refuse_code(loaded.archive.name, names)
        with session(server, new.database, purpose="restore") as opened:
            loading_role.hand_over(opened, guest.role, owner, guest.public_owner, guest.deferred.statements)
            loading_role.drop_role(opened, guest.role.name)
    return [f"the dump brings code: {', '.join(shown(name) for name in names[:LISTED])}"] if names else []


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
        _make_database(installation, server, archive, new, make_roles=True)
        try:
            with closing(read_ahead(open_member(archive, dump_member(archive)))) as chunks:
                load_programs.load_by_program(installation, new.database, chunks, limits, custom=custom)
        except ProgramFailed as error:
            second = error
        else:
            return (f"loaded by PostgreSQL's own {program}, for our loader failed: {failure.message}",)
    raise unloadable(archive.name, failure, second, program) from failure


def _make_database(
    installation: Installation, server: Server, archive: Archive, new: Replacement, *, make_roles: bool
) -> tuple[frozenset[str], Guest | None]:
    """Make the empty replacement and the roles it needs; return the tablespaces to load into, and who loads a stranger's dump."""
    with session(server, MAINTENANCE_DATABASE, purpose="restore") as opened:
        _drop_unfinished(server, opened, new.database)
        facts = _facts_of(archive, opened, installation)
        if make_roles:
            _create_roles(opened, archive, facts)
        role = loading_role.make_role(opened, new.role) if new.role else None
        owner = _owner(opened, facts, installation)
        databases.create_database(opened, new.database, facts, owner=role.name if role else owner, comment=COMMENT)
        places = tablespaces(opened)
    if missing := sorted(set(facts.tablespaces) - places):
        logger.warning("This server lacks the tablespaces %s; the default one takes their place", ", ".join(missing))
    if role is None:
        return places, None
    with session(server, new.database, purpose="restore") as opened:
        public_owner = loading_role.take_public_schema(opened, role)
        guest = Guest(role, public_owner, loading_role.state_of_itself(opened))
    return frozenset({DEFAULT_TABLESPACE}), guest


@step(name="prove replacement", retries=1)
def prove_replacement(
    installation: Installation, loaded: Loaded, new: Replacement, expected: Expected, limits: DumpLimits
) -> list[str]:
    """Take the census of the replacement and return in words how it differs from the expected one; nothing is equal.

    What was left out on purpose counts neither way. Where nothing is known to be expected, nothing differs.
    """
    archive = loaded.archive
    if expected.census is None:
        return []
    archive_format: Format = "fast" if archive.kind == "custom" else "guide"
    options = expected.shape.pg_dump_options() if expected.shape else []
    # What was read back is in the server's encoding.
    known = loaded.rows if expected.shape is None or expected.shape.encoding == "UTF8" else {}
    with progress("census"):
        found = take_census(installation, new.database, archive_format, limits, known=known, options=options)
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
        major = server_major(opened)
    by = archive.manifest.database.server_major if archive.manifest else expected.shape and expected.shape.major
    left_out = loaded.left_out
    before, after = left_out.without(expected.census), left_out.without(found)
    if expected.shape is not None:
        before, after = expected.shape.comparable(before), expected.shape.comparable(after)
    return differences(before, after, compare_schema=by is None or by == major)


@step(name="apply database attributes")
def apply_attributes(
    installation: Installation, archive: Archive, new: Replacement, *, foreign: bool = False
) -> list[str]:
    """Give the replacement what belongs to a database itself: grants, settings, limits, labels; return in words what it could not be given.

    The last thing before the swap, so that none of it acts on the load or the proof. Safe to repeat. From a foreign archive's manifest nothing is
    taken: settings and grants act on whoever uses the database. It gets those of the database that it replaces.
    """
    with server_of(installation) as server:
        with session(server, MAINTENANCE_DATABASE, purpose="restore") as opened:
            facts = _facts_of(archive, opened, installation, of_current=foreign)
            owner = _owner(opened, facts, installation)
            refused = facts_of.apply_attributes(opened, new.database, facts, owner=owner)
        with session(server, new.database, purpose="check") as opened:
            found = database_facts(opened)
    for words in (told := refused or attribute_differences(facts, found)):
        logger.warning("%s", words)
    return told


@step(name="provide roles")
def provide_roles(installation: Installation, expected: Expected, *, create: bool) -> None:
    """See that the roles a legacy dump names exist: create them without login on staging, elsewhere raise Refused naming them."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="roles") as opened:
        missing = sorted(role for role in expected.roles if not databases.role_exists(opened, role))
        if missing and not create:
            raise Refused(
                f"the dump belongs to roles that this server lacks: {', '.join(missing)}",
                hint="; ".join(f"CREATE ROLE {quoted(role)} NOLOGIN" for role in missing),
            )
        for role in missing:
            opened.execute(f"CREATE ROLE {quoted(role)} NOLOGIN")


def _facts_of(
    archive: Archive, opened: Session, installation: Installation, *, of_current: bool = False
) -> DatabaseFacts:
    """Give the facts of the database that was backed up; for a legacy archive, those of the one it replaces or of the server."""
    if archive.manifest is not None and not of_current:
        return archive.manifest.database
    name = installation.database.name
    place = name if databases.database_exists(opened, name) else MAINTENANCE_DATABASE
    with server_of(installation) as server, session(server, place, purpose="check") as current:
        return database_facts(current)


def _owner(opened: Session, facts: DatabaseFacts, installation: Installation) -> str:
    """Give who is to own the replacement: the former owner, the superuser where the server has no such role."""
    return facts.owner if databases.role_exists(opened, facts.owner) else installation.database.superuser


def _create_roles(opened: Session, archive: Archive, facts: DatabaseFacts) -> None:
    """Create the backup's roles that this server lacks, with their passwords and memberships; leave existing ones alone.

    They are the server's, and stay whatever becomes of the replacement: an archive that was not checked is checked first.
    """
    missing = missing_roles(facts, [name for (name,) in opened.execute("SELECT rolname FROM pg_roles")])
    if not missing or not any(member.name == ROLES_MEMBER for member in archive.members):
        return
    checked = archive if isinstance(archive, CheckedArchive) else check_archive(archive.path)
    text = read_small_member(checked, ROLES_MEMBER, max_bytes=ROLES_LIMIT_BYTES)
    wanted = {bytes_of(name) for name in missing} | {bytes_of(quoted(name)) for name in missing}
    for event in read_sql_dump(iter((text,))):
        if isinstance(event, Statement) and (found := _ROLE_STATEMENT.match(event.sql)):
            subject = found["role"] or found["member"]
            if subject in wanted:
                # "GRANTED BY" names who once granted it, who may be unknown here.
                opened.run(re.sub(rb"\s+GRANTED BY [^;]+;$", b";", event.sql))
    logger.info("Created the missing roles %s", ", ".join(missing))


def _size_of(archive: Archive, name: str) -> int | None:
    return next((member.bytes for member in archive.members if member.name == name), None)


def _remove(installation: Installation, database: str, keys: Path | None, role: str = "") -> None:
    if keys is not None:
        _remove_keys(keys)
    found = containers.container(installation.postgres.container_id)
    if found is None or found.state != "running":
        raise BackupError(
            f"the unfinished database {database} cannot be dropped: PostgreSQL does not run",
            hint="start it",
            transient=True,
        )
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="clean up") as opened:
        _drop_unfinished(server, opened, database)
        if role:
            loading_role.drop_role(opened, role)


def _drop_unfinished(server: Server, opened: Session, database: str) -> None:
    """Drop an unfinished replacement; the subscriptions that its dump made go first, with no word to other servers."""
    entry = databases.database_entry(opened, database)
    if entry is None:
        return
    if not entry.is_broken and databases.replication_of(opened, database):
        with session(server, database, purpose="clean up") as inside:
            databases.forget_subscriptions(inside)
    databases.drop_database(opened, database)


def _remove_keys(keys: Path) -> None:
    remove_tree(keys)


class _Counter:
    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._total = tell, 0

    def add(self, count: int) -> None:
        self._total += count
        self._tell(self._total)
