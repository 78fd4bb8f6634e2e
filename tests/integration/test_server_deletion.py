"""What is read of accounts that delete mail on their servers, in every shape of the table that versions have had."""

from __future__ import annotations

import pytest

from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.adapters.stack.discovery import discover
from tasks.adapters.stack.mail_archiver import server_deletion
from tasks.core.errors import Refused
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

COLUMNS = '"IsEnabled" boolean, "DeleteAfterDays" integer'
ROWS = "(true, 30), (true, 3), (false, 1), (true, 0), (true, -5), (true, NULL)"


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        (COLUMNS, ROWS, (3, 2)),
        (COLUMNS, "(false, 1), (true, NULL), (true, 0)", (None, 0)),
        (COLUMNS, "", (None, 0)),
        ('"IsEnabled" boolean', "(true)", (None, 0)),  # a version that deletes nothing
        ('"DeleteAfterDays" integer', "(7), (9), (NULL)", (7, 2)),  # one without a switch
        (f'{COLUMNS}, gone integer', "(true, 4, 1)", (4, 1)),
    ],
)  # fmt: skip
def test_the_smallest_days_of_the_enabled_accounts(
    small_stack: Stack, columns: str, rows: str, expected: tuple[int | None, int]
) -> None:
    with server_of(discover(small_stack.directory)) as server, session(server, "postgres", purpose="test") as opened:
        try:
            opened.execute(f'CREATE TABLE public."MailAccounts" ({columns})')
            if rows:
                opened.execute(f'INSERT INTO public."MailAccounts" VALUES {rows}')
            assert server_deletion(opened) == expected
        finally:
            opened.execute('DROP TABLE IF EXISTS public."MailAccounts"')


def test_without_the_table_nothing_is_known(small_stack: Stack) -> None:
    with server_of(discover(small_stack.directory)) as server, session(server, "template1", purpose="test") as opened:
        with pytest.raises(Refused, match="has no table MailAccounts"):
            server_deletion(opened)
