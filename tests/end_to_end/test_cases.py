"""Databases as people have them, each with something that a backup program may stumble over; every one goes round in both formats.

A case is a file in `tests/cases` and a line in the table below: what the verification must say of it. All share one stack, whose database is made
anew for each, so that a case costs seconds. To add one, write its SQL and its line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.content import content
from tests.stack.images import POSTGRES
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

CASES = Path(__file__).parents[1] / "cases"
PRISTINE = "pristine"
IMAGE = "mailarchiver-backup-stand-in/postgres-with-extensions:17"
FORMATS = ("guide", "fast")


@dataclass(frozen=True)
class Case:
    """One database: its SQL is `tests/cases/NAME.sql`.

    `asks` is a query of one text that must be answered as before once the database was restored; without one, everything that
    `content` sees must be. `encoding` is that of the database where it is not UTF-8.
    """

    name: str
    asks: str = ""
    encoding: str = ""


VERIFIED = [
    Case("odd_names"),
    # The enum's numbers differ in each database, and with them the partitions that the rows go to.
    Case("partitions_by_enum", asks="SELECT md5(string_agg(e::text, '|' ORDER BY note)) FROM traffic.event e"),
    Case("views_after_rows"),
    Case("sql_bodies"),
    Case("escaping_backslashes"),
    Case("extension_settings"),
    Case(
        "bytes_of_any_kind",
        asks="SELECT string_agg(encode(subject::bytea, 'hex'), ' ' ORDER BY id) FROM public.imported",
        encoding="SQL_ASCII",
    ),
]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend the stack that all cases share; its database is kept under another name, to be copied for each."""
    place = CASES / "extensions"
    subprocess.run(
        ["docker", "build", "--quiet", "--build-arg", f"BASE={POSTGRES}", "--tag", IMAGE, str(place)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    made = create_stack(
        tmp_path_factory.mktemp("cases") / "stack",
        megabytes=1,
        extras=False,
        postgres_image=IMAGE,
        start_application=False,
    )
    made.psql(f'ALTER DATABASE "{made.database}" RENAME TO {PRISTINE}', database="postgres")
    new_database(made)
    made.compose("up", "--detach", "--no-build")
    made.wait_app()
    yield made
    made.destroy()


def new_database(stack: Stack, encoding: str = "") -> None:
    """Put the pristine database in place of whatever a case has left, with its settings and those of restores."""
    for (name,) in stack.psql(
        "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1', %s)",
        [PRISTINE],
        database="postgres",
    ):
        stack.psql(f'ALTER DATABASE "{name}" IS_TEMPLATE false', database="postgres")
        stack.psql(f'DROP DATABASE "{name}" WITH (FORCE)', database="postgres")
    if encoding:
        stack.psql(
            f"CREATE DATABASE \"{stack.database}\" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'",
            database="postgres",
        )
        stack.compose(
            "exec", "-T", "postgres", "sh", "-c",
            f'pg_dump -U {stack.user} {PRISTINE} | psql -q -X -U {stack.user} -v ON_ERROR_STOP=1 -o /dev/null "{stack.database}"',
        )  # fmt: skip
    else:
        stack.psql(f'CREATE DATABASE "{stack.database}" TEMPLATE {PRISTINE}', database="postgres")


def prepare(stack: Stack, case: Case) -> None:
    """Make the database of a case."""
    new_database(stack, case.encoding)
    stack.compose(
        "exec", "-T", "postgres", "psql", "-q", "-X", "-U", stack.user, "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", stack.database,
        stdin=(CASES / f"{case.name}.sql").read_bytes(),
    )  # fmt: skip


def holds(stack: Stack, case: Case) -> object:
    """Tell what the case's database holds, in a form that can be compared."""
    return stack.psql(case.asks) if case.asks else content(stack)


@pytest.mark.parametrize("case", VERIFIED, ids=lambda case: case.name)
def test_what_postgresql_wrote_comes_back(stack: Stack, tmp_path: Path, case: Case) -> None:
    """P21: backed up, verified and restored, in both formats."""
    prepare(stack, case)
    before = holds(stack, case)
    operator = Operator(stack.directory, tmp_path / "backups")

    for archive_format in FORMATS:
        made = operator.must("backup", "hot", "--format", archive_format)
        verdict = operator.run("verify", made["name"])
        assert (verdict.code, verdict.value["verdict"]) == (0, "verified"), f"{verdict.value} {verdict.stderr}"
    operator.must("restore", "latest", "--yes", "--no-quarantine")
    stack.wait_app()
    assert holds(stack, case) == before
