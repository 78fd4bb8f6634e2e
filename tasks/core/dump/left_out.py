"""Leave objects of a dump out of a restore, by the names that the dump gives them, and know exactly what that was."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from tasks.core.archive.manifest import Census, TableCensus
from tasks.core.byte_text import shown
from tasks.core.dump.census import CensusTaker
from tasks.core.dump.events import DumpComplete, DumpEvent, Statement, Title
from tasks.core.dump.statements import is_session_setting


@dataclass
class LeftOut:
    """What is to be left out, and what was: `names` are an object's kind and name (`TABLE DATA public.a`), or its name alone.

    The name alone leaves out everything that is called so: a table and its rows, but not what merely belongs to it.
    """

    names: Collection[str]
    found: set[str] = field(default_factory=set)
    _taker: CensusTaker = field(default_factory=CensusTaker)

    @property
    def missing(self) -> list[str]:
        """Give the names that nothing in the dump has."""
        return sorted(set(self.names) - self.found)

    def filter(self, events: Iterable[DumpEvent]) -> Iterator[DumpEvent]:
        """Pass on what is not left out; settings of the session and the dump's end always are passed on."""
        leaving = False
        for event in events:
            if isinstance(event, Title):
                full = shown(str(event))
                matching = {full, full.removeprefix(f"{event.kind} ")} & set(self.names)
                self.found |= matching
                leaving = bool(matching)
            kept = isinstance(event, DumpComplete) or (isinstance(event, Statement) and is_session_setting(event.sql))
            if leaving and not kept:
                self._taker.see(event)
            else:
                yield event

    def without(self, census: Census) -> Census:
        """Take what was left out from a census, so that the rest can be compared."""
        left = self._taker.result()
        nothing = TableCensus(rows=0, digest="")
        # All else of the census stays, such as what tells tables that inherit.
        return census.model_copy(
            update={
                "tables": {name: table for name, table in census.tables.items() if name not in left.tables},
                "sequences": {name: value for name, value in census.sequences.items() if name not in left.sequences},
                "large_objects": nothing if left.large_objects.rows else census.large_objects,
                "schema_objects": {
                    name: digest for name, digest in census.schema_objects.items() if name not in left.schema_objects
                },
            }
        )
