"""What is done inside a restored guest: its Mail Archiver held back, its accounts disabled, and only then started and asked.

A guest that boots starts its Docker, and that the application, before anybody can be asked inside: nothing in the API of Proxmox keeps a
program of a guest from starting. What keeps it from every mailbox then is the network link, which is down before the guest is started;
and it is ended here at once, with its restart policy taken away, before its accounts are disabled and their secrets blanked. It is started
again only when that was read back. What it may have removed from the copy meanwhile (`LocalRetentionDays`) is the copy's.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from tasks.adapters.proxmox.guest_shell import Said, Shell
from tasks.adapters.stack import mail_archiver
from tasks.core.errors import BackupError, Refused
from tasks.core.plain_text import plain_line
from tasks.core.stack.guest_stacks import INSPECT, InnerStack, Inside, containers_in, stacks_in, status_of
from tasks.core.units import duration_text
from tasks.proxmox.inner_database import InnerDatabase, databases_with
from tasks.proxmox.trial import Restored, inside, verification_of
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

PROGRAM_SECONDS = 120.0
# Nothing that it does meanwhile is kept: the guest is removed.
STOP_SECONDS = 1
LOG_LINES = 20
_POLL_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
# Whichever of them the guest has; the answer's first line is its status.
_ASK = """if command -v curl >/dev/null 2>&1; then exec curl -sS -i -m 10 --noproxy '*' "http://$1:$2$3"; fi
if command -v bash >/dev/null 2>&1; then exec bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf "GET %s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" "$3" >&3 && head -n 1 <&3' bash "$1" "$2" "$3"; fi
exec wget -q -T 10 -S -O /dev/null "http://$1:$2$3" 2>&1"""


@dataclass(frozen=True, slots=True)
class Content:
    """What a stack in a guest holds: archived mails, and attachments, each of which matched its SHA-256 but for `wrong`."""

    mails: int
    attachments: int
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neutralised:
    """Databases in which every mail account was disabled and every secret blanked, with the stack of each; and how many accounts those were."""

    accounts: int
    databases: tuple[tuple[InnerStack, str], ...]

    @property
    def in_use(self) -> list[tuple[InnerStack, str]]:
        """List those that an application uses; where its environment does not say, all of its server."""
        found = []
        for stack, name in self.databases:
            mine = [each for other, each in self.databases if other is stack]
            if stack.database not in mine or name == stack.database:
                found.append((stack, name))
        return found


@step(name="hold application back", run_name="hold application back in guest {restored.guest.vmid}", retries=0)
def hold_applications(config: InstallationConfig, restored: Restored) -> tuple[InnerStack, ...]:
    """Wait for the guest's Docker, find every Mail Archiver in it, and see each ended and not started again by itself."""
    limit = verification_of(config).start_seconds
    with inside(config, restored) as shell:
        _wait(
            lambda: _said(shell, ["docker", "info", "--format", "ok"]).code == 0, limit, f"Docker in {restored.guest}"
        )
        stacks = stacks_in(_containers(shell))
        held = [each.application.id for each in stacks]
        _must(shell, ["docker", "update", "--restart", "no", *held], "take the restart policy of")
        _must(shell, ["docker", "stop", "-t", str(STOP_SECONDS), *held], "stop")
        require_held(shell)
    return tuple(stacks)


@step(
    name="neutralise mail accounts in guest", run_name="neutralise accounts in guest {restored.guest.vmid}", retries=0
)
def neutralise_guest(config: InstallationConfig, restored: Restored, stacks: tuple[InnerStack, ...]) -> Neutralised:
    """Disable every mail account and blank every secret, in each database of each stack, and read that back.

    The statements are those of a verification on staging. Raise Refused where an account could still reach its mailbox.
    """
    limit, count = verification_of(config).start_seconds, 0
    with inside(config, restored) as shell:
        found: list[tuple[InnerStack, str]] = []
        for stack in stacks:
            if not stack.postgres.runs:
                _must(shell, ["docker", "start", stack.postgres.id], "start")
            _wait(lambda stack=stack: _answers(shell, stack), limit, f"the database in {restored.guest}")  # type: ignore[misc]
            names = databases_with(shell, stack, mail_archiver.ACCOUNTS)
            if not names:
                raise Refused(
                    f"no database of {stack.postgres.name} in {restored.guest} has a table {mail_archiver.ACCOUNTS}: the application is not started",
                    hint="is the database's server there the application's own?",
                )
            for name in names:
                database = InnerDatabase(shell, stack, name)
                database.pin()
                count += mail_archiver.neutralise(database)
                found.append((stack, name))
        done = Neutralised(count, tuple(found))
        require_neutral(shell, done)
        require_held(shell)
    return done


@step(name="count mails in guest", run_name="count mails in guest {restored.guest.vmid}", retries=0)
def count_content(config: InstallationConfig, restored: Restored, held: Neutralised) -> Content:
    """Count the archived mails in the database of each application, and recompute the SHA-256 of every attachment."""
    mails, attachments, wrong = 0, 0, []
    with inside(config, restored) as shell:
        for stack, name in held.in_use:
            database = InnerDatabase(shell, stack, name, answer_seconds=verification_of(config).limit_hours * 3600)
            database.pin()
            mails += mail_archiver.count_mails(database) or 0
            found, differing = mail_archiver.count_attachments(database)
            attachments += found
            wrong += differing
    return Content(mails, attachments, tuple(wrong))


@step(name="probe application in guest", run_name="probe application in guest {restored.guest.vmid}", retries=0)
def probe_applications(config: InstallationConfig, restored: Restored, held: Neutralised) -> None:
    """Start each application once more, its accounts read back to be disabled, and see its login page answer; then end it.

    Raise BackupError, with the end of its log in ours, where it does not answer.
    """
    limit = verification_of(config).start_seconds
    with inside(config, restored) as shell:
        require_neutral(shell, held)
        for stack in {stack.application.id: stack for stack, _ in held.databases}.values():
            _must(shell, ["docker", "start", stack.application.id], "start")
            try:
                at = _addresses(shell, stack)
                _wait(
                    lambda stack=stack, at=at: _status(shell, stack, at) == 200,  # type: ignore[misc]
                    limit,
                    f"the application in {restored.guest}",
                )
            except BackupError as error:
                log = _said(shell, ["docker", "logs", "--tail", str(LOG_LINES), stack.application.id])
                words = plain_line(f"{log.out}{log.err}".strip()[-1000:])
                logger.warning("the application's last words in %s: %s", restored.guest, words or "(none)")
                raise BackupError(
                    f"{error.message}: no status 200 at {mail_archiver.LOGIN_PAGE}", hint=error.hint
                ) from None
            finally:
                _said(shell, ["docker", "stop", "-t", str(STOP_SECONDS), stack.application.id])
        require_neutral(shell, held)


def require_held(shell: Shell) -> None:
    """Raise BackupError where an application runs that was ended, or one has appeared."""
    running = [each.application.name for each in stacks_in(_containers(shell)) if each.application.runs]
    if running:
        raise BackupError(
            f"the application in the guest runs although it was ended: {', '.join(running)}",
            hint="does something in the guest start it again, such as a systemd unit or a watchtower? the guest is removed",
        )


def require_neutral(shell: Shell, held: Neutralised) -> None:
    """Raise Refused where a mail account in a guest is enabled or has a secret."""
    for stack, name in held.databases:
        if left := mail_archiver.accounts_at_large(InnerDatabase(shell, stack, name)):
            raise Refused(
                f"{left} mail accounts in the guest's database {name} could still reach their mailboxes: the application is not started",
                hint="does a trigger in the database set them again?",
            )


def _answers(shell: Shell, stack: InnerStack) -> bool:
    try:
        InnerDatabase(shell, stack, "postgres").pin()
    except BackupError as error:
        logger.debug("%s", error.message)
        return False
    return True


def _addresses(shell: Shell, stack: InnerStack) -> list[str]:
    """Give the addresses of an application's container, which it has once it was started."""
    format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    said = _must(shell, ["docker", "inspect", "--format", format, stack.application.id], "look at").out.split()
    return [each for each in said if re.fullmatch("[0-9.]{7,15}", each)]


def _status(shell: Shell, stack: InnerStack, addresses: list[str]) -> int | None:
    for address in addresses:
        said = _said(shell, ["sh", "-c", _ASK, "sh", address, str(stack.port), mail_archiver.LOGIN_PAGE])
        if (status := status_of(said.out)) is not None:
            return status
    return None


def _containers(shell: Shell) -> list[Inside]:
    listed = _must(shell, ["docker", "ps", "--all", "--quiet", "--no-trunc"], "list the containers of").out.split()
    wanted = [each for each in listed if re.fullmatch("[0-9a-f]{64}", each)]
    return (
        containers_in(
            _must(shell, ["docker", "inspect", "--type", "container", "--format", INSPECT, *wanted], "look at").out
        )
        if wanted
        else []
    )


def _said(shell: Shell, words: list[str]) -> Said:
    return shell.try_run(words, seconds=PROGRAM_SECONDS)


def _must(shell: Shell, words: list[str], what: str) -> Said:
    said = _said(shell, words)
    if said.code != 0:
        raise BackupError(
            f"Docker in the guest could not {what} its containers: {said.last_words}",
            hint="may the guest's agent use Docker (root does), and does it run there?",
        )
    return said


def _wait(ready: Callable[[], bool], seconds: float, what: str) -> None:
    deadline, polls = time.monotonic() + seconds, 0
    while not ready():
        if time.monotonic() > deadline:
            raise BackupError(
                f"{what} does not answer after {duration_text(seconds)}",
                hint="restore the backup by hand and look; raise `proxmox.verification.start_minutes` where the guest is slow",
            )
        time.sleep(_POLL_SECONDS[min(polls, len(_POLL_SECONDS) - 1)])
        polls += 1
