"""P19, P23: the sheet's commands, typed as they stand there, bring the mail back on a machine without this program."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.host.memory_place import MEMORY_VARIABLE
from tests.cli import PROGRAM, run_program
from tests.settings import write_settings
from tests.stack.machines import machine_with_postgres
from tests.stack.stack import Stack, create_stack, open_stack

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (tests/stack/machine.sh)"),
]

CONTENT = """
SELECT md5(string_agg(e::text, '' ORDER BY "Id")) FROM mail_archiver."ArchivedEmails" e
UNION ALL SELECT md5(string_agg(a::text, '' ORDER BY "Id")) FROM mail_archiver."EmailAttachments" a
"""
ENABLED = 'SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"'


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("sheet") / "stack", megabytes=1)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def kit(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """Make a recovery key by `keygen`, and settings that encrypt to it; give settings, key and repository."""
    place = tmp_path_factory.mktemp("kit")
    code, out, err = run_program([PROGRAM, "keygen", "--output", str(place / "key"), "--json"])
    assert code == 0, err
    made = json.loads(out)
    assert made["identity"] is None
    assert stat.S_IMODE((place / "key").stat().st_mode) == 0o600
    main = {
        "directory": stack.directory,
        "repository": place / "backups",
        "encryption": {"recipients": [made["recipient"]], "verification_key_hours": 0},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MEMORY_VARIABLE, "/dev/null/none")
        yield write_settings(place / "settings.yaml", {"main": main}), place / "key", place / "backups"


@pytest.fixture
def clean_machine(stack: Stack) -> Iterator[tuple[str, Path]]:
    """Lend a container with an empty PostgreSQL, age and tar, without a network; and the directory that it works in."""
    with machine_with_postgres(stack.container("postgres").attrs["Config"]["Image"]) as (machine, directory):
        yield machine.name, directory


def sheet_of(settings: Path, output: Path, *words: str) -> str:
    """Have the sheet written; return the page."""
    code, _, err = run_program(
        [PROGRAM, "recovery-sheet", "--settings", str(settings), "--output", str(output), *words]
    )
    assert code == 0, err
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    return output.read_text()


@pytest.mark.parametrize("archive_format", ["guide", "fast"])
def test_the_sheet_followed_literally_brings_the_mail_back(
    stack: Stack,
    kit: tuple[Path, Path, Path],
    clean_machine: tuple[str, Path],
    tmp_path: Path,
    archive_format: str,
) -> None:
    """Archive, record, the key as it is printed, and the printed commands in their order: the same mail, its accounts switched off."""
    settings, key, repository = kit
    code, out, err = run_program(
        [PROGRAM, "backup", "hot", "--format", archive_format, "--settings", str(settings), "--json"]
    )
    assert code == 0, err
    made = json.loads(out)
    page = sheet_of(settings, tmp_path / "sheet.html", "--identity", str(key), "--with-signing-key")
    machine, place = clean_machine
    for path in (Path(made["archive"]), repository / f"{made['name']}.manifest.json"):
        shutil.copy(path, place)
    (secret,) = re.findall(r'<code class="secret">(.*?)</code>', page)
    (place / "recovery-key.txt").write_text(f"{secret}\n")
    blocks = [html.unescape(each) for each in re.findall(r'<pre class="commands">(.*?)</pre>', page, re.DOTALL)]
    script = "set -e\n" + "\n".join(blocks)
    done = subprocess.run(
        ["docker", "exec", "--workdir", "/recover", machine, "bash", "-c", script], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    checked, recorded = [re.findall(r"[0-9a-f]{64}", line)[0] for line in done.stdout.splitlines()[:2]]
    assert checked == recorded == made["sha256"]

    def there(query: str) -> str:
        words = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "MailArchiver", "-Atc", query]
        return subprocess.run(["docker", "exec", machine, *words], capture_output=True, text=True, check=True).stdout

    assert there(CONTENT).split() == [str(row[0]) for row in stack.psql(CONTENT)]
    assert there(ENABLED).strip() == "0"
    kept = ["docker", "exec", machine, "ls", "-A", str(stack.directory)]
    names = subprocess.run(kept, capture_output=True, text=True, check=True).stdout.split()
    assert {"data-protection-keys", "docker-compose.yml"} <= set(names)


def test_a_sheet_without_a_key_has_no_secret(kit: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Room to write it on; with the key its text and QR code stand there; a key of somebody else's is refused."""
    settings, key, _ = kit
    secret = key.read_text().split()[-1]
    without = sheet_of(settings, tmp_path / "without.html")
    assert secret not in without
    assert "ed25519-private" not in without
    assert without.count("<svg") == 1  # the public key's
    assert sheet_of(settings, tmp_path / "with.html", "--identity", str(key)).count("<svg") == 2
    run_program([PROGRAM, "keygen", "--output", str(tmp_path / "other")])
    words = ["recovery-sheet", "--settings", str(settings), "--identity", str(tmp_path / "other"), "--json"]
    code, out, _ = run_program([PROGRAM, *words, "--output", str(tmp_path / "no.html")])
    assert (code, "belongs to a recipient" in json.loads(out)["error"]) == (2, True)
    code, out, _ = run_program([PROGRAM, *words[:3], "--output", str(tmp_path / "with.html"), "--json"])
    assert (code, "exists already" in json.loads(out)["error"]) == (2, True)


def test_the_signing_key_is_put_back_as_the_sheet_says(
    kit: tuple[Path, Path, Path], tmp_path: Path, state_directory: Path
) -> None:
    """After its loss the installation knows its own backups again."""
    settings, _, _ = kit
    page = sheet_of(settings, tmp_path / "sheet.html", "--with-signing-key")
    shutil.rmtree(state_directory / "identities")
    list_command = [PROGRAM, "list", "--settings", str(settings), "--json"]
    assert {each["authenticity"] for each in json.loads(run_program(list_command)[1])} == {"foreign"}
    (tmp_path / "signing-key").write_text(re.findall(r'<code class="signing">(.*?)</code>', page)[0] + "\n")
    (block,) = re.findall(r'<pre class="signing-commands">(.*?)</pre>', page, re.DOTALL)
    subprocess.run(["bash", "-ec", html.unescape(block)], cwd=tmp_path, check=True, timeout=30)
    assert {each["authenticity"] for each in json.loads(run_program(list_command)[1])} == {"authentic"}


def test_the_program_brings_it_back_on_a_fresh_host(stack: Stack, kit: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The sheet's one line sets the whole stack up from the encrypted archive, in an empty directory of a host that knows nothing."""
    settings, key, repository = kit
    page = sheet_of(settings, tmp_path / "sheet.html")
    (line,) = re.findall(r'<pre class="program">(.*?)</pre>', page, re.DOTALL)
    words = shlex.split(html.unescape(line))
    place, work = tmp_path / "srv" / "mail", tmp_path / "work"
    work.mkdir()
    words[words.index("--into") + 1] = str(place)
    for path in repository.glob(words[2].removeprefix("./").split(".")[0] + ".*"):
        shutil.copy(path, work)
    shutil.copy(key, work / "recovery-key.txt")
    (tmp_path / "new").mkdir(mode=0o700)
    before = stack.psql(CONTENT)
    stack.compose("down")
    try:
        state = str(tmp_path / "new")
        code, out, err = run_program([PROGRAM, *words[1:]], directory=work, MAILARCHIVER_BACKUP_STATE=state)
        assert code == 0, out[-2000:] + err[-2000:]
        fresh = open_stack(place)
        fresh.wait_app()
        assert fresh.psql(CONTENT) == before
        fresh.destroy()
    finally:
        stack.compose("up", "--detach", "--no-build")
