"""The difference of two configurations is shown (P11), the secrets in it are not (P12)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.stack.config_diff import configuration_diff, mask_secrets

CANARY = "canary"


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_PASSWORD={}",
        "POSTGRES_PASSWORD = '{}'",
        "export SMTP_PASSWD={}",
        "      POSTGRES_PASSWORD: {}",
        '      - POSTGRES_PASSWORD="{}"',
        '"Password": "{}",',
        "ConnectionStrings__DefaultConnection=Host=postgres;Database=m;Username=u;Password={};Timeout=30",
        "ConnectionStrings__DefaultConnection=Host=postgres;Pwd={}",
        "OAuth__ClientSecret={}",
        "OAuth__ClientId={}",
        "API_KEY={}",
        "ApiKey: {}",
        "access_token={}",
        "GPG_PASSPHRASE={}",
        "S3_ACCESS_KEY={}",
        "PrivateKey={}",
        "POSTGRES_PASSWORD:\n  {}",
        "POSTGRES_PASSWORD: |\n  {}",
        "POSTGRES_PASSWORD: >-\n        {}",
    ],
)
@pytest.mark.parametrize("value", [CANARY, f"{CANARY};{CANARY}", f"a {CANARY}", f"a#{CANARY}", f"a={CANARY}"])
def test_no_secret_is_shown_however_it_is_written(line: str, value: str) -> None:
    """In `.env`, YAML, JSON, a connection string or an address; with whatever characters a password has."""
    text = f"# mine\n{line.format(value)}\nafter=all\n"

    assert CANARY not in mask_secrets(text)
    assert "<secret " in mask_secrets(text)
    assert CANARY not in configuration_diff(".env", None, text)
    assert mask_secrets(text).startswith("# mine\n")
    assert mask_secrets(text).endswith("\nafter=all\n")


@pytest.mark.parametrize("value", [CANARY, f"a;{CANARY}", f"a@{CANARY}", f"a:{CANARY}", f"%20{CANARY}"])
def test_no_password_in_an_address_is_shown(value: str) -> None:
    """Databases and mail servers are named so; everything else of the address stays readable."""
    shown = mask_secrets(f"DATABASE_URL=postgres://mailuser:{value}@postgres:5432/MailArchiver")

    assert CANARY not in shown
    assert shown.startswith("DATABASE_URL=postgres://mailuser:<secret ")
    assert shown.endswith("@postgres:5432/MailArchiver")


def test_what_follows_a_secret_is_shown() -> None:
    """Nobody hides another host behind a password, and a section named like a secret keeps its settings."""
    text = 'a: {"Password": "x", "Host": "elsewhere"}\nb: Host=one;Password=x;Host=two\nsecrets:\n  file: ./three\n'

    shown = mask_secrets(text)

    assert [word in shown for word in ("elsewhere", "Host=one", "Host=two", "./three")] == [True] * 4


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["a", "password", "password=", "password: |\n ", "://:", "; ", '"', "a: \n "])
def test_a_strangers_long_file_takes_no_long_time(piece: str) -> None:
    """The archive may have been made by anybody."""
    assert mask_secrets(piece * 30_000)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20))
def test_any_password_is_hidden(password: str) -> None:
    """A long enough word to be looked for, beside whatever characters."""
    text = f"POSTGRES_PASSWORD={password}{CANARY}\nPOSTGRES_DB=x\n"

    assert CANARY not in mask_secrets(text)
    assert mask_secrets(text).endswith("\nPOSTGRES_DB=x\n")


def test_a_changed_secret_is_seen_to_have_changed() -> None:
    """Fingerprints tell equal from different, whatever quotes stand around the value."""
    before = "POSTGRES_PASSWORD=one\nTZ=UTC\n"

    shown = configuration_diff(".env", before, "POSTGRES_PASSWORD=two\nTZ=UTC\n").splitlines()
    assert shown[:2] == ["--- current/.env", "+++ archive/.env"]
    assert [line[:30] for line in shown if line.startswith(("-P", "+P"))] == [
        "-POSTGRES_PASSWORD=<secret " + mask_secrets("password=one")[17:20],
        "+POSTGRES_PASSWORD=<secret " + mask_secrets("password=two")[17:20],
    ]
    requoted = configuration_diff(".env", before, "POSTGRES_PASSWORD='one'\nTZ=Mars\n")
    assert "-TZ=UTC" in requoted
    assert "-POSTGRES_PASSWORD" not in requoted


def test_equal_files_have_no_difference_and_a_missing_one_is_called_so() -> None:
    """Nothing to show is the empty text."""
    assert configuration_diff("compose.yml", "a: 1\n", "a: 1\n") == ""
    shown = configuration_diff("compose.yml", None, "a: 1\n")
    assert shown.splitlines()[0] == "--- current/(missing)"
    assert "+a: 1" in shown


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_USER=mailuser",
        "image: registry.example:5000/mailarchiver:2608.1",
        "url: https://mail.example.org/path@home",
        "      - ./keys:/app/DataProtection-Keys",
        "ConnectionStrings__DefaultConnection=Host=postgres;Database=MailArchiver",
    ],
)
def test_what_is_no_secret_stays_readable(line: str) -> None:
    """A diff of nothing but fingerprints would not be read."""
    assert mask_secrets(line) == line
