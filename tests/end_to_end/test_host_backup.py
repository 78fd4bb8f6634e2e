"""The machine around: volumes, projects, an image and files backed up, and identical on another Docker engine; never over what is there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tasks.adapters.host.journals import Journal
from tasks.adapters.machine.volume_tar import pack_in, unpack_in
from tasks.core.errors import BackupError
from tasks.machine.helper import fitting_image, volume_helper
from tasks.machine.restored_volume import settle
from tests.cli import PROGRAM, run_program, start_program
from tests.settings import write_settings
from tests.stack import engine
from tests.stack.images import POSTGRES
from tests.stack.private_engine import PrivateEngine, private_engine
from tests.stack.stack import POSTGRES_SERVICE, Stack, create_stack, wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="reads volumes and starts a Docker engine of its own: needs root"),
]
COMPOSE = """
services:
  idle:
    image: {image}
    command: [sleep, "86400"]
    stop_grace_period: 0s
    network_mode: none
    env_file: [settings.env]
    volumes: [data:/data]
volumes:
  data: {{labels: {{purpose: letters}}}}
"""
FULL_BYTES = 48 << 20


@dataclass(frozen=True)
class Machine:
    """A stack, two projects of which one runs, and what its settings want of them."""

    place: Path
    stack: Stack
    image: str
    projects: tuple[str, str]
    wanted: dict[str, Any]

    @property
    def volumes(self) -> list[str]:
        """Name the volumes of the two projects."""
        return [f"{each}_data" for each in self.projects]

    def settings(self, name: str = "usual", **changes: Any) -> tuple[Path, Path]:
        """Write settings with a repository of their own; give both places."""
        repository = self.place / "repositories" / name
        section = {"directory": self.stack.directory, "repository": repository, "project": self.stack.project}
        place = write_settings(self.place / f"{name}.yaml", {"main": {**section, "host": self.wanted, **changes}})
        return place, repository


def run(settings: Path, *words: str, **environment: str) -> tuple[int, Any]:
    """Run a command as somebody who has these settings."""
    code, out, err = run_program([PROGRAM, *words, "--settings", str(settings), "--json"], **environment)
    return code, json.loads(out) if out.strip() else err


def must(settings: Path, *words: str) -> Any:
    code, value = run(settings, *words)
    assert code == 0, value
    return value


def place_of(volume: str) -> Path:
    """Give where Docker keeps a volume's content."""
    told = subprocess.run(
        ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume], capture_output=True, text=True, check=True
    )  # fmt: skip
    return Path(told.stdout.strip())


def fingerprint(top: Path) -> dict[str, tuple[object, ...]]:
    """Tell all that the files below a directory are: kind, mode, owners, time, size, holes, attributes, content, and which are one."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        name, state = str(path.relative_to(top)), os.lstat(path)
        plain = path.is_file() and not path.is_symlink()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else ""
        found[name] = (
            oct(state.st_mode), state.st_uid, state.st_gid, state.st_mtime_ns, state.st_size if plain else 0,
            plain and state.st_blocks * 512 < state.st_size, os.readlink(path) if path.is_symlink() else "", content,
            {each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)},
            first.setdefault(state.st_ino, name),
        )  # fmt: skip
    return found


def packed_in(content: bytes) -> list[tuple[object, ...]]:
    """Tell what a tar holds; the names of its sparse files' headers have a process's number in them."""
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        return [
            (each.name, each.type, each.size, each.mode, each.uid, each.gid, each.linkname, each.mtime, each.pax_headers,
             hashlib.sha256(file.read()).hexdigest() if each.isreg() and (file := packed.extractfile(each)) else "")
            for each in packed
        ]  # fmt: skip


def fill(top: Path) -> None:
    """Put odd files into a directory: owners, modes, attributes, holes, hard links, links, names, times."""
    below = top / "a b" / "Ümläut"
    below.mkdir(parents=True)
    (below / "plain.txt").write_text("letters\n")
    os.chown(below / "plain.txt", 12345, 54321)
    (below / "plain.txt").chmod(0o4751)
    os.setxattr(below / "plain.txt", "user.colour", b"\0blue")
    os.link(below / "plain.txt", top / "the same")
    with (top / "sparse").open("wb") as file:
        file.seek(32 << 20)
        file.write(b"end")
    (top / "leads out").symlink_to("/etc/passwd")
    (top / "empty").mkdir(mode=0o711)
    os.chown(top / "empty", 999, 70)
    os.utime(below / "plain.txt", ns=(10**18, 10**18 + 123_456_789))
    os.mkfifo(top / "pipe", 0o640)
    if shutil.which("setfacl"):
        subprocess.run(["setfacl", "-m", "u:777:rw", str(top / "sparse")], check=True)
    os.chown(top, 70, 70)
    top.chmod(0o2750)


def tiny_image(place: Path) -> str:
    """Make an image of a few megabytes: GNU tar, what it needs, and something to run."""
    name, root = f"{engine.new_project()}-image:1", place / "image"
    for program in ("tar", "sleep", "sync"):
        found = Path(os.path.realpath(str(shutil.which(program))))
        needs = subprocess.run(["ldd", str(found)], capture_output=True, text=True, check=True).stdout.split()
        for each in [found, *(Path(word) for word in needs if word.startswith("/"))]:
            target = root / (f"bin/{program}" if each == found else str(each).lstrip("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(each), target)
    with tarfile.open(place / "image.tar", "w") as packed:
        packed.add(root, ".")
    words = ["docker", "import", "--change", "ENV PATH=/bin", str(place / "image.tar"), name]
    subprocess.run(words, check=True, capture_output=True)
    return name


@pytest.fixture(scope="module")
def machine(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("machine")
    stack = create_stack(place / "stack", named_volumes=True, megabytes=1, start_application=False)
    image, projects = tiny_image(place), (engine.new_project(), engine.new_project())
    outside = place / "etc"
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "one.conf").write_text("one\n")
    (outside / "deep" / "er" / "one.conf").chmod(0o640)
    (outside / "link.conf").symlink_to("deep/er/one.conf")
    (outside / "out").symlink_to("/etc/ssl")
    (outside / "none.d").mkdir(mode=0o750)
    (outside / "large").write_bytes(os.urandom(3 << 20))
    try:
        for name in projects:
            directory = place / name
            directory.mkdir()
            (directory / "docker-compose.yml").write_text(COMPOSE.format(image=image))
            (directory / ".env").write_text("SECRET=hush\n")
            (directory / "settings.env").write_text("A=1\n")
            compose = ["docker", "compose", "-p", name]
            subprocess.run([*compose, "up", "--no-start"], cwd=directory, check=True, capture_output=True)
            fill(place_of(f"{name}_data"))
        subprocess.run([*compose, "start"], cwd=directory, check=True, capture_output=True)
        wanted = {
            "volumes": [f"{each}_data" for each in projects], "projects": list(projects), "images": "saved",
            "paths": [str(outside), "/nonexistent/file"],
        }  # fmt: skip
        yield Machine(place, stack, image, projects, wanted)
    finally:
        for name in projects:
            subprocess.run(["docker", "compose", "-p", name, "down", "--volumes"], capture_output=True, check=False)
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True, check=False)
        stack.destroy()


@contextmanager
def moved_away(*places: Path) -> Iterator[None]:
    """Let files be gone within the block, and have what they were before after it."""
    for each in places:
        each.rename(f"{each}.away")
    try:
        yield
    finally:
        for each in places:
            shutil.rmtree(each, ignore_errors=True)
            Path(f"{each}.away").rename(each)


@contextmanager
def another_engine(place: Path) -> Iterator[PrivateEngine]:
    with private_engine(place / "e") as lent:
        yield lent


def test_all_comes_back_identical_on_another_engine(machine: Machine, tmp_path: Path) -> None:
    """Also from a copy, known by the installation's public key; a second restore changes nothing, and single pieces come alone."""
    target = tmp_path / "usb"
    target.mkdir()
    settings, _ = machine.settings(copies=[{"name": "usb", "remote": str(target)}])
    done = must(settings, "backup", "host")
    at_rest, at_work = machine.volumes
    held = {each["name"]: each for each in done["host"]["volumes"]}
    assert held[at_rest]["consistent"]
    assert not held[at_work]["consistent"]
    assert any("/nonexistent/file" in each for each in done["warnings"])
    assert any(at_work in each for each in done["warnings"])
    assert Path(done["archive"]).stat().st_mode & 0o777 == 0o600
    assert must(settings, "check", done["name"])["kind"] == "system"
    must(settings, "copy")
    key = run(settings, "doctor")[1]["signing_key"]["public"]

    before = {each: fingerprint(place_of(each)) for each in machine.volumes}
    places = [machine.place / "etc", *(machine.place / each for each in machine.projects)]
    files = [fingerprint(each) for each in places]
    labels = {each: _inspect("volume", each)["Labels"] for each in machine.volumes}
    image_id = _inspect("image", machine.image)["Id"]
    (copied,) = target.glob("*.tar.gz*")
    with moved_away(*places), another_engine(tmp_path):
        state = tmp_path / "state of another host"
        state.mkdir(mode=0o700)
        restore = [PROGRAM, "restore", "host", str(copied), "--yes", "--json", "--repository", str(tmp_path / "none")]
        elsewhere = {"MAILARCHIVER_BACKUP_STATE": str(state)}
        code, out, err = run_program(restore, directory=tmp_path, **elsewhere)
        assert code != 0
        assert "trusted-key" in err
        known = [*restore, "--trusted-key", key]
        # One piece first, at the operator's word: its volume, with what the saved image brings to unpack it.
        words = [*restore, "--foreign", "--only", f"image:{machine.image}", "--only", f"volume:{at_rest}"]
        code, out, err = run_program(words, directory=tmp_path, **elsewhere)
        assert code == 0, err
        assert not places[0].exists()
        code, out, err = run_program(known, directory=tmp_path, **elsewhere)
        assert code != 0
        assert at_rest in json.loads(out)["error"]
        subprocess.run(["docker", "volume", "rm", at_rest], check=True, capture_output=True)
        # The rest as anyone who has only the disk does it: the newest there that the key has made.
        newest = [
            PROGRAM,
            "restore",
            "host",
            "latest",
            "--yes",
            "--json",
            "--repository",
            str(target),
            "--trusted-key",
            key,
        ]
        code, out, err = run_program(newest, directory=tmp_path, **elsewhere)
        assert code == 0, err

        assert {each: fingerprint(place_of(each)) for each in machine.volumes} == before
        assert {each: _inspect("volume", each)["Labels"] for each in machine.volumes} == labels
        assert _inspect("image", machine.image)["Id"] == image_id
        assert [_without_directory_times(fingerprint(each)) for each in places] == [
            _without_directory_times(each) for each in files
        ]
        assert not subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout
    changed = machine.place / "etc" / "deep" / "er" / "one.conf"
    changed.unlink()
    must(settings, "restore", "host", "--yes", "--from", "usb", "--only", f"file:{changed}")
    assert changed.read_text() == "one\n"
    assert [each["method"] for each in must(settings, "list", "--from", "usb")] == ["host"]
    # What is of the host stands for nothing of the database.
    for words in (("restore", "latest", "--yes"), ("verify", "latest")):
        code, told = run(settings, *words)
        assert code != 0
        assert "no backup" in told["error"]
    status = run(settings, "status")[1]
    assert any(done["name"] in each for each in status["notes"])
    code, told = run(settings, "restore", done["archive"], "--yes")
    assert code != 0
    assert "restore", "host" in told["hint"]


def test_what_is_there_is_replaced_only_when_that_is_said(machine: Machine) -> None:
    """The former volume and files are kept under dated names; a volume in use is never replaced."""
    settings, _ = machine.settings("replacing")
    at_rest, at_work = machine.volumes
    must(settings, "backup", "host")
    code, told = run(settings, "restore", "host", "--yes")
    assert code != 0
    assert at_rest in told["error"]
    assert "--replace" in told["hint"]
    code, told = run(settings, "restore", "host", "--yes", "--replace", "--only", f"volume:{at_work}")
    assert code != 0
    assert "in use" in told["error"]

    wanted, changed = fingerprint(place_of(at_rest)), machine.place / "etc" / "deep" / "er" / "one.conf"
    (place_of(at_rest) / "new").write_text("since\n")
    since = fingerprint(place_of(at_rest))
    changed.write_text("changed\n")
    done = must(
        settings, "restore", "host", "--yes", "--replace", "--only", f"volume:{at_rest}", "--only", f"file:{changed}"
    )
    aside, kept = sorted(done["kept"], key=lambda each: each.startswith("/"))
    try:
        assert fingerprint(place_of(at_rest)) == wanted
        assert fingerprint(place_of(aside)) == since
        # A kill right after the exchange: what holds the former content is no half-filled volume.
        former = place_of(aside).stat().st_ino
        assert "holds its former content" in settle(journal({"volume": aside, "former": former}))
        assert fingerprint(place_of(aside)) == since
        assert (changed.read_text(), Path(kept).read_text()) == ("one\n", "changed\n")
        assert oct(changed.stat().st_mode & 0o777) == "0o640"
    finally:
        assert "removed" in settle(journal({"volume": aside, "former": 1}))
        assert not _volumes(aside)
        Path(kept).unlink()


def test_what_was_restored_before_a_piece_fails_is_told(machine: Machine) -> None:
    settings, _ = machine.settings("failing", host={**machine.wanted, "volumes": [], "images": "digests"})
    must(settings, "backup", "host")
    env, deep = machine.place / machine.projects[0] / ".env", machine.place / "etc" / "deep" / "er"
    env.unlink()
    with moved_away(deep):
        deep.write_text("a file where a directory was\n")
        code, told = run(settings, "restore", "host", "--yes", "--only", "files")
        assert (code, "er" in told["error"], str(env) in str(told["notes"])) == (1, True, True)
        deep.unlink()
    assert env.read_text() == "SECRET=hush\n"


def test_an_image_of_another_content_is_replaced_only_when_that_is_said(machine: Machine) -> None:
    settings, _ = machine.settings("images", host={"projects": machine.projects[:1], "images": "saved"})
    must(settings, "backup", "host")
    first, other = (_inspect("image", each)["Id"] for each in (machine.image, POSTGRES))
    only = ("restore", "host", "--yes", "--only", f"image:{machine.image}")
    subprocess.run(["docker", "tag", POSTGRES, machine.image], check=True)
    try:
        code, told = run(settings, *only)
        assert code != 0
        assert "another one here" in told["error"]
        (kept,) = must(settings, *only, "--replace")["kept"]
        assert (_inspect("image", machine.image)["Id"], _inspect("image", kept)["Id"]) == (first, other)
        subprocess.run(["docker", "rmi", kept], check=True, capture_output=True)
    finally:
        subprocess.run(["docker", "tag", first, machine.image], check=True)


def test_a_volume_is_read_alike_here_and_in_a_container_and_without_this_program(
    machine: Machine, tmp_path: Path
) -> None:
    """A worker that may not look into Docker's directories packs the same; `tar` alone takes them out of the archive."""
    settings, _ = machine.settings("alike", host={"volumes": machine.volumes[:1]})
    done = must(settings, "backup", "host")
    (member,) = done["host"]["volumes"]
    words = ["tar", "-xzOf", done["archive"], f"{done['name']}/{member['member']}"]
    by_hand = subprocess.run(words, capture_output=True, check=True).stdout

    with volume_helper(
        machine.image, machine.volumes[0], installation_id="main", directory=tmp_path, read_only=True
    ) as helper:
        inside = b"".join(pack_in(helper, warnings := []))
    assert packed_in(inside) == packed_in(by_hand)
    assert not warnings
    assert fitting_image(["no-such-image", machine.image], installation_id="main", directory=tmp_path) == machine.image


def test_what_a_volumes_tar_says_never_leaves_the_volume(machine: Machine, tmp_path: Path) -> None:
    """Links that lead out, absolute names and `..`: they are filled in where nothing but the volume is."""
    volume, outside = f"{machine.projects[0]}_hostile", tmp_path / "outside"
    outside.mkdir()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        made.addfile(link)
        for name in ("out/planted", f"{outside}/planted", "../../../../../.." + f"{outside}/planted", "inside"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            made.addfile(entry, io.BytesIO(b"ha\n"))
    subprocess.run(["docker", "volume", "create", volume], check=True, capture_output=True)
    try:
        with (
            volume_helper(machine.image, volume, installation_id="main", directory=tmp_path) as helper,
            suppress(BackupError),
        ):
            unpack_in(helper, [packed.getvalue()])
        assert not list(outside.iterdir())
        assert (place_of(volume) / "inside").exists()
    finally:
        subprocess.run(["docker", "volume", "rm", volume], check=True, capture_output=True)


def test_what_cannot_be_read_of_the_paths_is_named_and_nothing_of_it_is_taken(machine: Machine, tmp_path: Path) -> None:
    """A FIFO, a file of another file system, a name that no manifest can hold, a file that never holds still."""
    place = tmp_path / "odd"
    (place / "mounted").mkdir(parents=True)
    os.mkfifo(place / "pipe")
    (place / os.fsdecode(b"latin-\xe9")).write_text("a name\n")
    restless, kept = place / "restless", place / "kept"
    kept.write_text("kept\n")
    restless.write_text("0")
    over = threading.Event()

    def write() -> None:
        count = 0
        while not over.is_set():
            count += 1
            restless.write_text("x" * (count % 50 + 1))

    writer = threading.Thread(target=write)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place / "mounted")], check=True)
    try:
        (place / "mounted" / "elsewhere").write_text("not here\n")
        writer.start()
        settings, _ = machine.settings("odd", host={"paths": [str(place)]})
        done = must(settings, "backup", "host")
    finally:
        over.set()
        writer.join()
        subprocess.run(["umount", str(place / "mounted")], check=True)
    told = "\n".join(done["warnings"])
    for each in ("pipe: no file", "mounted: another file system", "is not UTF-8"):
        assert each in told
    words = ["tar", "-tzf", done["archive"]]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"files{kept}" in listed
    assert "elsewhere" not in listed


def test_the_database_at_work_and_what_is_missing_are_refused(machine: Machine) -> None:
    data = _volume_of(machine.stack)
    settings, repository = machine.settings("refused", host={"volumes": [data]})
    code, told = run(settings, "backup", "host")
    assert code != 0
    assert "backup online" in told["hint"]
    code, told = run(settings, "doctor")
    assert any("backup online" in each["hint"] for each in told["problems"])
    settings, repository = machine.settings("refused", host={"volumes": ["no-such-volume"], "projects": ["no-such"]})
    code, told = run(settings, "backup", "host")
    assert code != 0
    assert "no-such-volume" in told["error"]
    assert "no compose project no-such" in told["error"]
    code, told = run(settings, "doctor")
    assert {each["what"] for each in told["problems"]} >= {"backup host: there is no volume no-such-volume"}
    assert not list(repository.rglob("*.tar.gz*"))


def test_a_flipped_bit_is_named_and_an_encrypted_one_opens_with_its_key(machine: Machine, tmp_path: Path) -> None:
    """Retention counts the host's for themselves: a second one pushes the first out, and none of the database."""
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "identity"
    identity.write_text(f"{key}\n")
    identity.chmod(0o600)
    settings, _ = machine.settings(
        "sealed", encryption={"recipients": [str(key.to_public())]}, retention={"keep_last": 1, "minimum_verified": 1}
    )
    first = must(settings, "backup", "host")
    second = must(settings, "backup", "host")
    must(settings, "prune")
    assert [(each["name"], each["of"]) for each in must(settings, "list")] == [(second["name"], "host")]
    assert first["name"] != second["name"]
    changed = machine.place / "etc" / "deep" / "er" / "one.conf"
    changed.unlink()
    only = ("--only", f"file:{changed.parent}")
    code, told = run(settings, "restore", "host", "--yes", *only)
    assert code != 0
    assert "--identity" in told["hint"]
    must(settings, "restore", "host", "--yes", "--identity", str(identity), *only)
    assert changed.read_text() == "one\n"

    archive = Path(second["archive"])
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    code, told = run(settings, "check", second["name"])
    assert code != 0
    assert archive.name in told["error"]


def test_a_kill_leaves_nothing_half_done(machine: Machine) -> None:
    """Neither an archive, nor a volume that was not filled to its end."""
    settings, repository = machine.settings("killed", host={**machine.wanted, "images": "digests"})
    at_rest = machine.volumes[0]
    full = place_of(at_rest) / "full"
    full.write_bytes(os.urandom(FULL_BYTES))
    try:
        running = start_program([PROGRAM, "backup", "host", "--settings", str(settings), "--json"])
        wait_until(
            lambda: any(each.stat().st_size > 4 << 20 for each in repository.glob("*.partial")), 60, "nothing begins"
        )
        os.kill(running.pid, signal.SIGKILL)
        running.wait(60)
        assert not list(repository.glob("*.tar.gz"))
        done = must(settings, "backup", "host")
        assert not list(repository.glob("*.partial*"))

        before = fingerprint(place_of(at_rest))
        words = ["restore", "host", done["name"], "--yes", "--replace", "--only", f"volume:{at_rest}"]
        running = start_program([PROGRAM, *words, "--settings", str(settings), "--json"])
        wait_until(lambda: _volumes(f"{at_rest}.before-"), 60, "nothing begins")
        os.kill(running.pid, signal.SIGKILL)
        running.wait(60)
        must(settings, "recover")
        assert fingerprint(place_of(at_rest)) == before
        assert not _volumes(f"{at_rest}.before-")
        assert not subprocess.run(
            ["docker", "ps", "-aq", "--filter", "label=mailarchiver-backup.helper", "--filter", f"volume={at_rest}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        full.unlink(missing_ok=True)


def journal(body: dict[str, Any]) -> Journal:
    return Journal(Path("/none"), "host-volume", "main", Path("/none"), "1-a", 1, 1, "", body)


def _volumes(prefix: str) -> list[str]:
    told = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True).stdout
    return [each for each in told.split() if each.startswith(prefix)]


def _inspect(kind: str, name: str) -> dict[str, Any]:
    told = subprocess.run(["docker", kind, "inspect", name], capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told)[0]
    return found


def _volume_of(stack: Stack) -> str:
    mounts = stack.container(POSTGRES_SERVICE).attrs["Mounts"]
    return next(str(each["Name"]) for each in mounts if each["Type"] == "volume" and len(each["Name"]) != 64)


def _without_directory_times(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Leave out what a restore of single files does not bring: nanoseconds, and the times of directories and links."""
    plain = {name: list(each) for name, each in found.items()}
    for each in plain.values():
        is_file = str(each[0]).startswith("0o100")
        each[3] = int(str(each[3])) // 10**9 if is_file else 0
        each[9] = ""
    return {name: tuple(each) for name, each in plain.items()}
