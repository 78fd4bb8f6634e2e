"""What an operator is told to run is what gets the service to run, and no picture of an installation shows a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.stack.installation import ServiceState, command_to_run, left_down
from tests.unit.values import installation, service


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("exited", "docker compose -p mail start app"),
        ("created", "docker compose -p mail start app"),
        ("paused", "docker compose -p mail unpause app"),
        ("absent", "cd /srv/mail && docker compose -p mail up --detach app"),
    ],
)
def test_the_command_fits_the_state(state: ServiceState, command: str) -> None:
    """Compose starts only what has a container, and makes one only where its files are."""
    assert command_to_run(installation(), service("app", state=state)) == command


def test_a_directory_with_a_space_stays_one_word() -> None:
    """The line is pasted into a shell at three in the morning."""
    place = installation(directory=Path("/srv/my mail"))

    assert command_to_run(place, service("app", state="absent")).startswith("cd '/srv/my mail' && ")


def test_no_password_is_in_an_installations_picture() -> None:
    """A log or a traceback that holds one gives nothing away (P12)."""
    shown = repr(installation(application=service("app", environment={"PASSWORD": "canary"})))

    for secret in ("canary", "superuser's", "user's"):
        assert secret not in shown


def test_an_application_that_stays_down_is_told() -> None:
    """A restore starts nothing that did not run, and says so: nobody waits for a page that cannot come."""
    stopped = installation(application=service("app", state="exited"))

    assert left_down(installation(application=service("app", state="running"))) == ()
    assert left_down(stopped) == (
        "app was exited before the restore and was left so; to start it: docker compose -p mail start app",
    )
