"""PostgreSQL's own regression database goes round in both formats: nearly every kind of object that a dump can hold, in one database.

    MAILARCHIVER_BACKUP_POSTGRES_SOURCE=/path/to/postgresql-17.2 python -m tests.campaigns.regression [--keep] [--only NAME ...]

The variable names a source tree of PostgreSQL; its src/test/regress/sql files are read when this runs, and nothing of
them is kept. They are run in the database of a stack as far as they go: what needs a library or data file that is not
there fails, and the rest goes on. Then the database must be `verified` in both formats, and once restored hold what
PostgreSQL's own `pg_dump | psql` makes of it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tests.cli import Operator
from tests.content import content
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

VARIABLE = "MAILARCHIVER_BACKUP_POSTGRES_SOURCE"
DATABASE = "regression"
REFERENCE = "reference"
INSIDE = "/tmp/regress"
FILE_SECONDS = 120
OPTIONS = "-c statement_timeout=30s -c lock_timeout=10s -c intervalstyle=postgres_verbose -c client_min_messages=error"
FORMATS = ("guide", "fast")
# Where the tree has no schedule: what others build on, in the order of PostgreSQL's own; the rest follows by name.
FIRST = (
    "test_setup", "copy", "copyselect", "copydml", "insert", "insert_conflict", "create_function_c", "create_misc", "create_operator",
    "create_procedure", "create_table", "create_type", "create_schema", "create_index", "create_index_spgist", "create_view",
    "index_including", "index_including_gist", "create_aggregate", "create_function_sql", "create_cast", "constraints", "triggers",
    "select", "inherit", "typed_table", "vacuum", "drop_if_exists", "updatable_views", "roleattributes", "create_am", "hash_func",
)  # fmt: skip
# Rows for the tables that others read, where the tree has no data files.
ROWS = """
INSERT INTO onek SELECT n, (n * 7) % 1000, n % 2, n % 4, n % 10, n % 20, n % 100, n % 1000, n % 2000, n % 5000, n % 10000,
  n % 100 * 2 + 1, n % 100 * 2, 'A' || n, 'B' || n, (ARRAY['AAAAxx', 'HHHHxx', 'OOOOxx', 'VVVVxx'])[n % 4 + 1]
  FROM generate_series(0, 999) n WHERE NOT EXISTS (SELECT FROM onek);
INSERT INTO onek2 SELECT * FROM onek WHERE NOT EXISTS (SELECT FROM onek2);
INSERT INTO tenk1 SELECT n, (n * 7) % 10000, n % 2, n % 4, n % 10, n % 20, n % 100, n % 1000, n % 2000, n % 5000, n % 10000,
  n % 100 * 2 + 1, n % 100 * 2, 'A' || n, 'B' || n, (ARRAY['AAAAxx', 'HHHHxx', 'OOOOxx', 'VVVVxx'])[n % 4 + 1]
  FROM generate_series(0, 9999) n WHERE NOT EXISTS (SELECT FROM tenk1);
INSERT INTO tenk2 SELECT * FROM tenk1 WHERE NOT EXISTS (SELECT FROM tenk2);
INSERT INTO person SELECT 'person ' || n, n, point(n, -n) FROM generate_series(1, 50) n WHERE NOT EXISTS (SELECT FROM ONLY person);
INSERT INTO emp SELECT 'emp ' || n, n, point(n, n), n * 100, 'person 1' FROM generate_series(1, 3) n WHERE NOT EXISTS (SELECT FROM ONLY emp);
INSERT INTO student SELECT 'student ' || n, n, point(n, 0), n FROM generate_series(1, 2) n WHERE NOT EXISTS (SELECT FROM ONLY student);
INSERT INTO stud_emp SELECT 'stud_emp ' || n, n, point(0, n), n * 10, 'person 2', n, n FROM generate_series(1, 3) n
  WHERE NOT EXISTS (SELECT FROM stud_emp);
INSERT INTO road SELECT 'road ' || n, ('[(' || n || ',0),(1,' || n || ')]')::path FROM generate_series(1, 500) n WHERE NOT EXISTS (SELECT FROM ONLY road);
"""


def regression_files(source: Path) -> list[Path]:
    """List the SQL files of a source tree in the order in which they are to be run."""
    place = source / "src" / "test" / "regress"
    found = {path.stem: path for path in sorted((place / "sql").glob("*.sql"))}
    if not found:
        raise SystemExit(f"{VARIABLE}: {place / 'sql'} holds no SQL files")
    schedule = place / "parallel_schedule"
    if schedule.exists():
        names = [
            name for line in re.findall(r"^test:(.*)$", schedule.read_text(), re.MULTILINE) for name in line.split()
        ]
    else:
        names = [*FIRST, *found]
    return [found[name] for name in dict.fromkeys(names) if name in found]


def in_container(
    stack: Stack, command: list[str], *, stdin: bytes | None = None, check: bool = True, user: str = "postgres"
) -> str:
    """Run a program in PostgreSQL's container; return what it says."""
    variables = {
        "PGUSER": stack.user, "PGDATABASE": DATABASE, "PGTZ": "PST8PDT", "PGDATESTYLE": "Postgres, MDY", "PGOPTIONS": OPTIONS,
        "PG_ABS_SRCDIR": INSIDE, "PG_ABS_BUILDDIR": INSIDE, "PG_LIBDIR": INSIDE, "PG_DLSUFFIX": ".so",
    }  # fmt: skip
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    done = subprocess.run(
        ["docker", "exec", "-i", "--user", user, *given, str(stack.container("postgres").id), *command],
        input=stdin or b"", capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode(errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)[:200]}: {said[-3000:]}")
    return said


def fill(stack: Stack, source: Path, only: list[str]) -> None:
    """Run the regression files in the stack's database, each as far as it goes."""
    regress = source / "src" / "test" / "regress"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("sql", "data"):
            if (regress / name).exists():
                tar.add(regress / name, arcname=name)
    in_container(
        stack,
        ["sh", "-c", f"mkdir -p {INSIDE}/results {INSIDE}/testtablespace && tar -xf - -C {INSIDE}"],
        stdin=packed.getvalue(),
    )
    for path in regression_files(source):
        if only and path.stem not in ("test_setup", *only):
            continue
        begun = time.monotonic()
        said = in_container(
            stack,
            ["timeout", str(FILE_SECONDS), "psql", "-X", "-q", "-o", "/dev/null", "-f", f"{INSIDE}/sql/{path.name}"],
            check=False,
        )
        if path.stem == "test_setup":
            in_container(stack, ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"], stdin=ROWS.encode())
        print(f"{path.stem}: {time.monotonic() - begun:.1f} s, {said.count('ERROR:')} errors", flush=True)


def reference(stack: Stack) -> dict[str, str]:
    """Give what PostgreSQL's own programs make of the database."""
    stack.psql(f"DROP DATABASE IF EXISTS {REFERENCE}", database="postgres")
    stack.psql(f"CREATE DATABASE {REFERENCE} TEMPLATE template0", database="postgres")
    in_container(
        stack,
        [
            "bash",
            "-c",
            f"set -o pipefail; unset PGOPTIONS PGDATESTYLE PGTZ; pg_dump | psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d {REFERENCE}",
        ],
    )
    return content(stack, REFERENCE)


def goes_round(stack: Stack, operator: Operator, archive_format: str, expected: dict[str, str]) -> list[str]:
    """Back up, verify and restore in one format; return in words what is not as it has to be."""
    begun = time.monotonic()
    made = operator.must("backup", "hot", "--format", archive_format)
    answer = operator.run("verify", made["name"], timeout_seconds=900)
    print(f"{archive_format}: {answer.value} after {time.monotonic() - begun:.0f} s", flush=True)
    if answer.code != 0 or answer.value["verdict"] != "verified":
        return [f"{archive_format}: {words}" for words in answer.value.get("differences", [answer.value])]
    operator.must("restore", made["name"], "--yes", "--no-quarantine")
    stack.wait_app()
    found = content(stack)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    operator.must("rollback", "--yes")
    operator.must("commit", "--yes")
    print(
        f"{archive_format}: {len(found)} tables and kinds of objects compared with pg_dump | psql, {len(wrong)} differ",
        flush=True,
    )
    return [f"{archive_format}: {name} is {found.get(name)}, by psql it is {expected.get(name)}" for name in wrong]


def main() -> None:
    """Run the campaign; exit with 1 where something is not as it has to be."""
    parser = argparse.ArgumentParser(description="Take PostgreSQL's own regression database round.")
    parser.add_argument("--keep", action="store_true", help="leave the stack for a look")
    parser.add_argument(
        "--only", action="append", default=[], help="run this regression file alone (after test_setup); may be repeated"
    )
    options = parser.parse_args()
    if not os.environ.get(VARIABLE):
        raise SystemExit(f"{VARIABLE} must name a source tree of PostgreSQL (with src/test/regress/sql)")
    source = Path(os.environ[VARIABLE])
    ensure_images()
    place = Path(tempfile.mkdtemp(prefix="mailarchiver-backup-regression-"))
    os.environ["MAILARCHIVER_BACKUP_STATE"] = str(place / "state")
    (place / "state").mkdir(mode=0o700)
    stack = create_stack(place / "stack", megabytes=1, database=DATABASE, extras=False)
    try:
        fill(stack, source, options.only)
        expected = reference(stack)
        operator = Operator(stack.directory, place / "backups")
        wrong = [words for each in FORMATS for words in goes_round(stack, operator, each, expected)]
    finally:
        if options.keep:
            print(f"the stack {stack.project} stays in {stack.directory}")
        else:
            stack.destroy()
    for words in wrong:
        print(words)
    print("verified in both formats" if not wrong else f"{len(wrong)} differences")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
