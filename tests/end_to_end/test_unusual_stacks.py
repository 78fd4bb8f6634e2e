"""Stacks that differ from the documented one are backed up, verified and restored all the same, through the command line."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg import sql

from flows.complete_backup import complete_backup
from tasks.adapters.engine.container_files import read_container_file
from tasks.adapters.stack.discovery import discover
from tasks.backup import data_directory
from tasks.core.policy.limits import StagingLimits
from tasks.restore.check_archive import check_backup
from tasks.run.config import config_at
from tasks.run.context import given_configs
from tasks.verification.staging import staging_installation
from tests.certificates import certificate
from tests.cli import Operator
from tests.content import content
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

# One method of each stack stands for all in the suite; `-m "long or not long"` runs the others.
LONG_HOT, LONG_COMPLETE, LONG_ONLINE = (
    pytest.param(method, marks=pytest.mark.long) for method in ("hot", "complete", "online")
)

# PostgreSQL 18's image has its data two directories below the mount; told so, an older one has too.
EIGHTEEN: dict[str, Any] = {
    "data_target": "/var/lib/postgresql",
    "postgres_environment": {"PGDATA": "/var/lib/postgresql/18/docker"},
}

# PostgreSQL's own first user may have no quotes and no dollar signs in its name; the application's may, and so may the database.
OWNER = "Möbius + Söhne; x=y {%}"
OWNER_PASSWORD = "p;a'ss\"w$$ör d=\\{x}%😀"
DATABASE = 'Mail "Archive" – $1; x=y'
READER = "Die 'Leser' = \"alle\" $HOME ü"
READER_PASSWORD = "l;e's\"e$$n = ü"


CERTIFICATE, _, PRIVATE_KEY = certificate()
MOUNTED = {
    "settings, own.json": '{"Sync": {"Minutes": 7, "ClientSecret": "of production"}}',
    "certs/mail.pem": CERTIFICATE.decode(),
    "certs/private/mail.key": PRIVATE_KEY.decode(),
}


def keys(stack: Stack) -> dict[str, str]:
    """Digest the data-protection keys as the application sees them."""
    chunks, _ = stack.container("mailarchive-app").get_archive("/app/DataProtection-Keys")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        for entry in archive:
            if (file := archive.extractfile(entry)) is not None:
                found[entry.name] = hashlib.sha256(file.read()).hexdigest()
    return found


def damage(stack: Stack) -> None:
    """Do what nobody wants to have done."""
    stack.psql('DELETE FROM mail_archiver."EmailAttachments"')
    done = stack.container("mailarchive-app").exec_run(
        ["sh", "-c", "echo '<key/>' >/app/DataProtection-Keys/key-evil.xml"]
    )
    assert done.exit_code == 0


def see_it_come_back(stack: Stack, operator: Operator, method: str) -> None:
    """Back up, verify, damage, restore, find the same; then let go of what was put aside."""
    before, keys_before = content(stack), keys(stack)
    made = operator.must("backup", method)
    verdict = operator.must("verify", made["name"])
    assert (verdict["verdict"], verdict["differences"]) == ("verified", [])
    assert verdict["rows"] > 0

    damage(stack)
    assert content(stack) != before

    operator.must("restore", made["name"], "--yes", "--no-quarantine")
    stack.wait_app()
    assert content(stack) == before
    assert keys(stack) == keys_before
    operator.must("commit", "--yes")


def quoted(value: str) -> str:
    """Write a value of a connection string, in a compose file."""
    return '"' + value.replace('"', '""').replace("$", "$$") + '"'


def let_another_role_in(stack: Stack) -> None:
    """Have the application log in as a role of its own, which may do what the owner may."""
    owner, reader = sql.Identifier(stack.user), sql.Identifier(READER)
    for statement in (
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(reader, sql.Literal(READER_PASSWORD)),
        sql.SQL("GRANT {} TO {}").format(owner, reader),
    ):
        stack.psql(statement.as_string(None))
    file = stack.directory / "docker-compose.yml"
    model = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings = model["services"]["mailarchive-app"]["environment"]
    name = "ConnectionStrings__DefaultConnection"
    settings[:] = [each for each in settings if not each.startswith(name)]
    login = f"Username={quoted(READER)};Password={quoted(READER_PASSWORD)}"
    settings.append(f"{name}=Host=postgres;Database={quoted(stack.database)};{login}")
    for path, text in MOUNTED.items():
        (stack.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (stack.directory / path).write_text(text)
    model["services"]["mailarchive-app"]["volumes"] += [
        "./settings, own.json:/app/own.json:ro",
        "./certs:/app/certs:ro",
    ]
    file.write_text(yaml.safe_dump(model, sort_keys=False, allow_unicode=True), encoding="utf-8")


@pytest.fixture(scope="module")
def odd_names(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack whose every name and password has characters that a shell, a URL or a file format would trip over.

    It has PostgreSQL 18's layout besides, so that the suite sees that one too.
    """
    made = create_stack(
        tmp_path_factory.mktemp("odd names") / "my stack, it's $1",
        user=OWNER, password=OWNER_PASSWORD, database=DATABASE, megabytes=2, start_application=False, **EIGHTEEN,
    )  # fmt: skip
    try:
        let_another_role_in(made)
        made.compose("up", "--detach", "--no-build")
        made.wait_app()
        yield made
    finally:
        made.destroy()


@pytest.mark.parametrize("method", ["hot", LONG_COMPLETE, LONG_ONLINE])
def test_odd_names_make_no_difference(odd_names: Stack, tmp_path: Path, method: str) -> None:
    """User, password, database and directory may have capitals, spaces, quotes, `$`, `=` and letters from elsewhere."""
    operator = Operator(odd_names.directory, tmp_path / "back ups, ü")
    database = operator.run("doctor").value["installation"]["database"]
    assert database == {"name": DATABASE, "user": READER, "superuser": OWNER}

    see_it_come_back(odd_names, operator, method)


def test_staging_has_the_configuration_of_the_backup_without_its_secrets(odd_names: Stack, tmp_path: Path) -> None:
    """What the application mounts is there when it is started for proof: certificates, and what of settings is no secret."""
    operator = Operator(odd_names.directory, tmp_path / "backups")
    operator.must("backup", "hot")
    archive = check_backup(operator.repository, "latest")
    (odd_names.directory / "certs" / "mail.pem").write_text("a newer certificate")

    with staging_installation(discover(odd_names.directory), archive, StagingLimits()) as staging:
        settings, certificates, key = (
            read_container_file(staging.application, f"/app/{name}")
            for name in ("own.json", "certs/mail.pem", "certs/private/mail.key")
        )

    assert settings is not None
    assert json.loads(settings)["Sync"]["Minutes"] == 7
    assert b"of production" not in settings
    assert (certificates, key) == (CERTIFICATE, b"")
    environment = str(staging.application.environment)
    assert READER_PASSWORD not in environment
    assert "secure123!" not in environment


@pytest.fixture(scope="module")
def eighteen(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack in PostgreSQL 18's layout: the mount holds a directory for each major version."""
    made = create_stack(tmp_path_factory.mktemp("eighteen") / "stack", megabytes=2, **EIGHTEEN)
    yield made
    made.destroy()


@pytest.mark.long
@pytest.mark.parametrize("method", ["hot", "complete", "online"])
def test_the_layout_of_postgresql_18(eighteen: Stack, tmp_path: Path, method: str) -> None:
    """The data lies two directories below the mount; a restore leaves it there, and nothing else behind."""
    see_it_come_back(eighteen, Operator(eighteen.directory, tmp_path / "backups"), method)

    version = eighteen.directory / "postgres-data" / "18"
    assert (version / "docker" / "PG_VERSION").is_file()
    assert [path.name for path in version.iterdir()] == ["docker"]


@pytest.mark.long
@pytest.mark.parametrize("method", ["hot", "complete"])
def test_a_fresh_host_gets_the_same_layout(eighteen: Stack, tmp_path: Path, method: str) -> None:
    """The directories above the data are all new, and PostgreSQL may pass through them.

    The compose file lies elsewhere too, named by COMPOSE_FILE: relative paths start there, as for the operator's own Compose.
    """
    home, place = eighteen.directory.parent, tmp_path / "fresh"
    (home / ".env").write_text("COMPOSE_FILE=stack/docker-compose.yml\n")
    operator = Operator(home, tmp_path / "backups")
    before = content(eighteen)
    made = operator.must("backup", method)
    eighteen.compose("stop")  # one machine has each port once
    fresh = Stack(place / "stack", f"{eighteen.project}-fresh", eighteen.app_url)
    try:
        operator.must("restore", made["archive"], "--into", str(place), "--project", fresh.project, "--no-quarantine")
        fresh.wait_app()
        assert content(fresh) == before
        mounted = {mount["Destination"]: mount["Source"] for mount in fresh.container("postgres").attrs["Mounts"]}
        assert mounted["/var/lib/postgresql"] == str(place / "stack" / "postgres-data")
        assert sorted(path.name for path in place.iterdir()) == [".env", "stack"]
    finally:
        fresh.destroy()
        eighteen.compose("start")
        eighteen.wait_app()


@pytest.fixture(scope="module")
def named_volumes(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack that keeps data and keys in named volumes, and its password in `.env`."""
    made = create_stack(
        tmp_path_factory.mktemp("volumes") / "stack", named_volumes=True, password_in_dotenv=True, password="in the dotenv $x", megabytes=2
    )  # fmt: skip
    yield made
    made.destroy()


@pytest.mark.parametrize("method", [LONG_HOT, "complete", LONG_ONLINE])
def test_named_volumes(named_volumes: Stack, tmp_path: Path, method: str) -> None:
    """Data and keys in named volumes are copied, proven and put back into the very same volumes."""
    before = {mount["Name"] for mount in named_volumes.container("postgres").attrs["Mounts"]}

    see_it_come_back(named_volumes, Operator(named_volumes.directory, tmp_path / "backups"), method)

    assert before == {mount["Name"] for mount in named_volumes.container("postgres").attrs["Mounts"]}
    assert not (named_volumes.directory / "postgres-data").exists()


def test_data_that_only_docker_can_read(small_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a user in the group docker who is not root, a complete backup is read through the engine, and is as good."""
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(data_directory, "data_place", lambda _: None)
    config = config_at("stack", small_stack.directory, tmp_path / "backups")

    def running() -> dict[str, tuple[str, str]]:
        return {service: (container, state) for service, (container, state, _) in small_stack.states().items()}

    before = running()

    with given_configs({"stack": config}):
        record = complete_backup.fn("stack")

    assert running() == before
    names = {member.name for member in record.manifest.members}
    assert "postgres-data/global/pg_control" in names
    assert not any(name.endswith("postmaster.pid") for name in names)
    assert Operator(small_stack.directory, config.repository).must("verify", "latest")["verdict"] == "verified"
