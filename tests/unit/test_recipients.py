"""Recipients: what is one, and a secret key is never taken for it nor shown."""

from __future__ import annotations

import pytest

from tasks.core.archive.recipients import recipient_problem, recipients_in, short_recipient
from tasks.core.errors import UsageError
from tasks.core.policy.settings import parse_settings

AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN me@home"
PLUGIN = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"
SECRET = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"


@pytest.mark.parametrize("text", [AGE, SSH, PLUGIN, AGE.upper()])
def test_these_are_recipients(text: str) -> None:
    assert recipient_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AGE[:-1], "was all of it copied"),
        (AGE[:-1] + "q", "was all of it copied"),
        ("", "is no age recipient"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB me", "another kind than ssh-ed25519"),
        ("ssh-ed25519 AAAA", "is no age recipient"),
        (SECRET, "secret key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "secret key"),
    ],
)
def test_these_are_none(text: str, words: str) -> None:
    assert words in recipient_problem(text)


def test_a_file_of_recipients() -> None:
    """One a line, comments and doubles are passed over, and each wrong line is named."""
    assert recipients_in(f"# ours\n{AGE}\n\n{SSH}\n{AGE}\n") == ((AGE, SSH), ())
    found, wrong = recipients_in(f"{AGE}\nnonsense\n{SECRET}\n")
    assert found == (AGE,)
    assert [each.split(" is ")[0] for each in wrong] == ["line 2", "line 3"]
    assert SECRET not in " ".join(wrong)


def test_short_forms_tell_keys_apart() -> None:
    assert short_recipient(AGE) == "age1ql3z7hjy...aqmcac8p"
    assert short_recipient(SSH).startswith("ssh-ed25519 ...")


@pytest.mark.parametrize(
    ("encryption", "words"),
    [
        ({}, "installations.main.encryption: names nobody"),
        ({"recipients": ["age1x"]}, "installations.main.encryption.recipients.0: is no age recipient"),
        ({"recipient": [AGE]}, "encryption.recipient: unknown key; did you mean recipients?"),
        ({"recipients": [SECRET]}, "secret key"),
        ({"recipients": SECRET}, "recipients"),
        ({"recipients": [5]}, "is not a recipient, but no text"),
        ({"recipients_file": "relative"}, "is not an absolute path"),
    ],
)
def test_settings_tell_what_is_wrong_and_no_secret(encryption: object, words: str) -> None:
    main = {"directory": "/srv/mail", "repository": "/srv/backups", "encryption": encryption}
    with pytest.raises(UsageError) as caught:
        parse_settings({"installations": {"main": main}}, source="the test")
    assert words in caught.value.message
    assert SECRET[:30] not in str(caught.value)


def test_settings_take_recipients() -> None:
    main = {"directory": "/srv/mail", "repository": "/srv/backups", "encryption": {"recipients": [AGE, SSH]}}
    found = parse_settings({"installations": {"main": main}}, source="the test").installations["main"].encryption
    assert found is not None
    assert found.recipients == (AGE, SSH)
