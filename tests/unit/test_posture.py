"""What makes a bad day worse is named, each with why and what to do; what is well is not, and no password is repeated."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.policy.mail_at_risk import MailOnServers, ServerDeletion
from tasks.core.policy.posture import PostureSeen, Weakness, is_loopback, not_accepted, weaknesses
from tasks.core.policy.settings import RiskKind
from tasks.core.report.posture import posture_lines, posture_report, posture_told
from tasks.core.stack.diagnosis import default_passwords
from tasks.core.stack.installation import Database
from tests.unit.values import NOW, installation, service

WELL: dict[str, Any] = {
    "encrypted": True,
    "off_site": [("away", True)],
    "listening": ["127.0.0.1:4200", "[::1]:4200"],
    "prefect_addresses": ["http://127.0.0.1:4200/api", "https://backups.example.org/api"],
    "mail": MailOnServers(ServerDeletion(30, 1, NOW), NOW - timedelta(hours=5), NOW),
}  # fmt: skip


def found_in(**changes: Any) -> list[Weakness]:
    """Judge an installation that has only this wrong."""
    return list(weaknesses(PostureSeen(**(WELL | changes))))


def test_a_good_posture_has_no_weakness() -> None:
    assert found_in() == []
    assert found_in(mail=None) == []


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"encrypted": False}, "unencrypted", "not encrypted"),
        ({"off_site": []}, "no_off_site_copy", "no target of `copies` is marked off_site"),
        ({"off_site": [("away", False)]}, "no_off_site_copy", "no copy is at away yet"),
        ({"off_site": [("a", False), ("b", False)]}, "no_off_site_copy", "no copy is at a, b yet"),
        ({"wipeable": ["b", "a"]}, "unlocked_target", "copies at b, a"),
        ({"key_files": [Path("/backups/key.txt")]}, "key_beside_backups", "/backups/key.txt"),
        ({"default_passwords": ["POSTGRES_PASSWORD"]}, "default_password", "POSTGRES_PASSWORD"),
        ({"readable": [Path("/srv/mail/.env")]}, "readable_by_others", "/srv/mail/.env"),
        ({"listening": ["0.0.0.0:4200"]}, "prefect_without_tls", "listens at 0.0.0.0:4200"),
        ({"listening": ["[::]:4200"]}, "prefect_without_tls", "listens at [::]:4200"),
        ({"prefect_addresses": ["http://10.0.0.7:4200/api"]}, "prefect_without_tls", "asked at http://10.0.0.7:4200/api"),
        ({"prefect_addresses": ["http://[2001:db8::1]/api"]}, "prefect_without_tls", "2001:db8::1"),
        ({"mail": MailOnServers(ServerDeletion(3, 1, NOW), None, NOW)}, "mail_at_risk", "after 3 days"),
    ],
)  # fmt: skip
def test_each_weakness_alone(changes: dict[str, Any], kind: str, words: str) -> None:
    """One thing weak is one weakness, with what is seen, why it matters and what to do."""
    (found,) = found_in(**changes)
    assert found.kind == kind
    assert words in found.what
    assert found.why
    assert found.hint


def test_every_kind_can_be_found_and_accepted() -> None:
    everything = found_in(
        encrypted=False, off_site=[], wipeable=["a"], key_files=[Path("/k")], default_passwords=["X"], readable=[Path("/f")],
        listening=["0.0.0.0:1"], mail=MailOnServers(ServerDeletion(3, 1, NOW), None, NOW),
    )  # fmt: skip
    assert {each.kind for each in everything} == set(get_args(RiskKind))
    assert not_accepted(everything, get_args(RiskKind)) == ()
    assert len(not_accepted(everything, ["unencrypted"])) == len(everything) - 1


def test_one_off_site_copy_is_enough_and_what_is_not_known_is_no_weakness() -> None:
    assert found_in(off_site=[("a", False), ("b", True)]) == []
    assert found_in(mail=MailOnServers(ServerDeletion(unknown="it does not run"), None, NOW)) == []


def test_no_password_is_repeated() -> None:
    (found,) = found_in(prefect_addresses=["http://me:canary@backups.lan/api"])
    assert "canary" not in str(found)
    assert "backups.lan" in found.what


@pytest.mark.parametrize(
    "text", ["", "http://", "http://[", "not an address", "://", "http://h:99999999/", "//0.0.0.0"]
)
def test_rubbish_is_no_address(text: str) -> None:
    assert found_in(prefect_addresses=[text]) == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9:1", "[::1]:4200", "localhost:4200", "[::ffff:127.0.0.1]:1"]
)
def test_loopback_in_every_spelling(address: str) -> None:
    assert is_loopback(address)
    assert found_in(prefect_addresses=[f"http://{address}/api"]) == []


def test_the_well_known_passwords_of_guide_and_upstream_are_known() -> None:
    """Wherever they stand: in an environment, or in what was read of the connection string; the password itself is never told."""
    assert default_passwords(installation()) == ()
    in_database = installation(database=Database("m", "u", "x", "u", "masterkey"))
    assert default_passwords(in_database) == ("POSTGRES_PASSWORD",)
    for password in ("secret123!", "secure123!"):
        in_environment = installation(application=service("app", environment={"Authentication__Password": password}))
        assert default_passwords(in_environment) == ("Authentication__Password",)


def test_the_report_tells_what_is_accepted_and_what_is_not_known() -> None:
    seen = PostureSeen(
        encrypted=False, mail=MailOnServers(ServerDeletion(unknown="no|answer"), None, NOW), unseen=["a <b>"]
    )
    page = posture_report("main", seen, ["unencrypted"])
    assert "**1 to mend**, 1 accepted" in page
    assert "unencrypted (accepted)" in page
    assert "no_off_site_copy |" in page
    assert "not known: no|answer" in page
    assert r"- a \<b>" in page
    lines = "\n".join(posture_lines(seen, ["unencrypted"]))
    assert "WEAKNESS (no_off_site_copy)" in lines
    assert "WHY: " in lines
    assert "WEAKNESS (unencrypted)" not in lines
    assert "accept_risks): unencrypted" in lines
    assert [each["accepted"] for each in posture_told(seen, ["unencrypted"])] == [False, True]
    assert "Nothing is weak." in posture_report("main", PostureSeen(**WELL), [])
