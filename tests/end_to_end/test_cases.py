"""Databases as people have them, each with something that a backup program may stumble over; every one goes round in both formats.

A case is a file in `tests/cases` and a line in the table below: what the verification must say of it. All share one
stack, whose database is made anew for each, so that a case costs seconds. To add one, write its SQL and its line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import PROGRAM, Operator, run_program
from tests.content import content
from tests.receiver import receiver
from tests.settings import write_settings
from tests.stack.images import POSTGRES
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

CASES = Path(__file__).parents[1] / "cases"
PRISTINE = "pristine"
IMAGE = "mailarchiver-backup-stand-in/postgres-with-extensions:17"
FORMATS = ("guide", "fast")


@dataclass(frozen=True)
class Case:
    """One database: its SQL is `tests/cases/NAME.sql` for each of the names; what does not meet shares one, for a round costs seconds.

    `asks` is a query of one text that must be answered as before once the database was restored; without one, everything that
    `content` sees must be. `encoding` is that of the database where it is not UTF-8.
    """

    names: tuple[str, ...]
    asks: str = ""
    encoding: str = ""


VERIFIED = [
    Case(("odd_names", "views_after_rows", "sql_bodies", "extension_settings")),
    # The enum's numbers differ in each database, and with them the partitions that the rows go to; the columns of tables that inherit
    # come in another order.
    Case(
        ("partitions_by_enum", "inheriting"),
        asks="SELECT md5(string_agg(e::text, '|' ORDER BY note)) || (SELECT md5(string_agg(to_jsonb(c)::text, '|' ORDER BY a, b))"
        " FROM heirs.child c) || (SELECT md5(string_agg(to_jsonb(g)::text, '|' ORDER BY a)) FROM heirs.grandchild g) FROM traffic.event e",
    ),
    Case(("escaping_backslashes",)),
    Case(
        ("bytes_of_any_kind",),
        asks="SELECT string_agg(encode(subject::bytea, 'hex'), ' ' ORDER BY id) FROM public.imported",
        encoding="SQL_ASCII",
    ),
    Case(
        ("in_latin1",),
        asks="SELECT md5(schema_to_xml(nspname, true, false, '')::text) || (SELECT string_agg(tableowner, '|') FROM pg_tables"
        " WHERE schemaname = nspname) || (SELECT count(*) FROM pg_roles) FROM pg_namespace WHERE nspname LIKE 'B%ro'",
        encoding="LATIN1",
    ),
]


@dataclass(frozen=True)
class Hopeless:
    """A database whose dump PostgreSQL itself cannot load: what verification must say and name, and what stays unharmed.

    `without` is what a restore has to leave out, `asks` a query with its answer after that.
    """

    name: str
    says: str
    without: str
    asks: str
    answer: object


HOPELESS = [
    Hopeless(
        "checked_by_another_table",
        "kind_is_known",
        "TABLE DATA policy.decision",
        "SELECT (SELECT count(*) FROM policy.decision), (SELECT count(*) FROM policy.known_kind)",
        (0, 2),
    ),
    Hopeless(
        "names_as_values",
        'relation "upkeep.subject_key" does not exist',
        "TABLE DATA upkeep.reindex",
        "SELECT count(*) FROM upkeep.reindex",
        (0,),
    ),
    Hopeless(
        "view_needs_a_path",
        'relation "word" does not exist',
        "MATERIALIZED VIEW DATA public.counted",
        "SELECT relispopulated FROM pg_class WHERE relname = 'counted'",
        (False,),
    ),
    Hopeless(
        "view_of_another_server",
        "could not connect",
        "MATERIALIZED VIEW DATA directory.role_copy",
        "SELECT relispopulated FROM pg_class WHERE relname = 'role_copy'",
        (False,),
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
            f'pg_dump -U {stack.user} --schema-only {PRISTINE} | psql -q -X -U {stack.user} -v ON_ERROR_STOP=1 -o /dev/null "{stack.database}"',
        )  # fmt: skip
    else:
        stack.psql(f'CREATE DATABASE "{stack.database}" TEMPLATE {PRISTINE}', database="postgres")


def prepare(stack: Stack, case: Case | Hopeless) -> None:
    """Make the database of a case."""
    new_database(stack, case.encoding if isinstance(case, Case) else "")
    for name in case.names if isinstance(case, Case) else (case.name,):
        stack.compose(
            "exec", "-T", "postgres", "psql", "-q", "-X", "-U", stack.user, "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", stack.database,
            stdin=(CASES / f"{name}.sql").read_bytes(),
        )  # fmt: skip


def holds(stack: Stack, case: Case) -> object:
    """Tell what the case's database holds, in a form that can be compared."""
    return stack.psql(case.asks) if case.asks else content(stack)


def test_a_cluster_in_sql_ascii_is_one_like_any_other(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """There even roles and the comments of databases are bytes of any kind."""
    stack = make_stack(megabytes=0, postgres_environment={"POSTGRES_INITDB_ARGS": "--encoding=SQL_ASCII --locale=C"})
    stack.compose(
        "exec", "-T", "postgres", "psql", "-q", "-X", "-U", stack.user, "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", stack.database,
        stdin=(CASES / "bytes_of_any_kind.sql").read_bytes(),
    )  # fmt: skip
    operator = Operator(stack.directory, tmp_path / "backups")
    operator.must("backup", "hot", "--format", "fast")

    assert operator.must("verify", "latest")["verdict"] == "verified"
    operator.must("restore", "latest", "--yes", "--no-quarantine")
    asked = "SELECT encode(convert_to(shobj_description(oid, 'pg_database'), 'SQL_ASCII'), 'hex') FROM pg_database WHERE datname = %s"
    assert stack.psql(asked, [stack.database]) == [(b"42fc726f",)]
    assert stack.psql("SELECT count(*) FROM pg_tables WHERE tableowner = E'b\\xfcro'") == [(1,)]


@pytest.mark.parametrize("case", VERIFIED, ids=lambda case: case.names[0])
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


@pytest.mark.parametrize(
    ("case", "archive_format"),
    # Rows and a view, an error of ours and one of a connection, each format once: what a load does next is the same for all.
    [(HOPELESS[0], "guide"), (HOPELESS[3], "fast")]
    + [
        pytest.param(case, archive_format, marks=pytest.mark.long)
        for case in HOPELESS
        for archive_format in FORMATS
        if (case, archive_format) not in ((HOPELESS[0], "guide"), (HOPELESS[3], "fast"))
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_one_object_that_postgresql_cannot_rebuild_does_not_take_all_mail_with_it(
    stack: Stack, tmp_path: Path, case: Hopeless, archive_format: str
) -> None:
    """The first verification names the object, says that the archive is sound and what to do; and all but that object comes back."""
    prepare(stack, case)
    before = stack.stats()
    operator = Operator(stack.directory, tmp_path / "backups")
    made = operator.must("backup", "hot", "--format", archive_format)

    verdict = operator.run("verify", made["name"])
    told = "\n".join(verdict.value["differences"])
    assert (verdict.code, verdict.value["verdict"]) == (1, "failed")
    for words in (case.says, case.without, "archive itself is sound", "backup complete", f"--without '{case.without}'"):
        assert words in told, told

    refused = operator.run("restore", made["name"], "--yes")
    assert (refused.code, stack.stats()) == (1, before)
    assert operator.run("restore", made["name"], "--yes", "--without", "TABLE DATA public.nothing").code == 1

    restored = operator.must("restore", made["name"], "--yes", "--no-quarantine", "--without", case.without)
    stack.wait_app()
    assert restored["left_out"] == [case.without]
    assert stack.stats() == before
    assert stack.psql(case.asks) == [case.answer]
    assert operator.must("list")[0]["verified"] is False


def test_a_dump_that_only_postgresql_can_read_is_backed_up_and_proven(stack: Stack, tmp_path: Path) -> None:
    """A comment of seventy million characters is more than our reader takes: no census, and the second way to load it."""
    new_database(stack)
    stack.psql("DO $$ BEGIN EXECUTE format('COMMENT ON SCHEMA mail_archiver IS %L', repeat('long ', 14000000)); END $$")
    before = content(stack)
    for archive_format in FORMATS:
        operator = Operator(stack.directory, tmp_path / archive_format)
        with receiver() as heard:
            # The installation that a directory's name stands for on the command line, with somebody who is told.
            installation = {
                "directory": stack.directory,
                "repository": operator.repository,
                "notifications": heard.settings(),
            }
            settings = write_settings(tmp_path / "settings.yaml", {stack.directory.name: installation})
            code, _, stderr = run_program(
                [PROGRAM, "backup", "hot", "--format", archive_format, "--settings", str(settings)]
            )
        assert code == 0, stderr
        assert [title for title in heard.titles() if title.endswith("has no census")]

        verdict = operator.must("verify", "latest")
        assert verdict["verdict"] == "legacy"
        notes = " ".join(verdict["notes"])
        assert "no census" in notes
        assert f"PostgreSQL's own {'psql' if archive_format == 'guide' else 'pg_restore'}" in notes
    restored = operator.must("restore", "latest", "--yes", "--no-quarantine")
    assert restored["notes"]
    stack.wait_app()
    assert content(stack) == before
    comment = "SELECT length(obj_description('mail_archiver'::regnamespace, 'pg_namespace'))"
    assert stack.psql(comment) == [(70_000_000,)]
