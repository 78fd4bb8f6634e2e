"""A guest's newest backup restored beside it: no network, the accounts disabled before the application starts, and nothing left behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.proxmox_restore_verification import proxmox_restore_verification
from tasks.adapters.host.journals import list_journals
from tasks.adapters.proxmox.guests_state import read_guest_proofs
from tasks.core.proxmox.proofs import GuestProof
from tasks.core.quoting import quoted
from tasks.oversight.guest_proofs import GuestsNotProven
from tasks.oversight.system import system_status
from tasks.proxmox.check import check_proxmox
from tasks.recovery.recover import recover
from tasks.run.context import config_of
from tasks.surroundings import run_flow
from tests.cli import PROGRAM, run_program, start_program
from tests.proxmox.fake import GUEST, MACHINE, FakeProxmox, fake_proxmox, nights_ago
from tests.proxmox.trials import CARRIED, InnerGuest, node_with_pct
from tests.receiver import receiver
from tests.settings import write_settings
from tests.stack.engine import host_address
from tests.stack.imap import ImapServer, imap_server
from tests.stack.stack import create_stack, free_port, wait_until

FIRST, LAST = 9000, 9003
KEPT = 'kept = odd "name" \'ä'
LONG = functools.partial(pytest.param, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProxmox]:
    with fake_proxmox(tmp_path_factory.mktemp("proxmox")) as fake:
        yield fake


@pytest.fixture
def proxmox(shared: FakeProxmox) -> Iterator[FakeProxmox]:
    """Lend the module's Proxmox: both guests run, and each was backed up last night."""
    usual, trials = dict(vars(shared.trials)), shared.trials
    for vmid in (GUEST, MACHINE):
        shared.set_state("running", vmid)
    shared.volumes.clear()
    shared.requests.clear()
    for vmid in (GUEST, MACHINE):
        shared.add_volume(nights_ago(9), vmid)
        shared.add_volume(nights_ago(1), vmid)
    yield shared
    for each in shared.tasks.values():
        each.told_to_end.set()
    wait_until(
        lambda: all(each.exit is not None for each in shared.tasks.values()), 10, "a task of the test does not end"
    )
    trials.clear()
    shared.tasks.clear()
    shared.forbidden.clear()
    for name, value in usual.items():
        setattr(trials, name, value)
    trials.taken, trials.carried, trials.inner, trials.lines = (
        set(),
        {kind: dict(some) for kind, some in CARRIED.items()},
        None,
        [],
    )


@pytest.fixture
def settings(proxmox: FakeProxmox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the section of the settings as the file has it; `use` writes it anew."""
    section: dict[str, Any] = {
        **proxmox.settings(), "guests": [MACHINE], "storage": "local",
        "verification": {"storage": "local-lvm", "ids": [FIRST, LAST], "start_minutes": 2},
    }  # fmt: skip
    (tmp_path / "installation").mkdir()
    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(tmp_path / "settings.yaml"))
    use(section, tmp_path)
    return section


def use(section: dict[str, Any], place: Path, more: dict[str, Any] | None = None, **verification: Any) -> Path:
    """Write the settings file, with `more` besides the section."""
    whole = {**section, "verification": {**section["verification"], **verification}}
    main = {
        "directory": place / "installation",
        "repository": place / "backups",
        "proxmox": whole,
        "log_file": place / "log",
        **(more or {}),
    }
    return write_settings(place / "settings.yaml", {"main": main})


def refuted() -> GuestProof:
    """Run the flow, which has to fail; give its only verdict."""
    with pytest.raises(GuestsNotProven) as caught:
        run_flow(proxmox_restore_verification, "main")
    (proof,) = caught.value.proofs
    assert proof.verdict == "failed"
    assert read_guest_proofs("main").last[str(proof.guest)] == proof
    return proof


def nothing_left(proxmox: FakeProxmox) -> None:
    """See the guests as they were, and nothing of ours."""
    assert proxmox.trials.left() == []
    assert list_journals() == []
    assert (proxmox.state(), proxmox.state(MACHINE)) == ("running", "running")
    touched = [
        path
        for method, path in proxmox.requests
        if (method != "GET" and f"/{GUEST}" in path) or (f"/{MACHINE}" in path and method != "GET")
    ]
    assert touched == [], "the guest itself was touched"


# --- With a real stack inside the guest ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mail_server() -> Iterator[ImapServer]:
    with imap_server() as server:
        yield server


@pytest.fixture(scope="module")
def inner(
    docker_engine: None, tmp_path_factory: pytest.TempPathFactory, mail_server: ImapServer
) -> Iterator[InnerGuest]:
    """Make the stack inside the guest; its account's mail server is there, and is logged in to a second after each start."""
    place = tmp_path_factory.mktemp("inside")
    stack = create_stack(place / "stack", megabytes=1, imap=(host_address(), mail_server.port), sync_delay_seconds=1)
    try:
        # A database that a restore has kept has accounts as well.
        stack.psql(f"CREATE DATABASE {quoted(KEPT)} TEMPLATE template0", database="postgres")
        stack.psql('CREATE TABLE "MailAccounts" ("Id" int, "IsEnabled" boolean, "Password" text)', database=KEPT)
        stack.psql("""INSERT INTO "MailAccounts" VALUES (1, true, 'secret')""", database=KEPT)
        # What the application's own backup holds, a later one of its guest has to hold too.
        main = {"directory": stack.directory, "repository": place / "backups"}
        settings = write_settings(place / "settings.yaml", {"main": main})
        code, _, stderr = run_program([PROGRAM, "backup", "hot", "--settings", str(settings), "--json"])
        assert code == 0, stderr
        yield InnerGuest(stack, place)
    finally:
        stack.destroy()


class Order:
    """What the guest agent was asked to run, and how the database stood when the application was started by us."""

    def __init__(self, inner: InnerGuest, mail_server: ImapServer) -> None:
        self._inner, self._mail = inner, mail_server
        self.at_large: list[int] = []
        self.programs: list[str] = []
        self.accounts, self.kept = 0, [()]
        self._started = 0.0

    def __call__(self, words: Sequence[str], given: str) -> None:
        self.programs.append(" ".join(words))
        if list(words[:2]) == ["docker", "start"] and self._inner.application in words:
            query = 'SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled" OR coalesce("Password", \'\') <> \'\''
            self.accounts = int(self._inner.stack.psql('SELECT count(*) FROM mail_archiver."MailAccounts"')[0][0])
            self.kept = self._inner.stack.psql('SELECT "IsEnabled", "Password" FROM "MailAccounts"', database=KEPT)
            self.at_large.append(int(self._inner.stack.psql(query)[0][0]))
            self._mail.forget()
            self._started = time.monotonic()
        if self._started and list(words[:2]) == ["docker", "stop"]:
            # An account that is enabled would have been logged in to by now.
            time.sleep(max(0.0, 3.0 - (time.monotonic() - self._started)))


@pytest.fixture
def order(proxmox: FakeProxmox, inner: InnerGuest, mail_server: ImapServer) -> Order:
    """Put the stack into restored guests, and watch what is done there."""
    watching = Order(inner, mail_server)
    proxmox.trials.inner, proxmox.trials.before_program = inner, watching
    return watching


@pytest.fixture
def compared(proxmox: FakeProxmox, settings: dict[str, Any], inner: InnerGuest, tmp_path: Path) -> None:
    """Use the application's own backups, of which one is older than the guest's newest."""
    own = inner.stack.directory.parent
    use(
        settings,
        tmp_path,
        {"directory": inner.stack.directory, "repository": own / "backups", "metrics_directory": tmp_path / "metrics"},
    )
    proxmox.add_volume(datetime.now(UTC), MACHINE)


def test_from_the_command_line(
    proxmox: FakeProxmox, compared: None, order: Order, mail_server: ImapServer, tmp_path: Path
) -> None:
    """Restored, without a network, held, neutralised, and only then started; counted; removed; and all of that told."""
    code, stdout, stderr = run_program(
        [PROGRAM, "verify-guest", "--settings", str(tmp_path / "settings.yaml"), "--json"]
    )

    assert code == 0, stderr + stdout
    (proof,) = json.loads(stdout)["guests"]
    assert (proof["verdict"], proof["restored_as"], proof["application"]) == ("verified", FIRST, True)
    assert (
        proof["backup"]
        == max(proxmox.volumes, key=lambda each: int(each["ctime"]) * (each["vmid"] == MACHINE))["volid"]
    )
    assert proof["accounts"] == order.accounts + 1
    assert order.kept == [(False, None)]
    assert proof["mails"] == proof["expected"] > 0
    assert proof["attachments"] > 0
    config = proxmox.trials.first_starts[FIRST]
    assert all("link_down=1" in config[name].split(",") for name in ("net0", "net1"))
    assert int(config.get("onboot", 0)) == 0
    assert order.at_large == [0], "the application was started once, when no account could reach its mailbox"
    assert mail_server.connections() == [], "with its network there, nothing was logged in to"
    text = "\n".join(order.programs)
    assert (
        text.index("docker update --restart no")
        < text.index("docker stop")
        < text.index("psql")
        < text.index("docker start")
    )
    nothing_left(proxmox)
    seen = read_guest_proofs("main")
    assert seen.proven[str(MACHINE)].backup == proof["backup"]
    system = system_status(config_of("main"), datetime.now(UTC))
    assert system.problems == ()
    assert system.guests[0].proven is not None
    assert [line.verdict for line in system.lines if line.backup == proof["backup"]] == ["verified"]
    (metrics,) = (tmp_path / "metrics").iterdir()
    assert 'guest_last_proven_timestamp_seconds{guest="102",installation="main"} 0' not in metrics.read_text()
    assert "guest_last_proven_timestamp_seconds{" in metrics.read_text()
    assert proxmox.secret not in stdout + stderr + (tmp_path / "log").read_text()


def test_accounts_that_cannot_be_neutralised(
    proxmox: FakeProxmox, settings: dict[str, Any], order: Order, inner: InnerGuest
) -> None:
    """A trigger sets them again: the application is never started, and the guest goes."""

    def trigger(words: Sequence[str], given: str) -> None:
        order(words, given)
        if "psql" in " ".join(words) and "server_version_num" in given and len(order.programs) < 15:
            inner.stack.psql(
                'CREATE OR REPLACE FUNCTION mail_archiver.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW."IsEnabled" := true; RETURN NEW; END $$'
            )
            inner.stack.psql(
                'CREATE OR REPLACE TRIGGER again BEFORE UPDATE ON mail_archiver."MailAccounts" FOR EACH ROW EXECUTE FUNCTION mail_archiver.again()'
            )
            inner.stack.psql('ALTER TABLE mail_archiver."MailAccounts" ENABLE ALWAYS TRIGGER again')

    proxmox.trials.before_program = trigger

    proof = refuted()

    assert "could not be disabled" in proof.problem
    assert (proof.booted, proof.accounts, proof.application) == (True, None, False)
    assert order.at_large == [], "the application was not started"
    nothing_left(proxmox)


@pytest.mark.long
def test_an_application_that_something_starts_again(
    proxmox: FakeProxmox, settings: dict[str, Any], order: Order, inner: InnerGuest
) -> None:
    """A unit of the guest's own may do that while the accounts are neutralised: it is seen, and nothing is probed."""

    def again(words: Sequence[str], given: str) -> None:
        order(words, given)
        if given.endswith("COMMIT;"):
            inner.stack.container("mailarchive-app").start()

    proxmox.trials.before_program = again

    assert "runs although it was ended" in refuted().problem
    assert order.at_large == []
    nothing_left(proxmox)


@pytest.mark.long
def test_a_guest_with_too_few_mails(proxmox: FakeProxmox, compared: None, order: Order, inner: InnerGuest) -> None:
    """It cannot be right, although everything in it is whole: the application is not even started."""

    def emptied(words: Sequence[str], given: str) -> None:
        order(words, given)
        if "count(*)" in given and "ArchivedEmails" in given:
            inner.stack.psql('TRUNCATE mail_archiver."ArchivedEmails" CASCADE')

    proxmox.trials.before_program = emptied

    proof = refuted()

    assert "holds 0 mails, where mailarchiver-backup-" in proof.problem
    assert order.at_large == []
    nothing_left(proxmox)


def test_an_application_that_does_not_answer(
    proxmox: FakeProxmox, settings: dict[str, Any], order: Order, inner: InnerGuest, tmp_path: Path
) -> None:
    """Its container starts and its page does not come."""
    use(settings, tmp_path, start_minutes=0.1)

    def broken(words: Sequence[str], given: str) -> None:
        order(words, given)
        if list(words[:2]) == ["docker", "start"]:
            inner.stack.psql('ALTER DATABASE "MailArchiver" ALLOW_CONNECTIONS false', database="postgres")

    proxmox.trials.before_program = broken

    proof = refuted()

    assert "no status 200 at /Auth/Login" in proof.problem
    assert proof.accounts
    assert proof.mails
    nothing_left(proxmox)


def test_a_container_over_ssh(
    proxmox: FakeProxmox, settings: dict[str, Any], order: Order, inner: InnerGuest, tmp_path: Path
) -> None:
    """`pct exec` by a real sshd: the same, key and node's key checked; another key of the node, and a key it does not take, are told."""
    with node_with_pct(tmp_path / "node", inner, free_port()) as shell:
        use({**settings, "guests": [GUEST]}, tmp_path, ssh=shell)

        (proof,) = run_flow(proxmox_restore_verification, "main")

        assert (proof.verdict, proof.application) == ("verified", True)
        assert proof.mails
        assert "link_down=1" in proxmox.trials.first_starts[FIRST]["net0"].split(",")
        nothing_left(proxmox)
        use({**settings, "guests": [GUEST]}, tmp_path, ssh={**shell, "key_file": str(tmp_path / "node" / "stranger")})
        assert "cannot be reached by ssh" in refuted().problem
        known = tmp_path / "node" / "known_hosts"
        known.write_text(known.read_text().split()[0] + " " + (tmp_path / "node" / "stranger.pub").read_text())
        use({**settings, "guests": [GUEST]}, tmp_path, ssh=shell)
        assert "cannot be reached by ssh" in refuted().problem
        nothing_left(proxmox)


def test_who_is_told(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """A failed test is an alarm, told once; that it is over, too, when nothing is asked for any more."""
    with receiver() as heard:
        more = {"notifications": heard.settings(events=["proxmox"])}
        use(settings, tmp_path, more)
        proxmox.trials.end = "job errors"
        refuted()
        refuted()
        assert heard.titles() == ["mailarchiver-backup: proxmox of main"]
        assert "job errors" in str(heard.notifications())


# --- Without -----------------------------------------------------------------------------------------------------------


def without_backups(fake: FakeProxmox) -> None:
    fake.volumes.clear()


def without_agent(fake: FakeProxmox) -> None:
    del fake.trials.carried["qemu"]["agent"]


def with_a_disk_of_the_guest(fake: FakeProxmox) -> None:
    fake.trials.carried["qemu"]["scsi1"] = "local-lvm:vm-102-disk-7,size=1G"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (without_backups, "there is no backup of virtual machine 102 (mailvm)"),
        ({"free_bytes": 10**9}, "1.0 GB are free on the storage local-lvm where 4.3 GB are wanted"),
        ({"end": "job errors", "lines": ["ERROR: vma extract failed"]}, "failed: job errors (ERROR: vma extract failed)"),
        ({"keeps_link": True}, "is not down (net0, net1), although that was asked for: it is not started"),
        ({"agent_answers": False}, "its guest agent does not answer"),
        LONG({"content": "iso"}, "the storage local-lvm takes no disks of virtual machine 102 (mailvm): its content is iso, not images"),
        LONG(without_agent, "has no QEMU guest agent"),
        LONG(with_a_disk_of_the_guest, "would use what the guest that still runs may be using (scsi1)"),
        LONG({"taken": {FIRST, FIRST + 1, FIRST + 2, LAST}}, "no id is free for a test of a backup: 9000 to 9003 are taken"),
    ],
    ids=["no backup", "full", "damaged", "link", "agent", "content", "no agent", "disk of another", "ids"],
)  # fmt: skip
def test_what_is_wrong_is_told(
    wrong: dict[str, Any] | Callable[[FakeProxmox], None],
    words: str,
    proxmox: FakeProxmox,
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Each by its name; the guest is not started where it must not be, and nothing is left."""
    use(settings, tmp_path, start_minutes=0.02)
    if callable(wrong):
        wrong(proxmox)
    else:
        for name, value in wrong.items():
            setattr(proxmox.trials, name, value)

    proof = refuted()

    assert words in proof.problem
    assert bool(proxmox.trials.first_starts) == ("agent does not answer" in words)
    nothing_left(proxmox)


@pytest.mark.parametrize(
    "forbidden",
    [
        ("POST", "/qemu"),
        pytest.param(("PUT", "/config"), marks=pytest.mark.long),
        ("POST", "/status/start"),
        pytest.param(("POST", "/agent/ping"), marks=pytest.mark.long),
    ],
    ids=["restore", "network", "start", "agent"],
)
def test_a_token_that_may_not(forbidden: tuple[str, str], proxmox: FakeProxmox, settings: dict[str, Any]) -> None:
    proxmox.forbidden[forbidden] = "Permission check failed (/vms/9000, VM.Allocate)"

    assert "Permission check failed" in refuted().problem
    proxmox.forbidden.clear()
    nothing_left(proxmox)


def test_an_id_that_is_taken_meanwhile(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """The next one is taken; what has the first is somebody else's, and stays as it is."""
    use(settings, tmp_path, start_minutes=0.02)
    proxmox.trials.taken = {FIRST}
    proxmox.trials.agent_answers = False

    assert refuted().restored_as == FIRST + 1
    nothing_left(proxmox)


def test_a_restore_that_never_ends(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """After its limit it is ended, and what it had made goes with it."""
    use(settings, tmp_path, limit_hours=0.5 / 3600)
    proxmox.trials.seconds = 1000

    assert "the restore of virtual machine 102 (mailvm) does not end" in refuted().problem
    nothing_left(proxmox)


def test_a_guest_that_lost_its_mark_is_not_touched(
    proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A description that a restore does not take is written after it; one that somebody changes makes the guest theirs."""
    use(settings, tmp_path, start_minutes=0.02)
    proxmox.trials.forgets_description, proxmox.trials.agent_answers = True, False
    refuted()
    nothing_left(proxmox)

    proxmox.trials.before_program = None
    asked = proxmox.answer

    def renamed(method: str, path: str, values: dict[str, str]) -> Any:
        if path.endswith("/agent/ping"):
            proxmox.ask("PUT", f"/nodes/pve1/qemu/{FIRST}/config", {"description": "mine now"})
        return asked(method, path, values)

    proxmox.answer = renamed  # type: ignore[method-assign]
    try:
        proof = refuted()
    finally:
        del proxmox.answer  # type: ignore[method-assign]

    assert "does not bear its mark" in proof.problem
    assert proxmox.trials.left() == [FIRST]
    assert proxmox.state(FIRST) == "running"


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("restore", signal.SIGKILL),
        ("running", signal.SIGKILL),
        pytest.param("restore", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("running", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_our_own_death_midway(
    moment: str, how: signal.Signals, proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The guest is gone, its restore ended; the guest that it was made of runs as before."""
    proxmox.trials.agent_answers = False
    if moment == "restore":
        proxmox.trials.seconds = 1000
    child = start_program([PROGRAM, "verify-guest", "--settings", str(tmp_path / "settings.yaml"), "--json"])
    wait_until(
        lambda: proxmox.trials.made and (moment == "restore" or proxmox.trials.first_starts), 60, "nothing was restored"
    )

    os.kill(child.pid, how)

    wait_until(lambda: proxmox.trials.left() == [] and list_journals() == [], 60, "the guest is not removed")
    assert recover() == []
    nothing_left(proxmox)


def test_what_doctor_says(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    use({**settings, "guests": [GUEST, MACHINE]}, tmp_path)

    found = check_proxmox(config_of("main"))

    assert any("can be restored as a test to local-lvm" in line for line in found.lines)
    assert any("the settings name no `proxmox.verification.ssh`" in what for what, _ in found.obstacles)
    nothing_left(proxmox)


def test_only_guests_of_the_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    code, _, stderr = run_program(
        [PROGRAM, "verify-guest", "999", "--settings", str(tmp_path / "settings.yaml"), "--json"]
    )

    assert code == 2
    assert "name no guest 999" in stderr
