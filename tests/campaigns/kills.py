"""Kill backups and restores at random moments, many times, on a real stack: P1, P2, P3 and P15.

    python -m tests.campaigns.kills --count 200 [--operation "complete backup" --operation "full restore"] [--restart no] [--seed N]

Its own command; the test suite runs a short version (`tests/end_to_end/test_kills.py`). After each kill the services
must be as they were within 60 s (after `recover` where the watchdog was killed too), the content the old or the new,
every final archive name whole, and what `recover` says must be so. With `--restart no` (Compose's default) nobody else
starts what has ended.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.adapters.archive.repository_marker import MARKER_NAME
from tests.cli import Operator
from tests.content import content, content_of_any_version
from tests.stack.images import OLDER_POSTGRES, POSTGRES, VERSIONS, application_image, ensure_images, ensure_versions
from tests.stack.stack import APPLICATION_SERVICE, Stack, create_stack, wait_until
from tests.warm import Child

PROMISED_SECONDS = 60.0
GREEN_RUN_EVERY = 10
OPERATIONS = (
    "complete backup", "full restore", "dump restore", "hot backup", "online backup",
    "rollback of full restore", "rollback of dump restore", "commit of full restore", "commit of dump restore",
    "upgrade", "rollback of upgrade", "commit of upgrade",
    "application upgrade", "rollback of application upgrade", "commit of application upgrade",
)  # fmt: skip
# What `recover` says of data that was put aside, with the name it gives, and whether that must be there.
SAYINGS = [
    (re.compile(r"(?:is|are) kept as (\S+?)[;,.]?(?:\s|$)"), True),
    (re.compile(r"had not begun: (\S+) is still kept"), True),
    (re.compile(r"completed the commit: (\S+) is (?:dropped|removed)"), False),
]
# The watchdog alone is a case of its own: then the flow must give back by itself.
CASES = [
    ("flow", signal.SIGKILL),
    ("flow", signal.SIGTERM),
    ("flow", signal.SIGINT),
    ("watchdog", signal.SIGKILL),
    ("flow and watchdog", signal.SIGKILL),
]


@dataclass(frozen=True)
class Kill:
    """One kill: what was killed how and when, and what came of it."""

    operation: str
    victim: str
    how: str
    after_seconds: float
    back_seconds: float
    exit_code: int
    outcome: str


class Scene:
    """A stack with two contents, old and new, and backups of the new one; every kill finds the old one in place."""

    at_stake_seconds = 1.2

    def __init__(self, stack: Stack, place: Path) -> None:
        self.stack = stack
        self.operator = Operator(stack.directory, place / "backups")
        self.sources = {
            "full restore": Operator(stack.directory, place / "copies"),
            "dump restore": Operator(stack.directory, place / "dumps"),
        }
        self.sources["full restore"].must("backup", "complete")
        self.sources["dump restore"].must("backup", "hot")
        self.new = content(stack)
        self.edit()
        self.old = content(stack)
        self.running = self.states()
        self._usual: dict[str, float] = {}

    def states(self) -> dict[str, str]:
        """Give the services' states."""
        return {service: state for service, (_, state, _) in self.stack.states().items()}

    def is_at_stake(self) -> bool:
        """Tell whether the short part has begun in which most is at stake: a service is no longer as it was."""
        return self.states() != self.running

    def edit(self) -> None:
        """Turn the new content into the old one: that is what happened after the backups."""
        self.stack.psql(
            'UPDATE mail_archiver."ArchivedEmails" SET "Subject" = "Subject" || \' edited\' WHERE "Id" % 3 = 0'
        )

    def prepare(self, operation: str) -> None:
        """Bring about what an operation needs before it."""
        if operation.startswith(("rollback", "commit")):
            self.sources[operation.partition(" of ")[2]].must("restore", "latest", "--yes", "--no-quarantine")

    def words(self, operation: str) -> tuple[Operator, tuple[str, ...]]:
        """Give who runs an operation, and its command."""
        if operation.endswith("backup"):
            return self.operator, ("backup", operation.split()[0])
        if operation.startswith(("rollback", "commit")):
            return self.operator, (operation.split()[0], "--yes")
        return self.sources[operation], ("restore", "latest", "--yes", "--no-quarantine")

    def look(self) -> str:
        """Tell which content is in place, "old" or "new"; raise AssertionError for a mixture."""
        found = content(self.stack)
        assert found in (self.old, self.new), "the content is neither the old nor the new"
        return "new" if found == self.new else "old"

    def back_to_old(self) -> None:
        """Take a restore back, if there was one; what a commit has dropped is made anew."""
        if content(self.stack) == self.new:
            answer = self.operator.run("rollback", "--yes")
            if answer.code != 0:
                assert "left anything to go back to" in str(answer.value), answer
                self.edit()
        self.operator.must("commit", "--yes")
        assert content(self.stack) == self.old

    def is_there(self, name: str) -> bool:
        """Tell whether a database or a directory of this name is there."""
        if name.startswith("/"):
            return Path(name).is_dir()
        return bool(self.stack.psql("SELECT 1 FROM pg_database WHERE datname = %s", (name,), database="postgres"))

    def see_that_it_is_so(self, recovered: list[dict[str, str]]) -> None:
        """Compare what `recover` said with what is there."""
        for each in recovered:
            for saying, there in SAYINGS:
                for name in saying.findall(each["message"]):
                    assert self.is_there(name) is there, f"recover says {each['message']!r}"

    def usual_seconds(self, operation: str) -> float:
        """Tell how long an operation takes that nobody kills."""
        if operation not in self._usual:
            operator, words = self.words(operation)
            self.prepare(operation)
            begun = time.monotonic()
            operator.must(*words)
            self._usual[operation] = time.monotonic() - begun
            self.back_to_old()
        return self._usual[operation]

    def forget_usual_seconds(self) -> None:
        """Measure anew before the next kill."""
        self._usual.clear()


class UpgradeScene(Scene):
    """A stack of an older PostgreSQL whose content never changes: the versions, the image in the file and the container's must fit."""

    at_stake_seconds = 4.0

    def __init__(self, stack: Stack, place: Path) -> None:
        self.stack = stack
        self.operator = Operator(stack.directory, place / "backups")
        self.aside = place / "data of the older version"
        self.file = stack.directory / "docker-compose.yml"
        self.text = self.file.read_text()
        self.images = {"old": OLDER_POSTGRES, "new": POSTGRES}
        self.old = self.new = content_of_any_version(stack)
        self.running = self.states()
        self._usual: dict[str, float] = {}
        self.operator.must("upgrade", "--to", POSTGRES, "--rehearse-only")

    def prepare(self, operation: str) -> None:
        """Bring about what an operation needs before it."""
        if operation != "upgrade":
            self.operator.must("upgrade", "--to", POSTGRES, "--yes")
        if operation.startswith("commit"):
            (kept,) = (path for path in self.stack.directory.glob("postgres-data.before-*"))
            shutil.rmtree(self.aside, ignore_errors=True)
            subprocess.run(["cp", "-a", kept, self.aside], check=True, timeout=60)

    def words(self, operation: str) -> tuple[Operator, tuple[str, ...]]:
        """Give who runs an operation, and its command."""
        if operation == "upgrade":
            return self.operator, ("upgrade", "--to", POSTGRES, "--yes")
        return self.operator, (operation.split()[0], "--yes")

    def is_at_stake(self) -> bool:
        """Tell whether data, file and container are being exchanged."""
        journals = Path(os.environ["MAILARCHIVER_BACKUP_STATE"]) / "journals"
        return any(journals.glob("*-upgrade.json")) or any(journals.glob("*-upgrade-drop.json"))

    def look(self) -> str:
        """Tell which version is in place; raise AssertionError where server, container and file are not of one."""
        assert content_of_any_version(self.stack) == self.old, "the content has changed"
        assert self.stack.probe() == 200
        version = str(self.stack.psql("SHOW server_version")[0][0]).partition(".")[0]
        outcome = "old" if version == "15" else "new"
        image = self.images[outcome]
        assert self.stack.container("postgres").attrs["Config"]["Image"] == image, "the container is of the other image"
        assert self.file.read_text() == self.text.replace(OLDER_POSTGRES, image), (
            "the compose file is not as it should be"
        )
        return outcome

    def back_to_old(self) -> None:
        """Take an upgrade back; what a commit has dropped is put back from a copy."""
        if self.look() == "new":
            answer = self.operator.run("rollback", "--yes")
            if answer.code != 0:
                assert "left anything to go back to" in str(answer.value), answer
                self.make_older_again()
        self.operator.must("commit", "--yes")
        assert self.look() == "old"
        left = [
            path.name for path in self.stack.directory.iterdir() if ".before-" in path.name or ".undone-" in path.name
        ]
        assert left == []

    def make_older_again(self) -> None:
        """Put the older version's data back by hand, from the copy that was made before the commit."""
        self.stack.compose("down")
        shutil.rmtree(self.stack.directory / "postgres-data")
        subprocess.run(["cp", "-a", self.aside, self.stack.directory / "postgres-data"], check=True, timeout=60)
        self.file.write_text(self.text)
        self.stack.compose("up", "--detach", "--no-build")
        self.stack.wait_app()


class ApplicationUpgradeScene(UpgradeScene):
    """A stack whose application's version changes: image in the file, container, schema and content must fit."""

    at_stake_seconds = 2.0

    def __init__(self, stack: Stack, place: Path) -> None:
        self.stack = stack
        self.operator = Operator(stack.directory, place / "backups")
        self.file = stack.directory / "docker-compose.yml"
        self.text = self.file.read_text()
        self.former, self.next = f"{VERSIONS}:2608.1", f"{VERSIONS}:2609.1"
        self.old = content(stack)
        self.running = self.states()
        self._usual: dict[str, float] = {}
        self.operator.must("upgrade", "--application", self.next, "--rehearse-only")
        begun = time.monotonic()
        self.operator.must("upgrade", "--application", self.next, "--yes")
        self._usual["application upgrade"] = time.monotonic() - begun
        self.new = content(stack)
        self.operator.must("rollback", "--yes")
        self.operator.must("commit", "--yes")

    def prepare(self, operation: str) -> None:
        """Bring about what an operation needs before it."""
        if operation.startswith(("rollback", "commit")):
            self.operator.must("upgrade", "--application", self.next, "--yes")

    def words(self, operation: str) -> tuple[Operator, tuple[str, ...]]:
        """Give who runs an operation, and its command."""
        if operation == "application upgrade":
            return self.operator, ("upgrade", "--application", self.next, "--yes")
        return self.operator, (operation.split()[0], "--yes")

    def is_at_stake(self) -> bool:
        """Tell whether database, file and container are being exchanged."""
        journals = Path(os.environ["MAILARCHIVER_BACKUP_STATE"]) / "journals"
        kinds = ("database-copy", "application-upgrade", "upgrade-drop", "drop")
        return any(any(journals.glob(f"*-{kind}.json")) for kind in kinds)

    def look(self) -> str:
        """Tell which version is in place; raise AssertionError where content, container and file are not of one."""
        found = content(self.stack)
        assert found in (self.old, self.new), "the content is neither the old nor the new"
        outcome, image = ("old", self.former) if found == self.old else ("new", self.next)
        assert self.stack.probe() == 200
        container = self.stack.container(APPLICATION_SERVICE).attrs["Config"]["Image"]
        assert container == image, f"the container is of {container}, its data of {image}"
        assert self.file.read_text() == self.text.replace(self.former, image), "the compose file is not as it should be"
        return outcome

    def back_to_old(self) -> None:
        """Take an upgrade back; what a commit has dropped is put back from the first backup."""
        if self.look() == "new":
            answer = self.operator.run("rollback", "--yes")
            if answer.code != 0:
                assert re.search("left anything to go back to|is gone, which the upgrade", str(answer.value)), answer
                self.make_older_again()
        self.operator.must("commit", "--yes")
        assert self.look() == "old"
        left = [
            path.name for path in self.stack.directory.iterdir() if ".before-" in path.name or ".undone-" in path.name
        ]
        assert left == []
        names = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert self.stack.psql(names, (f"{self.stack.database}%",), database="postgres") == [(1,)]

    def make_older_again(self) -> None:
        """Put the older version's schema back by hand, as the migration's own inverse."""
        self.stack.compose("stop", APPLICATION_SERVICE)
        self.stack.psql('ALTER TABLE mail_archiver."ArchivedEmails" DROP COLUMN "Note"')
        self.stack.psql('DELETE FROM public."__EFMigrationsHistory" WHERE "MigrationId" LIKE %s', ("%_Notes",))
        self.file.write_text(self.text)
        self.stack.compose("up", "--detach", "--no-build")
        self.stack.wait_app()


def kill_once(scene: Scene, operation: str, victim: str, how: signal.Signals, dice: random.Random) -> Kill:
    """Kill one run at a random moment and see that all promises were kept; raise AssertionError where one was not."""
    operator, words = scene.words(operation)
    anywhere = dice.uniform(0.3, scene.usual_seconds(operation) * 1.1)
    known = final_names(scene.operator.repository)
    scene.prepare(operation)
    process = operator.start(*words)
    begun = time.monotonic()
    # Every second kill waits for the short part where most is at stake: the stack is stopped, or data is being exchanged.
    if victim == "watchdog" or (stops(operation) and dice.random() < 0.5):
        _wait_until_stopped(scene, process)
        time.sleep(dice.uniform(0, scene.at_stake_seconds if victim != "watchdog" else 0.1))
    else:
        with suppress(TimeoutError):
            process.wait(anywhere)
    hit = process.poll() is None
    for pid in watchdogs() if "watchdog" in victim else []:
        with suppress(ProcessLookupError):
            os.kill(pid, how)
    if hit and "flow" in victim:
        process.send_signal(how)
    after = time.monotonic() - begun
    code = process.wait(180)
    died = time.monotonic()

    told = operator.must("recover")["recovered"] if victim == "flow and watchdog" else []
    wait_until(lambda: scene.states() == scene.running, PROMISED_SECONDS, "the services are not as they were")
    back = time.monotonic() - died
    scene.stack.wait_postgres()
    scene.stack.wait_app()
    is_restore = operation.endswith(("restore", "upgrade"))
    if is_restore:
        told += operator.must("recover")["recovered"]
    scene.see_that_it_is_so(told)
    outcome = scene.look()
    assert is_restore or outcome == "old", "a backup changed the content"
    assert not operation.startswith("commit") or outcome == "new", "a commit changed the content"
    for name in set(final_names(scene.operator.repository)) - set(known):
        scene.operator.must("check", str(scene.operator.repository / name))
    if is_restore:
        scene.back_to_old()
        assert [path.name for path in scene.stack.directory.iterdir() if ".restored-" in path.name] == []
    return Kill(operation, victim, how.name if hit else "over before", round(after, 3), round(back, 3), code, outcome)


def see_green_run(scene: Scene) -> None:
    """A backup after all that is green, and clears up what the killed ones left."""
    scene.operator.must("backup", "complete")
    files = [path for path in scene.operator.repository.iterdir() if path.name != MARKER_NAME]
    left = [path.name for path in files if ".partial" in path.name or path.name[0] == "."]
    assert left == []
    for path in files:
        path.unlink()


def final_names(repository: Path) -> list[str]:
    """List the archives with a final name."""
    found = repository.glob("*.tar.*") if repository.exists() else []
    return sorted(path.name for path in found if path.suffix in (".gz", ".zst"))


def watchdogs() -> list[int]:
    """List the watchdogs of this process's state directory."""
    ours = f"MAILARCHIVER_BACKUP_STATE={os.environ['MAILARCHIVER_BACKUP_STATE']}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes()
            if b"tasks.watchdog" in words and ours in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def stops(operation: str) -> bool:
    """Tell whether an operation stops services."""
    return operation not in ("hot backup", "online backup") and not operation.startswith("commit")


def _wait_until_stopped(scene: Scene, process: Child) -> None:
    """Return when most is at stake, or the run is over."""
    while process.poll() is None and not scene.is_at_stake():
        time.sleep(0.01)


def versioned_stack(place: Path, *, megabytes: float = 5, restart: str = "always") -> Stack:
    """Make a stack whose application is the first of the versions that upgrades are tried with."""
    ensure_versions()
    stack = create_stack(place, megabytes=megabytes, restart=restart, start_application=False)
    try:
        file = stack.directory / "docker-compose.yml"
        lines = file.read_text().replace(application_image(), f"{VERSIONS}:2608.1").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "STANDIN_SYNC_DELAY" not in line))
        stack.compose("up", "--detach", "--no-build")
        stack.wait_app()
    except BaseException:
        stack.destroy()
        raise
    return stack


@contextmanager
def scene(megabytes: float, place: Path, restart: str = "always", kind: type[Scene] = Scene) -> Iterator[Scene]:
    """Lend a stack for a campaign."""
    if kind is ApplicationUpgradeScene:
        stack = versioned_stack(place / "stack", megabytes=megabytes, restart=restart)
    else:
        image = OLDER_POSTGRES if kind is UpgradeScene else POSTGRES
        stack = create_stack(place / "stack", megabytes=megabytes, restart=restart, postgres_image=image)
    try:
        yield kind(stack, place)
    finally:
        stack.destroy()


def scene_of(operation: str) -> type[Scene]:
    """Tell which scene an operation is played in."""
    if operation.endswith("application upgrade"):
        return ApplicationUpgradeScene
    return UpgradeScene if operation.endswith("upgrade") else Scene


def main() -> None:
    """Run a campaign and print what was seen."""
    parser = argparse.ArgumentParser(description="Kill runs at random moments and see every promise kept.")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--operation", action="append", choices=OPERATIONS, help="may be given several times; default: the first two"
    )
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--restart", choices=("always", "no"), default="always", help="the services' restart policy")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    # A shell starts background jobs with SIGINT ignored, and what is ignored stays so in what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    operations = options.operation or list(OPERATIONS[:2])
    seed = options.seed if options.seed is not None else random.randrange(10**9)
    dice = random.Random(seed)
    kinds = {scene_of(each) for each in operations}
    if len(kinds) > 1:
        parser.error("upgrades want a stack of their own, each kind: give one kind, or the others")
    (kind,) = kinds
    ensure_images(older_postgres=kind is UpgradeScene)
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-kills-") as name:
        place = Path(name)
        os.environ["MAILARCHIVER_BACKUP_STATE"] = str(place / "state")
        (place / "state").mkdir(mode=0o700)
        with scene(options.megabytes, place, options.restart, kind) as lent:
            print(f"seed {seed}", flush=True)
            for number in range(options.count):
                victim, how = CASES[number // len(operations) % len(CASES)]
                kills.append(kill_once(lent, operations[number % len(operations)], victim, how, dice))
                print(f"{number + 1}/{options.count} {kills[-1]}", flush=True)
                if number % GREEN_RUN_EVERY == GREEN_RUN_EVERY - 1:
                    see_green_run(lent)
                    lent.forget_usual_seconds()  # the machine may be slower or quicker by now
            see_green_run(lent)
    _print(kills)


def _print(kills: list[Kill]) -> None:
    table = Table(
        "operation", "killed", "how", "times", "old", "new", "back after s, at most", title="All promises kept"
    )
    groups: dict[tuple[str, str, str], list[Kill]] = {}
    for kill in kills:
        groups.setdefault((kill.operation, kill.victim, kill.how), []).append(kill)
    for group, found in sorted(groups.items()):
        outcomes = [kill.outcome for kill in found]
        longest = max(kill.back_seconds for kill in found)
        table.add_row(*group, str(len(found)), str(outcomes.count("old")), str(outcomes.count("new")), f"{longest:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
