"""What belongs to a database itself, as statements and as differences in words."""

from __future__ import annotations

import pytest

from tasks.core.archive.manifest import DatabaseFacts, Grant
from tasks.core.stack.database_attributes import (
    attribute_differences,
    attributes,
    grants_of,
    setting_statements,
    split_names,
)
from tasks.core.stack.session_settings import as_options, generation_of, generations, pinned_settings, program_options


def facts(**more: object) -> DatabaseFacts:
    return DatabaseFacts.model_validate(
        {
            "name": "Mail",
            "owner": "mailuser",
            "encoding": "UTF8",
            "collation": "C",
            "character_type": "C",
            "server_version": "17.2",
            "server_major": 17,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", []),
        ("  ", []),
        ('""', [""]),
        ('"", public', ["", "public"]),
        ('"$user", public', ["$user", "public"]),
        ('mail_archiver, "odd ""path, it\'s", "UPPER"', ["mail_archiver", "odd \"path, it's", "UPPER"]),
        ("Not folded", None),
        ("$libdir/auto_explain,x", ["$libdir/auto_explain", "x"]),
        ('"open', None),
        ("a,", None),
        (",a", None),
        ('"a"b', None),
    ],
)
def test_lists_of_names_are_split_as_postgresql_splits_them(value: str, names: list[str] | None) -> None:
    """SplitGUCList (src/backend/utils/adt/varlena.c), as pg_dump uses it."""
    assert split_names(value) == names


@pytest.mark.parametrize(
    ("setting", "value", "statements"),
    [
        ("work_mem", "64MB", ("ALTER DATABASE d SET \"work_mem\" TO '64MB'",)),
        ("app.tenant", 'it\'s \\ "x"', ("ALTER DATABASE d SET \"app.tenant\" TO 'it''s \\ \"x\"'",)),
        ("search_path", '""', ("ALTER DATABASE d SET \"search_path\" TO ''",)),
        ("temp_tablespaces", '"Ts two", ts_one', ("ALTER DATABASE d SET \"temp_tablespaces\" TO 'Ts two', 'ts_one'",)),
        (
            "search_path",
            "",
            (
                "SELECT pg_catalog.set_config('search_path', '', true)",
                'ALTER DATABASE d SET "search_path" FROM CURRENT',
            ),
        ),
    ],
)
def test_settings_are_written_so_that_the_same_value_is_kept(
    setting: str, value: str, statements: tuple[str, ...]
) -> None:
    assert setting_statements("DATABASE d", setting, value) == statements


def test_grants_keep_their_order_and_who_granted_them() -> None:
    given = facts(
        grants=[
            Grant(grantor="mailuser", grantee="reader", privilege="CONNECT", grantable=True),
            Grant(grantor="reader", grantee="second", privilege="CONNECT"),
            Grant(grantor="mailuser", grantee="", privilege="TEMPORARY"),
            Grant(grantor="mailuser", grantee="gone", privilege="CREATE"),
        ]
    )

    (grants,) = attributes(given, "New", owner="mailuser", roles=["mailuser", "reader", "second"])

    assert grants.statements == (
        'REVOKE ALL ON DATABASE "New" FROM PUBLIC',
        'REVOKE ALL ON DATABASE "New" FROM "mailuser"',
        'GRANT CONNECT ON DATABASE "New" TO "reader" WITH GRANT OPTION',
        'SET LOCAL SESSION AUTHORIZATION "reader"',
        'GRANT CONNECT ON DATABASE "New" TO "second"',
        "SET LOCAL SESSION AUTHORIZATION DEFAULT",
        'GRANT TEMPORARY ON DATABASE "New" TO PUBLIC',
    )


def test_manifests_of_before_are_understood() -> None:
    old = facts(privileges=["PUBLIC CONNECT", "mailuser CREATE"])

    assert grants_of(old) == [
        Grant(grantor="mailuser", grantee="", privilege="CONNECT"),
        Grant(grantor="mailuser", grantee="mailuser", privilege="CREATE"),
    ]
    assert grants_of(facts()) is None
    assert attribute_differences(old, facts(privileges=["PUBLIC CONNECT", "mailuser CREATE"], grants=[])) == []
    assert old.invalid_indexes is None


def test_differences_are_told_in_words() -> None:
    before = facts(settings={"": ["work_mem=1MB"], "reader": ["search_path=a"]}, connection_limit=5, grants=[])
    after = facts(settings={"": ["work_mem=2MB"]}, tablespace="fast")

    words = "; ".join(attribute_differences(before, after))

    for expected in (
        "work_mem is '2MB', it was '1MB'",
        "search_path of reader is none",
        "limit is -1, it was 5",
        "tablespace",
        "grants",
    ):
        assert expected in words
    assert attribute_differences(before, before) == []


def test_sessions_pin_what_their_server_knows() -> None:
    """An older server would refuse the connection for an option it does not know, a plain user's for one that is a superuser's."""
    assert "transaction_timeout" not in pinned_settings(16)
    assert pinned_settings(18)["event_triggers"] == "off"
    assert "idle_session_timeout" not in pinned_settings(13)
    plain = pinned_settings(17, superuser=False)
    assert not {"event_triggers", "session_replication_role", "temp_file_limit"} & plain.keys()
    assert plain["transaction_timeout"] == "0"
    assert (generations(None), generations(16), generation_of(17)) == ([17, 14, 0], [14, 0], 17)
    assert as_options({"a": "b c\\"}) == "-c a=b\\ c\\\\"
    assert "preload" not in program_options(17)
