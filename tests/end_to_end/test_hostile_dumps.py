"""Archives that are not the installation's own: restored without rights beyond the new database, and nothing outside it changes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tasks.adapters.archive.reader import check_archive
from tasks.core.errors import BackupError
from tasks.core.policy.limits import DumpLimits, StagingLimits
from tasks.core.stack.installation import Installation
from tasks.run.config import config_at
from tasks.run.installations import read_installation
from tasks.verification.staging import staging_installation
from tasks.verification.verify import run_restore_test
from tests.cli import Operator
from tests.content import content
from tests.end_to_end.test_foreign_dumps import archive_of, dumped
from tests.hostile_dumps import BRINGS, CODE, PASSED_OVER, REFUSED
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

END = b"--\n-- PostgreSQL database dump complete\n--\n"


# Every so many of them in the suite (of verifications fewer), and those that were once overlooked; the others with -m long.
IN_SHORT = 5
ALWAYS = ("program in an index", "program where the accounts are disabled")


def in_short(names: Iterable[str], every: int = IN_SHORT) -> list[ParameterSet]:
    """Mark those that stand for no others."""
    return [
        pytest.param(name, marks=() if number % every == 0 or name in ALWAYS else pytest.mark.long, id=name)
        for number, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack with a directory in PostgreSQL's container that nothing may touch."""
    made = create_stack(tmp_path_factory.mktemp("hostile") / "stack", megabytes=1, extras=False)
    made.compose(
        "exec", "-T", "-u", "postgres", "postgres", "sh", "-c", "mkdir /tmp/canary && echo secret >/tmp/canary/secret"
    )
    made.psql("CREATE DATABASE other", database="postgres")
    made.psql("CREATE TABLE precious AS SELECT 1 AS a", database="other")
    yield made
    made.destroy()


def outside(stack: Stack) -> object:
    """Tell what lies outside a new database: the current one, the roles, settings, other databases, and the canary directory."""
    listed = stack.compose(
        "exec", "-T", "postgres", "sh", "-c", "ls -la --full-time /tmp/canary | grep -v ' \\.\\.$'"
    ).stdout
    return (
        content(stack),
        stack.psql("SELECT md5(string_agg(a::text, '|' ORDER BY rolname)) FROM pg_authid a", database="postgres"),
        stack.psql(
            "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2",
            database="postgres",
        ),
        stack.psql("SELECT * FROM pg_db_role_setting", database="postgres"),
        stack.psql("SELECT datname FROM pg_database ORDER BY 1", database="postgres"),
        stack.psql("SELECT name, setting FROM pg_file_settings ORDER BY 1", database="postgres"),
        stack.psql("SELECT a FROM precious", database="other"),
        listed,
    )


def hostile(stack: Stack, place: Path, sql: str) -> Path:
    """Make an archive by the guide whose dump holds some more statements at its end, as objects of their own."""
    head = b"--\n-- Name: added; Type: ADDED; Schema: public; Owner: -\n--\n\n"
    dump = dumped(stack, "pg_dump")
    assert END in dump
    return archive_of(stack, place, dump.replace(END, head + sql.encode() + b"\n\n" + END))


def test_without_the_word_nothing_foreign_is_restored(stack: Stack, tmp_path: Path) -> None:
    """An ordinary archive by the guide is refused with what to do; with one flag it comes up, in quarantine that one command ends."""
    operator = Operator(stack.directory, tmp_path)
    before = outside(stack)
    archive = archive_of(stack, tmp_path, dumped(stack, "pg_dump"))

    refused = operator.run("restore", str(archive), "--yes")
    assert refused.code == 1
    assert "no manifest" in refused.value["error"]
    assert "--foreign" in refused.value["hint"]
    assert operator.run("restore", str(archive), "--yes", "--foreign", "--no-quarantine").code == 2
    assert operator.run("restore", str(archive), "--foreign").code == 2  # nobody is there to confirm the plan
    assert outside(stack) == before

    restored = operator.must("restore", str(archive), "--yes", "--foreign")
    stack.wait_app()
    assert restored["quarantined"]
    operator.must("lift-quarantine")
    assert content(stack) == before[0]  # type: ignore[index]
    operator.must("commit", "--yes")
    assert outside(stack) == before


@pytest.mark.parametrize("name", in_short(BRINGS))
def test_code_that_a_stranger_brings_wants_its_own_word(stack: Stack, tmp_path: Path, name: str) -> None:
    """It is named, nothing is touched, and it did not run with anybody's rights but those of the role that loads."""
    operator = Operator(stack.directory, tmp_path)
    before = outside(stack)
    archive = hostile(stack, tmp_path, BRINGS[name])

    refused = operator.run("restore", str(archive), "--yes", "--foreign")

    assert refused.code == 1, refused.value
    assert "brings code" in refused.value["error"], refused.value
    assert "--with-code" in refused.value["hint"]
    assert outside(stack) == before


@pytest.mark.parametrize("name", in_short(REFUSED))
def test_what_needs_rights_is_refused(stack: Stack, tmp_path: Path, name: str) -> None:
    """P22: with every word of the operator's there is, a stranger's dump does nothing outside the new database."""
    operator = Operator(stack.directory, tmp_path)
    before = outside(stack)
    archive = hostile(stack, tmp_path, REFUSED[name])

    refused = operator.run("restore", str(archive), "--yes", "--foreign", "--with-code")

    assert refused.code == 1, refused.value
    assert "unexpected" not in refused.value["error"]
    assert outside(stack) == before


HOSTILE = {**BRINGS, **REFUSED}
ON_ACCOUNTS = BRINGS["program where the accounts are disabled"]
ON_ATTACHMENTS = (
    BRINGS["program in a cast of the attachments"].replace("evil", "evil_too").replace("worker", "worker_too")
)
SCRATCH = "scratch"
ALL_OF_THE_CLUSTER = """
pg_dumpall -U "$0" | grep -v restrict
psql -U "$0" -At -c "SELECT name, setting FROM pg_file_settings; SELECT rolname, rolpassword FROM pg_authid ORDER BY 1" postgres
ls -laR --full-time /tmp/canary | grep -v ' \\.\\.$'
"""


@pytest.fixture(scope="module")
def staging(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Lend one staging stack, as a verification makes it, with a directory that nothing may touch."""
    place = tmp_path_factory.mktemp("staging")
    config = config_at("stack", stack.directory, place)
    ordinary = check_archive(archive_of(stack, place, dumped(stack, "pg_dump")))
    with staging_installation(read_installation(config), ordinary, StagingLimits()) as made:
        inside(made, "mkdir /tmp/canary && echo secret >/tmp/canary/secret")
        yield made


def inside(staging: Installation, script: str) -> bytes:
    """Run a script in the container of staging's PostgreSQL, where $0 is the superuser."""
    command = ["docker", "exec", "-u", "postgres", staging.postgres.container_id, "sh", "-c", script]
    return subprocess.run([*command, staging.database.superuser], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", in_short(HOSTILE, every=8))
def test_verification_runs_no_strangers_code(stack: Stack, staging: Installation, tmp_path: Path, name: str) -> None:
    """P22: by what `verify` calls for each archive, on a staging stack; there nobody is asked, so nothing that has rights may call it."""
    before = inside(staging, ALL_OF_THE_CLUSTER)
    archive = check_archive(hostile(stack, tmp_path, HOSTILE[name]))
    now = datetime.now(UTC)

    if name in REFUSED:
        with pytest.raises(BackupError):
            run_restore_test(staging, archive, DumpLimits(), now=now, foreign="it is a stranger's")
    else:
        restored = run_restore_test(staging, archive, DumpLimits(), now=now, foreign="it is a stranger's").restored
        assert any("brings code" in note for note in restored.notes), restored.notes
        assert any("not started" in note for note in restored.notes)
        assert restored.kept is None

    assert inside(staging, ALL_OF_THE_CLUSTER) == before


def test_verification_touches_no_table_that_calls_back(stack: Stack, staging: Installation, tmp_path: Path) -> None:
    """A genuine dump whose accounts and attachments bring code: neither neutralised nor hashed, and nothing starts on it."""
    before = inside(staging, ALL_OF_THE_CLUSTER)
    stack.psql(f"CREATE DATABASE {SCRATCH}", database="postgres")
    try:
        dumped(stack, f"pg_dump | psql -qX -v ON_ERROR_STOP=1 -o /dev/null {SCRATCH}")
        for sql in (ON_ACCOUNTS, ON_ATTACHMENTS):
            stack.psql(sql, database=SCRATCH)
        archive = check_archive(archive_of(stack, tmp_path, dumped(stack, f"pg_dump {SCRATCH}")))
    finally:
        stack.psql(f"DROP DATABASE {SCRATCH}", database="postgres")

    restored = run_restore_test(staging, archive, DumpLimits(), now=datetime.now(UTC), foreign="a stranger's").restored

    assert inside(staging, ALL_OF_THE_CLUSTER) == before
    assert restored.differences == ()
    assert any("not started" in note for note in restored.notes)


def test_with_its_word_code_comes_too_and_verification_names_it(stack: Stack, tmp_path: Path) -> None:
    """What ran while it loaded ran without rights."""
    operator = Operator(stack.directory, tmp_path)
    before = outside(stack)
    for statement in CODE:
        stack.psql(statement)
    dump = dumped(stack, "pg_dump")
    stack.psql("DROP TABLE public.bait")
    stack.psql("DROP FUNCTION public.evil()")
    archive = archive_of(stack, tmp_path, dump.replace(END, PASSED_OVER.encode() + b"\n\n" + END))

    verdict = operator.run("verify", str(archive))
    assert verdict.code == 0, verdict.value
    assert "function public.evil()" in " ".join(verdict.value["notes"])
    operator.must("restore", str(archive), "--yes", "--foreign", "--with-code")
    stack.wait_app()
    owners = stack.psql("SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384 AND relkind = 'r'")
    assert owners == [(stack.user,)]
    operator.must("rollback", "--yes")
    operator.must("commit", "--yes")
    assert outside(stack) == before
