"""What every session of ours pins when it connects, so that the settings of a database, a role or a server do not act on it.

`ALTER DATABASE ... SET`, `ALTER ROLE ... SET` and postgresql.conf are an operator's words to the application: read-only
archives, time limits, another `search_path`, a role to become. Options given at connection take precedence over all of
them. Login event triggers run while a session begins, so that only an option can keep them off.
"""

from __future__ import annotations

from collections.abc import Mapping

PINNED: Mapping[str, str] = {
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "60s",  # a session that holds a lock for longer (a migration, a forgotten one) is named instead of waited for
    "idle_in_transaction_session_timeout": "0",
    "role": "none",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "IntervalStyle": "postgres",
    "DateStyle": "ISO",
    "extra_float_digits": "3",
    "xmloption": "content",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "local_preload_libraries": "",
}
# Only a superuser may set these; all our sessions are one's but those that prove the application's own login.
PINNED_FOR_SUPERUSERS: Mapping[str, str] = {
    "row_security": "off",
    "session_replication_role": "origin",
    "session_preload_libraries": "",
    "temp_file_limit": "-1",
    "lc_messages": "C",
    # Errors reach us; the server's log would show rows and statements with them.
    "log_min_messages": "fatal",
}
# An older server refuses the whole connection for an option that it does not know.
PINNED_SINCE: Mapping[int, Mapping[str, str]] = {
    14: {"idle_session_timeout": "0"},
    17: {"transaction_timeout": "0", "event_triggers": "off"},
}
# pg_dump, pg_restore and psql in the container load what production's sessions load, and set their time limits by themselves.
_LEFT_TO_PROGRAMS = ("local_preload_libraries", "session_preload_libraries")


def pinned_settings(major: int, *, superuser: bool = True) -> dict[str, str]:
    """Give what a session pins on a server of this major version.

    >>> "event_triggers" in pinned_settings(16), "event_triggers" in pinned_settings(17)
    (False, True)
    """
    settings = {**PINNED, **(PINNED_FOR_SUPERUSERS if superuser else {})}
    for since, more in PINNED_SINCE.items():
        if major >= since:
            settings |= more
    if not superuser:
        settings.pop("event_triggers", None)
    return settings


def generations(major_hint: int | None) -> list[int]:
    """List the majors to try a connection as, newest first: what the image says, else all generations of options.

    >>> generations(15), generations(None)
    ([14, 0], [17, 14, 0])
    """
    known = [*sorted(PINNED_SINCE, reverse=True), 0]
    return [each for each in known if major_hint is None or each <= major_hint]


def generation_of(major: int) -> int:
    """Give the generation of options that a server of this major knows.

    >>> generation_of(18), generation_of(16), generation_of(13)
    (17, 14, 0)
    """
    return generations(major)[0]


def names_a_newer_option(refusal: str) -> bool:
    """Tell whether a server refused a connection because it does not know one of the newer options, whatever its language."""
    return any(f'"{name}"' in refusal for more in PINNED_SINCE.values() for name in more)


def as_options(settings: Mapping[str, str]) -> str:
    r"""Write settings as the `options` of a connection (PGOPTIONS).

    >>> as_options({"default_transaction_isolation": "read committed", "search_path": ""})
    '-c default_transaction_isolation=read\\ committed -c search_path='
    """
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def program_options(major: int) -> str:
    """Give PGOPTIONS for PostgreSQL's own programs in a server's container."""
    settings = {**pinned_settings(major), "lock_timeout": "0"}
    return as_options({name: value for name, value in settings.items() if name not in _LEFT_TO_PROGRAMS})


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
