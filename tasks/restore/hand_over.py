"""Give a stranger's data to its owners, after the proof."""

from __future__ import annotations

from tasks.adapters.postgres import code, databases, loading_role
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, MAINTENANCE_DATABASE, session
from tasks.core.byte_text import shown
from tasks.core.dump.code_words import LISTED, new_code, refuse_code
from tasks.core.dump.statements import roles_named
from tasks.core.errors import Refused
from tasks.core.quoting import quoted
from tasks.core.stack.installation import Installation
from tasks.restore.database_beside import Replacement
from tasks.restore.database_load import Loaded
from tasks.restore.roles import facts_of_archive, owner_of
from tasks.step import step


@step(name="hand over replacement", retries=0)
def hand_over_replacement(
    installation: Installation,
    loaded: Loaded,
    new: Replacement,
    *,
    with_code: bool,
    make_roles: bool,
    is_staging: bool = False,
) -> list[str]:
    """Give a stranger's data to its owners, and drop the role that loaded it; return in words what code came with it.

    Raise Refused, naming it, where it brings code that the current database does not have, unless that is wanted; on
    staging, which is taken away again, it is only named. Raise Refused too where it changed the new database itself or
    its owners are not known here; with `make_roles` these are made, without login.
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
            facts = facts_of_archive(loaded.archive, opened, installation)
            owner = owner_of(opened, facts, installation)
            wanted = {role for _, sql in guest.deferred.statements for role in roles_named(sql)}
            missing = sorted(role for role in wanted if not databases.role_exists(opened, role))
            if make_roles:
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
        with session(server, new.database, purpose="restore", answer_seconds=LONG_ANSWER_SECONDS) as opened:
            loading_role.hand_over(opened, guest.role, owner, guest.public_owner, guest.deferred.statements)
            loading_role.drop_role(opened, guest.role.name)
    return [f"the dump brings code: {', '.join(shown(name) for name in names[:LISTED])}"] if names else []
