"""Host and Origin: which requests were meant for the server, and came from its own pages."""

from __future__ import annotations

import pytest

from tasks.core.errors import UsageError
from tasks.core.policy.own_addresses import asked_at, own_addresses, refusal

HERE = own_addresses("127.0.0.1", 4200, "http://127.0.0.1:4200/api")
PROXIED = own_addresses("0.0.0.0", 4200, "https://Backups.example.org/api")


@pytest.mark.parametrize(
    ("hosts", "origins"),
    [
        (["127.0.0.1:4200"], []),
        (["LOCALHOST:4200"], ["http://localhost:4200"]),
        (["localhost:4200"], ["http://127.0.0.1:4200"]),
    ],
)
def test_own_pages_and_programs_are_answered(hosts: list[str], origins: list[str]) -> None:
    assert refusal(HERE, hosts, origins) is None


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "localhost", "127.0.0.1:4201", "127.0.0.1:4200.evil", "evil:4200", "evil@127.0.0.1:4200", "0.0.0.0:4200", "[::1]:4200", " 127.0.0.1:4200", "2130706433:4200"],
)  # fmt: skip
def test_other_names_are_not(host: str) -> None:
    refused = refusal(HERE, [host], [])
    assert refused is not None
    assert refused.status == 400


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:4200", "127.0.0.1:4200"], ["127.0.0.1:4200", "evil"]])
def test_one_host_is_named(hosts: list[str]) -> None:
    assert refusal(HERE, hosts, []) is not None


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "https://127.0.0.1:4200", "http://127.0.0.1:8000", "http://127.0.0.1", "http://127.0.0.1:4200.evil.example", "file://", "chrome-extension://x"],
)  # fmt: skip
def test_other_pages_are_not(origin: str) -> None:
    refused = refusal(HERE, ["127.0.0.1:4200"], [origin])
    assert refused is not None
    assert refused.status == 403
    assert refusal(HERE, ["127.0.0.1:4200"], ["http://127.0.0.1:4200", origin]) is not None


def test_a_reverse_proxy_gives_a_name() -> None:
    """The proxy may pass its own name on or ask for ours; the page is its."""
    for host in ("backups.example.org", "backups.example.org:443", "127.0.0.1:4200"):
        assert refusal(PROXIED, [host], ["https://backups.example.org"]) is None
    assert refusal(PROXIED, ["backups.example.org"], ["http://backups.example.org"]) is not None
    assert refusal(PROXIED, ["backups.example.org:4200"], []) is not None
    assert refusal(PROXIED, ["0.0.0.0:4200"], []) is not None


def test_a_published_port_is_served_too() -> None:
    """A container listens on one port, and browsers ask for another."""
    published = own_addresses("0.0.0.0", 4200, "http://127.0.0.1:4300/api")
    for host in ("127.0.0.1:4300", "localhost:4300", "127.0.0.1:4200"):
        assert refusal(published, [host], ["http://localhost:4300"]) is None


@pytest.mark.parametrize("address", ["/api", "ftp://a/api", "https://", "http://a:x/api", "backups.example.org"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    with pytest.raises(UsageError, match="PREFECT_UI_API_URL"):
        own_addresses("127.0.0.1", 4200, address)


def test_six_has_brackets() -> None:
    assert asked_at("::1") == "[::1]"
    assert refusal(own_addresses("::1", 4200, None), ["[::1]:4200"], ["http://[::1]:4200"]) is None
