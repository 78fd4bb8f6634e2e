"""What is what in a compose project is decided from facts, and an ambiguity is refused by name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.layout import OUTSIDE, RESERVED_NAMES
from tasks.core.errors import NoMailArchiver, Refused
from tasks.core.stack.connection_string import ConnectionString
from tasks.core.stack.identify import (
    Candidate,
    application_port_of,
    archive_names,
    choose_application,
    choose_postgres,
    connection_in_settings,
    connection_setting,
    is_anonymous,
    is_configuration_mount,
    is_postgres,
    keys_mount_of,
    mount_holding,
    pgdata_of,
    start_order,
)
from tasks.core.stack.installation import Mount

SETTING = {"ConnectionStrings__DefaultConnection": "Host=postgres"}


def candidate(name: str, image: str, *, hosts: tuple[str, ...] = (), **facts: Any) -> Candidate:
    """Make a service that answers to its name."""
    return Candidate(name, image, frozenset({name, *hosts}), facts.get("environment", {}), facts.get("mounts", ()))


def bind(target: str, source: str = "/srv/x") -> Mount:
    """Make a bind mount."""
    return Mount("bind", source, target, Path(source))


APP = candidate("app", "s1t5/mailarchiver:2608.1", environment=SETTING)
DB = candidate("postgres", "postgres:17")


@pytest.mark.parametrize(
    "application",
    [
        candidate("a", "s1t5/mailarchiver"),
        candidate("a", "ghcr.io/me/Mail-Archive_r:1"),
        candidate("a", "sha256:0123", mounts=(bind("/app/DataProtection-Keys"),)),
        candidate("a", "made/here", mounts=(bind("/keys/dataprotection-keys"),)),
        candidate("a", "made/here", environment={"CONNECTIONSTRINGS__DEFAULTCONNECTION": "Host=db"}),
    ],
)
def test_the_application_is_known_by_image_keys_or_setting(application: Candidate) -> None:
    """Whatever else runs beside it, databases and their helpers included."""
    others = [
        DB, candidate("exporter", "prometheuscommunity/postgres-exporter", environment={"PGDATA": "/x"}),
        candidate("backup", "me/mailarchiver-backup:1"), candidate("redis", "redis:7"),
    ]  # fmt: skip

    assert choose_application([*others, application], project="mail") == application


def test_of_two_that_look_alike_the_one_with_the_setting_is_it() -> None:
    """Two with it are two, none is none; both are named."""
    twin = candidate("old", "s1t5/mailarchiver:2501.1")

    assert choose_application([twin, APP, DB], project="mail") == APP
    with pytest.raises(Refused, match="more than one Mail Archiver: app, old"):
        choose_application([APP, candidate("old", "s1t5/mailarchiver:1", environment=SETTING)], project="mail")
    with pytest.raises(NoMailArchiver, match=r"no service of project mail is a Mail Archiver \(it has: postgres\)"):
        choose_application([DB], project="mail")
    with pytest.raises(NoMailArchiver, match="it has: nothing"):
        choose_application([], project="mail")


@pytest.mark.parametrize(
    ("host", "chosen"),
    [
        ("postgres", "postgres"),
        ("POSTGRES", "postgres"),
        ("other", "other"),
        ("172.18.0.5", "other"),
        ("db.internal", "other"),
    ],
)
def test_the_connection_string_decides_between_servers(host: str, chosen: str) -> None:
    """By the service's name, an alias or an address, in whatever case."""
    other = candidate("other", "postgres:15", hosts=("172.18.0.5", "db.internal"))

    assert choose_postgres([APP, DB, other], APP, ConnectionString(host), project="mail").name == chosen


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "::1", "/var/run/postgresql"])
def test_without_a_telling_host_the_only_server_is_it(host: str) -> None:
    """And between two nothing is guessed."""
    assert choose_postgres([APP, DB], APP, ConnectionString(host), project="mail") == DB
    assert choose_postgres([APP, DB], APP, None, project="mail") == DB
    two = [APP, DB, candidate("other", "postgres:15")]
    with pytest.raises(Refused):
        choose_postgres(two, APP, ConnectionString(host), project="mail")


def test_a_database_elsewhere_is_refused_by_its_name() -> None:
    """Backing up another database than the application's would be worse than none."""
    with pytest.raises(
        Refused, match=r"'db\.example\.org', which is no service of the project \(PostgreSQL there: postgres\)"
    ):
        choose_postgres([APP, DB], APP, ConnectionString("db.example.org"), project="mail")
    with pytest.raises(Refused, match="is a PostgreSQL server"):
        choose_postgres([APP, candidate("redis", "redis")], APP, None, project="mail")
    with pytest.raises(Refused, match="more than one PostgreSQL server, other, postgres"):
        choose_postgres([APP, DB, candidate("other", "postgres:15")], APP, None, project="mail")


@pytest.mark.parametrize(
    ("image", "environment", "is_server"),
    [
        ("postgres:17-alpine", {}, True),
        ("registry.example:5000/pgvector/pgvector:pg17", {}, True),
        ("timescale/timescaledb:latest-pg17", {}, True),
        ("me/database:1", {"PG_MAJOR": "17"}, True),
        ("sha256:0123", {"PGDATA": "/var/lib/postgresql/data"}, True),
        ("edoburu/pgbouncer", {}, False),
        ("prometheuscommunity/postgres-exporter:v1", {"PG_MAJOR": "17"}, False),
        ("mysql:8", {}, False),
    ],
)
def test_what_is_a_postgresql_server(image: str, environment: dict[str, str], is_server: bool) -> None:
    """Its kin and home-made images are; what merely speaks to one is not."""
    assert is_postgres(candidate("x", image, environment=environment)) is is_server


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (SETTING, "Host=postgres"),
        ({"connectionstrings:DefaultConnection": "Host=a"}, "Host=a"),
        ({"ConnectionStrings__DefaultConnection": " "}, None),
        ({"ConnectionStrings__Other": "Host=a"}, None),
        ({}, None),
    ],
)
def test_the_connection_string_of_an_environment(environment: dict[str, str], found: str | None) -> None:
    """.NET takes the name without case, with either separator."""
    assert connection_setting(environment) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"ConnectionStrings": {"DefaultConnection": "Host=a"}}', "Host=a"),
        ('\ufeff{"connectionstrings": {"DEFAULTCONNECTION": "Host=a",},}', "Host=a"),
        ('{/* x */ "ConnectionStrings": {"DefaultConnection": "Host=a//b" // c\n, } // d\n}', "Host=a//b"),
        ('{"ConnectionStrings": {"DefaultConnection": "Password=\\"/*,}\\""}}', 'Password="/*,}"'),
        ('{"ConnectionStrings": {"DefaultConnection": ""}}', None),
        ('{"ConnectionStrings": {"DefaultConnection": 5}}', None),
        ('{"ConnectionStrings": []}', None),
        ("[]", None),
        ("{}", None),
    ],
)
def test_the_connection_string_of_a_settings_file(text: str, found: str | None) -> None:
    """Comments and trailing commas are the application's to allow; strings stay as they are."""
    assert connection_in_settings(text, source="appsettings.json") == found


@pytest.mark.parametrize("text", ["", "{", "canary: x", '{"a": "canary}'])
def test_a_settings_file_that_is_none_is_refused_unseen(text: str) -> None:
    """The message names the file and shows nothing of it."""
    with pytest.raises(Refused, match=r"^appsettings\.json is not readable JSON") as caught:
        connection_in_settings(text, source="appsettings.json")
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "image", "targets", "pgdata"),
    [
        ({}, "postgres:17", [], "/var/lib/postgresql/data"),
        ({"PGDATA": "/data/pg/"}, "postgres:18", [], "/data/pg"),
        ({}, "postgres:18-alpine", ["/var/lib/postgresql"], "/var/lib/postgresql/18/docker"),
        ({}, "registry.example:5000/postgres", [], "/var/lib/postgresql/data"),
        ({}, "postgres:18@sha256:0123", ["/var/lib/postgresql/data"], "/var/lib/postgresql/data"),
        ({}, "postgres@sha256:99", [], "/var/lib/postgresql/data"),
        ({}, "postgres:latest", [], "/var/lib/postgresql/data"),
    ],
)
def test_where_the_data_lies(environment: dict[str, str], image: str, targets: list[str], pgdata: str) -> None:
    """PostgreSQL 18's image moved it; a port or a digest is no version."""
    assert pgdata_of(environment, image, [bind(target) for target in targets]) == pgdata


def test_the_innermost_mount_holds_a_path() -> None:
    """A name that merely begins alike is another place."""
    outer, inner, beside = bind("/var/lib"), bind("/var/lib/postgresql"), bind("/var/lib/postgresql/data2")

    assert mount_holding("/var/lib/postgresql/data", [outer, inner, beside]) == inner
    assert mount_holding("/var/lib/postgresql", [outer, inner]) == inner
    assert mount_holding("/var/lib64", [outer]) is None
    assert mount_holding("/a", []) is None


def test_the_mount_of_the_keys() -> None:
    """At their usual place, around it, or of their name elsewhere, in this order."""
    usual, around, elsewhere = bind("/app/DataProtection-Keys"), bind("/app"), bind("/keys/dataprotection-keys")

    assert keys_mount_of([elsewhere, around, usual]) == usual
    assert keys_mount_of([elsewhere, around]) == around
    assert keys_mount_of([bind("/logs"), elsewhere]) == elsewhere
    assert keys_mount_of([bind("/logs")]) is None


def test_volumes_that_nobody_named() -> None:
    """They go with `docker compose down -v`; a named one and a directory stay."""
    assert is_anonymous(Mount("volume", "", "/a", None))
    assert is_anonymous(Mount("volume", "0123456789abcdef" * 4, "/a", None))
    assert not is_anonymous(Mount("volume", "mail_data", "/a", None))
    assert not is_anonymous(bind("/a", "/" + "0123456789abcdef" * 4))


@pytest.mark.parametrize(
    ("environment", "published", "port"),
    [
        ({}, [], 5000),
        ({"ASPNETCORE_URLS": "http://+:8081"}, [5000], 8081),
        ({"aspnetcore_urls": "https://+:443; http://[::]:8082/x"}, [], 8082),
        ({"ASPNETCORE_URLS": "http://+"}, [9000], 9000),
        ({"ASPNETCORE_HTTP_PORTS": "8080"}, [5000], 5000),
        ({"ASPNETCORE_HTTP_PORTS": "8080;8090"}, [], 8080),
        ({"ASPNETCORE_HTTP_PORTS": "8080"}, [5000, 5001], 5000),
        ({"ASPNETCORE_HTTP_PORTS": "8080"}, [7000, 7001], 8080),
        ({"ASPNETCORE_HTTP_PORTS": "none, ²"}, [], 5000),
    ],
)
def test_the_port_of_the_application(environment: dict[str, str], published: list[int], port: int) -> None:
    """What its settings say, else the one that is published, else the guide's."""
    assert application_port_of(environment, published) == port


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefz"), max_size=3)))
def test_services_start_after_what_they_need(depends_on: dict[str, list[str]]) -> None:
    """Each stands in the order once, circles and unknown names notwithstanding."""
    ordered = start_order(depends_on)

    assert sorted(ordered) == sorted(depends_on)
    acyclic = {name: [need for need in needs if need < name] for name, needs in depends_on.items()}
    ordered = start_order(acyclic)
    for name, needs in acyclic.items():
        assert all(ordered.index(need) < ordered.index(name) for need in needs if need in acyclic)


@pytest.mark.parametrize(
    ("mount", "is_file", "is_configuration"),
    [
        (bind("/app/appsettings.json"), True, True),
        (bind("/etc/app"), False, True),
        (bind("/run/secrets/password"), True, True),
        (bind("/var/lib/postgresql/data"), False, False),
        (bind("/var/lib/postgresql"), False, False),
        (bind("/var/lib/postgresql/data/postgresql.conf"), True, True),
        (bind("/var/lib/postgresql/data/sub"), False, False),
        (bind("/app/Logs"), False, False),
        (bind("/backups"), False, False),
        (bind("/var/run/docker.sock"), True, False),
        (bind("/etc/localtime"), True, False),
        (bind("/proc/1"), False, False),
        (bind("/host", "/"), False, False),
        (Mount("volume", "x", "/etc/app", None), False, False),
        (Mount("tmpfs", "", "/etc/app", None), False, False),
    ],
)
def test_mounts_that_hold_configuration(mount: Mount, is_file: bool, is_configuration: bool) -> None:
    """Neither data nor logs nor the system's own places; never the whole machine."""
    assert is_configuration_mount(mount, data=["/var/lib/postgresql/data"], is_file=is_file) is is_configuration


PARTS = st.text(min_size=1, max_size=8).map(lambda text: text.replace("/", "").replace("\0", "")).filter(bool)
NAMES = st.one_of(PARTS, st.sampled_from([*sorted(RESERVED_NAMES), "..", "A", "a", "a.2", "\udcff", "a\n", "a_"]))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: Path("/", *parts))


@settings(max_examples=300, deadline=None)
@given(st.lists(PATHS.filter(lambda path: path not in (Path("/srv"), Path("/"))), max_size=8), st.booleans())
def test_names_in_an_archive_are_unique_and_climb_nowhere(paths: list[Path], inside: bool) -> None:
    """P10 from the writing side: relative, plain, beside nothing that the archive uses itself, different even without case."""
    if inside:
        paths = [Path("/srv") / path.relative_to("/") for path in paths]

    names = archive_names(paths, Path("/srv"))

    assert list(names) == list(dict.fromkeys(paths))
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        parts = PurePosixPath(name).parts
        assert parts
        assert not {"/", ".."} & set(parts)
        assert parts[0] == OUTSIDE or parts[0].casefold() not in RESERVED_NAMES
        assert name.isprintable() or all(ord(letter) >= 0x20 and ord(letter) != 0x7F for letter in name)
        assert name.encode()


def test_ordinary_names_stay_as_they_are() -> None:
    """What lies in the directory keeps its name; the rest says where it was."""
    paths = [
        Path(path)
        for path in ("/srv/mail/.env", "/srv/mail/conf/app.env", "/etc/mail/app.env", "/srv/mail/database.sql")
    ]

    assert list(archive_names(paths, Path("/srv/mail")).values()) == [
        ".env",
        "conf/app.env",
        "outside/etc/mail/app.env",
        "outside/srv/mail/database.sql",
    ]
