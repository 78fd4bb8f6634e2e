"""Which settings of production's server a server of ours gets, so that objects which depend on them can be made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tasks.core.byte_text import bytes_of
from tasks.core.dump.events import DumpEvent, Statement
from tasks.core.quoting import quoted
from tasks.core.stack.database_attributes import DEFAULT_TABLESPACE

# What a data directory cannot be started or read without (prepared transactions, many locks); no libraries, which an image may lack.
FOR_A_DATA_DIRECTORY = frozenset(
    {
        "max_prepared_transactions",
        "max_locks_per_transaction",
        "max_connections",
        "max_worker_processes",
        "track_commit_timestamp",
    }
)
# A scheduler's jobs are production's to run.
_QUIET = {"pg_cron": {"cron.launch_active_jobs": "off"}}
_SET_TABLESPACE = b"SET default_tablespace = "


def staging_settings(production: Mapping[str, str], own: Iterable[str] = ()) -> list[str]:
    """Give the command of a staging server: production's settings, then `own` ones (`name=value`), which take precedence.

    >>> staging_settings({"shared_preload_libraries": "pg_cron"}, ["fsync=off"])
    ['postgres', '-c', 'shared_preload_libraries=pg_cron', '-c', 'cron.launch_active_jobs=off', '-c', 'fsync=off']
    """
    settings = dict(production)
    libraries = settings.get("shared_preload_libraries", "")
    for library, quiet in _QUIET.items():
        if library in libraries:
            settings |= quiet
    lines = [*(f"{name}={value}" for name, value in settings.items()), *own]
    return ["postgres", *(word for line in lines for word in ("-c", line))]


def settings_for_a_data_directory(production: Mapping[str, str]) -> list[str]:
    """Give the command of a private server on a restored data directory; [] for the image's own.

    >>> settings_for_a_data_directory({"max_prepared_transactions": "5", "shared_preload_libraries": "x"})
    ['postgres', '-c', 'max_prepared_transactions=5']
    """
    kept = {name: value for name, value in production.items() if name in FOR_A_DATA_DIRECTORY}
    return staging_settings(kept) if kept else []


def with_known_tablespaces(events: Iterable[DumpEvent], known: Iterable[str]) -> Iterator[DumpEvent]:
    """Pass a dump's events on; what belongs into a tablespace that the server lacks goes into the default one.

    >>> list(with_known_tablespaces([Statement(b"SET default_tablespace = gone;", "pre-data")], ["pg_default"]))
    [Statement(sql=b"SET default_tablespace = '';", section='pre-data')]
    """
    places = {DEFAULT_TABLESPACE.encode(), b""}
    for name in known:
        places |= {bytes_of(name), bytes_of(quoted(name))}
    for event in events:
        if (
            isinstance(event, Statement)
            and event.sql.startswith(_SET_TABLESPACE)
            and event.sql.removeprefix(_SET_TABLESPACE).rstrip(b"; \n").strip(b"'") not in places
        ):
            yield Statement(_SET_TABLESPACE + b"'';", event.section)
            continue
        yield event
