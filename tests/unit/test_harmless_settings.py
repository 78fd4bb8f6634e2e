"""Staging's application gets of production's settings what can hold no secret, whatever the settings are called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.stack.certificates import public_certificates
from tasks.core.stack.harmless_settings import harmless, staging_environment, staging_settings_file
from tests.certificates import certificate

OURS = "Host=postgres;Password=ours"
CANARY = "c4nary-7d1f93ab"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authentication__Password", CANARY),
        ("OAuth__ClientSecret", CANARY),
        ("OAUTH__CLIENTSECRET", CANARY),
        ("Anything__At__All", CANARY),
        ("ConnectionStrings__Redis", f"cache:6379,password={CANARY}"),
        ("CONNECTIONSTRINGS__DEFAULTCONNECTION", f"Host=postgres;Password={CANARY}"),
        ("HTTPS_PROXY", f"http://me:{CANARY}@proxy:3128"),
        ("ASPNETCORE_URLS", f"http://+:5000;https://me:{CANARY}@+:5001"),
        ("ASPNETCORE_Kestrel__Certificates__Default__Password", CANARY),
        ("Smtp__PasswordFile", f"/run/secrets/{CANARY}"),
        ("POSTGRES_PASSWORD_FILE", f"/run/secrets/{CANARY}"),
        ("TZ", CANARY),
        ("LANG", CANARY),
        ("Unlock__Pin", "4711"),
        ("AdminPIN", "4711"),
        ("Numeric", "4711471147114711"),
        ("JAVA_OPTS", f"-Dpassword={CANARY}"),
    ],
)
def test_no_secret_goes_along(name: str, value: str) -> None:
    chosen = staging_environment({name: value}, OURS)

    assert CANARY not in str(chosen)
    assert chosen.get(name) != value
    assert [each for each in chosen.values() if each == OURS] == [OURS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authentication__Enabled", "true"),
        ("MailSync__IntervalMinutes", "15"),
        ("Logging__LogLevel__Default", "Information"),
        ("TZ", "Europe/Berlin"),
        ("LANG", "de_DE.UTF-8"),
        ("ASPNETCORE_URLS", "http://+:5000"),
        ("ASPNETCORE_HTTP_PORTS", "8080"),
        ("ASPNETCORE_ENVIRONMENT", "Production"),
        ("OAuth__RequireToken", "false"),
        ("Empty", ""),
    ],
)
def test_what_can_hold_no_secret_stays(name: str, value: str) -> None:
    assert staging_environment({name: value}, OURS)[name] == value


def test_what_an_application_may_insist_on_has_another_value() -> None:
    """A number stays one: the application reads it as such."""
    secret, lifetime = harmless("Jwt__SigningKey", CANARY), harmless("Jwt__TokenMinutes", "60")

    assert secret not in (None, "", CANARY)
    assert (lifetime or "").isdecimal()


def test_one_connection_string_is_left_and_it_is_stagings() -> None:
    """.NET compares names without case: a twin in other letters led to production's database."""
    twin = "connectionstrings__DefaultConnection"

    assert staging_environment({twin: f"Host=postgres;Password={CANARY}"}, OURS) == {twin: OURS}


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40).map(lambda text: CANARY + text)))
def test_whatever_it_is_called(environment: dict[str, str]) -> None:
    assert CANARY not in "".join(staging_environment(environment, OURS).values())


def test_a_file_of_settings_is_treated_alike() -> None:
    text = f"""{{
        // what .NET allows
        "ConnectionStrings": {{"DefaultConnection": "Host=db;Password={CANARY}", "Cache": "{CANARY}"}},
        "OAuth": {{"ClientSecret": "{CANARY}", "Enabled": true, "Scopes": ["{CANARY}"], "Pin": 4711, "Minutes": 7}},
        "Logging": {{"LogLevel": {{"Default": "Warning"}}}},
    }}"""

    told = staging_settings_file(text, OURS)
    found = json.loads(told)

    assert CANARY not in told
    assert found["ConnectionStrings"] == {"DefaultConnection": OURS}
    assert found["OAuth"]["Enabled"] is True
    assert found["OAuth"]["Minutes"] == 7
    assert found["OAuth"]["Pin"] != 4711
    assert found["Logging"] == {"LogLevel": {"Default": "Warning"}}


@pytest.mark.parametrize("text", ["", "no json", "[]", "[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000])
def test_a_file_that_cannot_be_read_has_the_connection_alone(text: str) -> None:
    assert json.loads(staging_settings_file(text, OURS)) == {"ConnectionStrings": {"DefaultConnection": OURS}}


def test_of_a_file_of_certificates_the_certificates_are_left() -> None:
    pem, der, private = certificate()
    fake = b"-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n"

    assert public_certificates(pem) == pem
    assert public_certificates(der) == der
    assert public_certificates(private + b"# " + CANARY.encode() + b"\n" + pem + fake + pem) == pem + pem
    assert public_certificates(private) == public_certificates(b"") == b""
