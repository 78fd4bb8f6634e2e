"""Knowing an installation: from a directory to services, credentials, data and every configuration file, or one clear refusal.

Each directory of `tests/installations` is a stack as somebody may have it. Nothing of them is started: what the compose files say is read
through Compose itself, and of some the containers are created, to see that both sources tell the same.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tasks.adapters.host.locks import installation_lock
from tasks.adapters.stack.diagnosis import problems
from tasks.adapters.stack.discovery import configuration_problems, discover
from tasks.adapters.stack.stacks_here import look_at
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.run.data_users import refuse_other_users
from tests.cli import PROGRAM, Answer, Operator, run_program
from tests.settings import write_settings
from tests.stack import engine
from tests.stack.images import POSTGRES, application_image

pytestmark = pytest.mark.docker

FIXTURES = Path(__file__).parent.parent / "installations"


@dataclass(frozen=True)
class Facts:
    """What must be found; the defaults are those of upstream's own compose file. Places are relative to the directory."""

    project: str = ""
    application: str = "mailarchive-app"
    postgres: str = "postgres"
    database: str = "MailArchiver"
    superuser: str = "mailuser"
    superuser_password: str = "masterkey"
    user: str = "mailuser"
    password: str = "masterkey"
    port: int = 5432
    pgdata: str = "/var/lib/postgresql/data"
    data: tuple[str, str, str] = ("bind", "postgres-data", "/var/lib/postgresql/data")
    keys: tuple[str, str] | None = ("bind", "data-protection-keys")
    configuration: Set[str] = frozenset({"docker-compose.yml"})
    application_port: int = 5000


EIGHTEEN = Facts(
    pgdata="/var/lib/postgresql/18/docker", data=("bind", "postgres-data", "/var/lib/postgresql")
)  # fmt: skip
ODD_PASSWORD = 'p=a"s$$w${rd} ü 😀'

CASES: dict[str, Facts] = {
    "upstream": Facts(),
    "upstream_14": Facts(),
    "upstream_18": EIGHTEEN,
    "quoted": Facts(
        database="Mail;Archiver", superuser_password="it's #1; really", password="it's #1; really"
    ),
    "anchors": Facts(),
    "defaults": Facts(superuser_password="master$key", password="master$key"),
    "dotenv": Facts(
        database="Mail Archive",
        superuser="archive_user", superuser_password='p$ss "w#rd', user="archive_user", password='p$ss "w#rd',
        data=("bind", "var/postgres", "/var/lib/postgresql/data"), keys=("bind", "var/keys"),
        configuration={"docker-compose.yml", ".env"},
    ),
    "passed_through": Facts(configuration={"docker-compose.yml", ".env"}),
    "env_files/stack": Facts(
        superuser="archive_user", superuser_password="from $outside", user="archive_user", password="from $outside",
        configuration={
            "docker-compose.yml", "config/app.env", "config/common.env", "config/database.env", "outside/.../shared/secrets.env",
        },
    ),
    "override": Facts(
        superuser_password="changed", password="changed", application_port=8080,
        data=("bind", "big-disk/postgres", "/var/lib/postgresql/data"),
        configuration={"docker-compose.yml", "docker-compose.override.yml"},
    ),
    "compose_yaml": Facts(superuser_password="new", password="new", configuration={"compose.yaml"}),
    "chosen_files": Facts(
        project="letters", data=("bind", "stack/postgres-data", "/var/lib/postgresql/data"), keys=("bind", "stack/data-protection-keys"),
        configuration={"stack/base.yml", "stack/production.yml", ".env"},
    ),
    "taken_in": Facts(
        superuser_password="included", password="included",
        configuration={"docker-compose.yml", "parts/database.yml", "parts/database.env", "parts/common.yml"},
    ),
    "renamed": Facts(
        project="family-letters", application="web", postgres="db", database="letters", superuser="postgres",
        user="reader", password="readers own", port=5433, application_port=8443,
        data=("bind", "db", "/var/lib/postgresql/data"), keys=("bind", "keys"),
    ),
    "network_alias": Facts(),
    "two_postgres": Facts(postgres="mail-postgres"),
    "own_images": replace(EIGHTEEN, keys=None),
    "appsettings": Facts(
        user="archive_user", password="http://x",
        configuration={
            "docker-compose.yml", "appsettings.json", "certs/mail.pem", "certs/private/mail.key", "postgresql.conf", "init/10-role.sql",
        },
    ),
    "secret_files": Facts(
        superuser="archive", superuser_password="pass word", user="archive", password="pass word",
        configuration={
            "docker-compose.yml", "secrets/session.txt", "settings.json", "secrets/user.txt", "secrets/password.txt",
        },
    ),
    "named_volumes": Facts(
        pgdata="/var/lib/postgresql/data/pgdata",
        data=("volume", "the-mail-of-@PROJECT@", "/var/lib/postgresql/data"), keys=("volume", "@PROJECT@_keys"),
    ),
    "odd_names": Facts(
        database='Die "Briefe" – $1; x=y',
        superuser="Möbius = 'Söhne' $HOME", superuser_password=ODD_PASSWORD,
        user="Möbius = 'Söhne' $HOME", password=ODD_PASSWORD,
        configuration={"docker-compose.yml", ".env"},
    ),
    "no_database": Facts(database="mailuser"),
    "spaces, commas/my stack": Facts(
        project="mystack", data=("bind", "postgres data, all of it", "/var/lib/postgresql/data"),
        keys=("bind", "data protection keys"), configuration={"docker-compose.yml", "the app.env"},
    ),
}  # fmt: skip

# Of these the containers are created too: the sources of a value differ most here. All need no other image than the two.
CREATED = (
    "upstream", "dotenv", "env_files/stack", "chosen_files", "two_postgres", "appsettings", "secret_files", "named_volumes", "odd_names",
    "spaces, commas/my stack",
    *(pytest.param(case, marks=pytest.mark.long) for case in ("quoted", "anchors", "defaults", "override", "compose_yaml", "passed_through")),
)  # fmt: skip

# Each with words that the sentence must have, and (behind "not") words that it must not: they are secrets.
REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "two_postgres": (("more than one PostgreSQL", "cloud-db", "mail-db", "mailarchive-app"), ()),
    "two_archivers": (("more than one Mail Archiver", "family", "office"), ()),
    "database_elsewhere": (("db.example.org", "no service of the project"), ("masterkey",)),
    "no_postgres": (("PostgreSQL", "cache"), ()),
    "no_archiver": (("is a Mail Archiver", "postgres, web"), ()),
    "bad_connection": (("connection string", "mailarchive-app"), ("first", "hidden-secret")),
    "bad_appsettings": (("/app/appsettings.json", "JSON"), ("hidden-secret",)),
    "not_yaml": (("docker-compose.yml", "yaml"), ("hidden-secret",)),
    "not_compose": (("docker-compose.yml", "enviroment"), ("hidden-secret",)),
    "missing_variable": (("MAB_TEST_PASSWORD", "write it into .env"), ()),
    "missing_env_file": (("secrets.env", "not found"), ()),
    "empty_file": (("docker-compose.yml", "empty"), ()),
    "nothing_here": (("there is no Mail Archiver in", "no compose file"), ()),
}


@pytest.fixture
def place(images: None, tmp_path: Path) -> Callable[[str], Path]:
    """Give a maker of copies: the directory of a case, with a copy of all that belongs to the case."""

    def copy(case: str) -> Path:
        first = Path(case).parts[0]
        target = tmp_path / "installations" / first
        shutil.copytree(FIXTURES / first, target, dirs_exist_ok=True)
        return target.parent / case

    return copy


def test_which_stacks_are_here_is_decided_by_what_they_are(place: Callable[[str], Path], tmp_path: Path) -> None:
    """A project of something else is passed over without a word; a stack that cannot be backed up is told, whatever words its path has."""
    archiver = place("refused/no_postgres").rename(tmp_path / "the archive that is a Mail Archiver")
    seen = look_at(
        [(place("refused/no_archiver"), None), (archiver, None), (tmp_path / "gone: is a Mail Archiver", None)]
    )

    assert seen.stacks == ()
    assert [str(archiver) in note or "gone" in note for note in seen.notes] == [True, True]


@pytest.fixture
def create(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Give what creates the containers of a directory (without starting them) and tells the project; removed afterwards."""
    made: list[str] = []

    def up(directory: Path, *options: str, project: str | None = None) -> str:
        name = project or engine.new_project()
        made.append(name)
        command = [
            "docker",
            "compose",
            "--project-name",
            name,
            *options,
            "up",
            "--no-start",
            "--no-build",
            "--pull",
            "never",
        ]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return name

    yield up
    for name in made:
        engine.remove_project(name)


def facts_of(found: Installation, directory: Path) -> Facts:
    """Tell what was found in the table's words."""

    def relative(source: str) -> str:
        return source.removeprefix(f"{directory}/").replace(found.project, "@PROJECT@")

    return Facts(
        project=found.project,
        application=found.application.name,
        postgres=found.postgres.name,
        database=found.database.name,
        superuser=found.database.superuser,
        superuser_password=found.database.superuser_password,
        user=found.database.user,
        password=found.database.password,
        port=found.database.port,
        pgdata=found.pgdata,
        data=(found.data_mount.kind, relative(found.data_mount.source), found.data_mount.target),
        keys=(found.keys_mount.kind, relative(found.keys_mount.source)) if found.keys_mount else None,
        configuration={
            file.archive_name.replace(f"outside{directory.parent}", "outside/...") for file in found.config_files
        },
        application_port=found.application_port,
    )


@pytest.mark.parametrize("case", CASES)
def test_what_the_compose_files_say_is_found(case: str, place: Callable[[str], Path]) -> None:
    """However a stack is written down, the same is found in it as Compose would run."""
    directory = place(case)
    expected = CASES[case]

    found = discover(directory)

    assert replace(expected, project=expected.project or directory.name) == facts_of(found, directory)
    assert {found.application.state, found.postgres.state} == {"absent"}
    assert configuration_problems(found)[0] == ""
    for file in found.config_files:
        assert file.path.is_file()


@pytest.mark.parametrize("case", CREATED)
def test_the_containers_say_the_same(
    case: str, place: Callable[[str], Path], create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Under any project name, what Docker tells of the containers is what the files had said; the project is found by the directory."""
    directory = place(case)
    project = create(directory)

    found = discover(directory)

    assert replace(CASES[case], project=project) == facts_of(found, directory)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    assert {found.application.state, found.postgres.state} == {"created"}
    assert found.postgres.image_id.startswith("sha256:")
    assert found.application.image_id.startswith("sha256:")


def test_files_that_were_named_on_the_command_line_are_known(
    place: Callable[[str], Path], create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """`docker compose -f ... --env-file ...` leaves no trace in the directory; the containers' labels have it."""
    directory = place("dotenv")
    (directory / ".env").rename(directory / "production.env")
    (directory / "docker-compose.yml").rename(directory / "stack, production.yml")
    project = create(directory, "--file", "stack, production.yml", "--env-file", "production.env")

    found = discover(directory)

    expected = replace(CASES["dotenv"], project=project, configuration={"stack, production.yml", "production.env"})
    assert expected == facts_of(found, directory)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_known_is_refused_by_name(case: str, place: Callable[[str], Path]) -> None:
    """Nothing is guessed: one sentence names what is ambiguous or wrong and what to try, and shows no secret."""
    wanted, unwanted = REFUSED[case]

    with pytest.raises(Refused) as caught:
        discover(place(f"refused/{case}"))

    said = str(caught.value)
    assert [words for words in wanted if words not in said] == []
    assert [words for words in unwanted if words in said] == []
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_what_runs_counts_more_than_what_was_written_since(
    place: Callable[[str], Path], create: Callable[..., str]
) -> None:
    """A compose file that was edited, broken or lost after the containers were made does not change what they are."""
    directory = place("upstream")
    file = directory / "docker-compose.yml"
    project = create(directory)
    expected = replace(CASES["upstream"], project=project)

    file.write_text(file.read_text().replace("masterkey", "edited").replace("postgres-data", "elsewhere"))
    assert facts_of(discover(directory), directory) == expected

    shutil.copy(FIXTURES / "refused" / "not_yaml" / "docker-compose.yml", file)
    found = discover(directory)
    assert facts_of(found, directory) == expected
    assert "yaml" in configuration_problems(found)[0]

    file.unlink()
    assert facts_of(discover(directory), directory) == replace(expected, configuration=set())


def test_a_stack_is_known_by_its_directory_never_by_its_project_alone(
    place: Callable[[str], Path], create: Callable[..., str], tmp_path: Path
) -> None:
    """Where another directory's containers have the project's name, that directory is named, and its data is never taken for this one's."""
    project = engine.new_project()
    here, there = tmp_path / "one" / project, tmp_path / "two" / project
    for copy in (here, there):
        shutil.copytree(place("named_volumes"), copy)
    create(there, project=project)
    link = tmp_path / "link"
    link.symlink_to(there)

    for way in (there, link, tmp_path / "one" / ".." / "two" / project):
        found = discover(way)
        assert (there, "created") == (found.directory, found.postgres.state)

    with pytest.raises(Refused) as caught:
        discover(here)
    assert str(there) in caught.value.message
    assert "COMPOSE_PROJECT_NAME" in caught.value.hint


def test_two_projects_in_one_directory_are_refused_until_one_is_named(
    place: Callable[[str], Path], create: Callable[..., str]
) -> None:
    """The refusal names both, and the name decides."""
    directory = place("upstream")
    first, second = create(directory), create(directory)

    with pytest.raises(Refused) as caught:
        discover(directory)

    assert first in caught.value.message
    assert second in caught.value.message
    assert "--project" in caught.value.hint
    assert second == discover(directory, project=second).project


def test_the_caller_s_own_compose_settings_choose_nothing(
    place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a shell, a timer or a worker has set for another stack does not reach this one."""
    directory = place("chosen_files")
    monkeypatch.setenv("COMPOSE_FILE", str(tmp_path / "another.yml"))
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "another")
    monkeypatch.setenv("COMPOSE_PROFILES", "another")
    monkeypatch.setenv("COMPOSE_ENV_FILES", str(tmp_path / "another.env"))
    monkeypatch.chdir(tmp_path)

    assert CASES["chosen_files"] == facts_of(discover(directory), directory)


def test_a_volume_that_stands_for_a_directory_is_read_there(
    place: Callable[[str], Path], create: Callable[..., str], tmp_path: Path
) -> None:
    """Its mount point is empty whenever no container runs; what another server holds is reached through Docker alone."""
    directory, disk = place("named_volumes"), tmp_path / "big disk"
    disk.mkdir()
    file = directory / "docker-compose.yml"
    options = f"""
    driver: local
    driver_opts: {{ type: none, o: "rw,bind", device: "{disk}" }}
"""
    file.write_text(file.read_text().rstrip("\n") + options)
    create(directory)
    assert disk == discover(directory).data_mount.host_path

    at_present = f'type: none, o: "rw,bind", device: "{disk}"'
    file.write_text(file.read_text().replace(at_present, 'type: tmpfs, o: "size=64m", device: tmpfs'))
    project = create(directory)
    found = discover(directory, project=project).data_mount
    assert ("volume", f"the-mail-of-{project}", None) == (found.kind, found.source, found.host_path)


@pytest.mark.parametrize(
    "way", ["the same", "through a link", "within", "around", "far around", "a reader", "no server"]
)
def test_who_else_mounts_the_data_is_noticed(
    way: str, place: Callable[[str], Path], create: Callable[..., str], tmp_path: Path
) -> None:
    """Two servers on one directory ruin it, whatever name it has for the second, and wherever around it the mount begins.

    Who can only read what is around, or is no server, is no danger; the second is worth a warning.
    """
    disk = tmp_path / "disk" / "mail"
    disk.mkdir(parents=True)
    (tmp_path / "link").symlink_to(disk)
    directory = place("named_volumes")
    file = directory / "docker-compose.yml"
    options = f'    driver_opts: {{ type: none, o: bind, device: "{disk}" }}\n'
    file.write_text(file.read_text() + options)
    create(directory)
    found = discover(directory)
    others = {
        "the same": disk, "through a link": tmp_path / "link", "within": disk / "pgdata", "around": disk.parent,
        "far around": tmp_path, "a reader": f"{disk.parent}:/srv:ro", "no server": disk.parent,
    }  # fmt: skip
    image = application_image() if way == "no server" else POSTGRES
    create(other_stack(tmp_path / "other", others[way], image))
    found_wrong = [problem.what for problem in problems(found)]

    if way in ("a reader", "no server"):
        refuse_other_users(found)
        assert not any("mounted by" in what for what in found_wrong)
        assert any("may write to" in what for what in found_wrong) == (way == "no server")
        return
    with pytest.raises(Refused, match="mounted by"):
        refuse_other_users(found)
    assert any("mounted by" in what for what in found_wrong)


def other_stack(directory: Path, mounted: Path | str, image: str) -> Path:
    """Write a compose file of somebody else's, who mounts a directory."""
    directory.mkdir()
    service = {"image": image, "volumes": [mounted if isinstance(mounted, str) else f"{mounted}:/anywhere"]}
    (directory / "compose.yaml").write_text(json.dumps({"services": {"other": service}}))
    return directory


# --- On the command line ---------------------------------------------------------------------------------------------


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Tell what is in a directory, and when each was changed."""
    every = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in every}


def closed_socket(place: Path) -> str:
    """Make a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    return f"unix://{place}"


@dataclass(frozen=True)
class Unprivileged(Operator):
    """The same person without the rights of root: a file that belongs to somebody else stays closed."""

    def command(self, *words: str) -> list[str]:
        """Write a command line that gives up every capability; a user who has none needs to give up nothing."""
        dropping = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
        return [*dropping, *super().command(*words)]


def forbidden_socket(place: Path) -> str:
    """Make a socket that is somebody else's."""
    address = closed_socket(place)
    place.chmod(0o600 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
    return address


def assert_refused(answer: Answer, *words: str, code: int = 1) -> None:
    """See one sentence with these words and one hint, the same on stderr and in the JSON, and no traceback."""
    assert code == answer.code, answer.stderr
    assert code == answer.value["exit_code"]
    assert [word for word in words if word not in answer.value["error"]] == []
    assert answer.value["hint"]
    assert f"error: {answer.value['error']}\nHINT: {answer.value['hint']}\n" == answer.stderr
    assert "\n" not in answer.value["error"]


@pytest.mark.parametrize("engine_at", ["missing", "forbidden"])
def test_without_docker_there_is_one_clear_sentence(
    engine_at: str, place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names the address and what is wrong with it; nothing is touched, and the exit code is 1."""
    operator = Unprivileged(place("upstream"), tmp_path / "backups")
    address, reason = {
        "missing": (f"unix://{tmp_path}/nothing.sock", "Docker is not running"),
        "forbidden": (forbidden_socket(tmp_path / "forbidden.sock"), "permission denied"),
    }[engine_at]
    monkeypatch.setenv("DOCKER_HOST", address)
    before = tree(operator.directory)

    assert_refused(operator.run("doctor"), address, reason)

    assert before == tree(operator.directory)
    assert not operator.repository.exists()


@pytest.mark.parametrize("engine_at", ["closed", "nobody's port", "unknown host", "ssh", "nonsense"])
def test_an_address_where_no_docker_answers_is_named(
    engine_at: str, place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever DOCKER_HOST says, nothing of the library below shows through."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address, reason = {
            "closed": (closed_socket(tmp_path / "closed.sock"), "Docker is not running"),
            "nobody's port": (f"tcp://127.0.0.1:{unused.getsockname()[1]}", "Docker is not running"),
            "unknown host": ("tcp://docker.invalid:2375", "cannot be reached"),
            "ssh": ("ssh://docker.invalid", "cannot be reached"),
            "nonsense": ("nonsense", "cannot be reached"),
        }[engine_at]
        monkeypatch.setenv("DOCKER_HOST", address)

        with pytest.raises(Refused) as caught:
            discover(place("upstream"))

    assert address in caught.value.message
    assert reason in caught.value.message
    assert "DOCKER_HOST" in caught.value.hint
    assert [word for word in ("Errno", "HTTP", "\n", "Error") if word in caught.value.message] == []


@pytest.mark.parametrize(
    ("wrong", "method"),
    [
        ("no Docker", "complete"), ("nothing runs", "online"), ("not YAML", "auto"), ("no directory", "hot"),
    ],
)  # fmt: skip
def test_what_cannot_be_backed_up_is_left_alone(
    wrong: str, method: str, place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A backup fails with exit code 1, one sentence and a hint, and leaves neither directory nor repository changed."""
    directory = place("refused/not_yaml" if wrong == "not YAML" else "upstream")
    words = {
        "no Docker": "Docker is not running",
        "nothing runs": "postgres) is absent, not running",
        "not YAML": "make no sense to Docker Compose",
        "no directory": "no-such-place",
    }[wrong]
    if wrong == "no Docker":
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    operator = Operator(directory / "no-such-place" if wrong == "no directory" else directory, tmp_path / "backups")
    before = tree(directory)

    answer = operator.run("backup", method)

    assert_refused(answer, words)
    if wrong == "nothing runs":
        assert f"cd {directory} && docker compose -p upstream up --detach postgres" == answer.value["hint"]
    assert before == tree(directory)
    assert not operator.repository.exists() or not list(operator.repository.iterdir())


def test_a_settings_entry_leads_to_the_same_installation(place: Callable[[str], Path], tmp_path: Path) -> None:
    """`--installation` shows what lies in the entry's directory; an id that the settings do not have is wrong usage: exit code 2."""
    directory = place("spaces, commas/my stack")
    settings = write_settings(
        tmp_path / "settings.yaml", {"main": {"directory": directory, "repository": tmp_path / "backups"}}
    )

    def doctor(installation: str) -> Answer:
        words = [PROGRAM, "doctor", "--json", "--installation", installation, "--settings", str(settings)]
        code, out, err = run_program(words)
        return Answer(code, json.loads(out), err)

    told = doctor("main")
    assert told.code == 1  # nothing runs
    assert told.value["installation"] == {
        "id": "main",
        "directory": str(directory),
        "project": "mystack",
        "application": {"service": "mailarchive-app", "image": "s1t5/mailarchiver:latest", "state": "absent"},
        "postgres": {"service": "postgres", "image": "postgres:17-alpine", "state": "absent"},
        "database": {"name": "MailArchiver", "user": "mailuser", "superuser": "mailuser"},
        "data": {"source": str(directory / "postgres data, all of it"), "pgdata": "/var/lib/postgresql/data"},
        "keys": str(directory / "data protection keys"),
        "configuration": ["docker-compose.yml", "the app.env"],
    }
    assert_refused(doctor("other"), "'other'", code=2)


def test_an_installation_at_work_is_left_alone(place: Callable[[str], Path], tmp_path: Path) -> None:
    """Exit code 75 tells a timer to come back later."""
    operator = Operator(place("upstream"), tmp_path / "backups")
    with installation_lock(operator.directory, "a test"):
        answer = operator.run("backup", "hot")

    assert answer.code == 75
    assert str(os.getpid()) in answer.value["error"]


def test_doctor_tells_what_of_the_configuration_is_not_backed_up(
    place: Callable[[str], Path], create: Callable[..., str]
) -> None:
    """A file that is gone, a variable that nothing sets and a compose file that Compose cannot read are pointed out by name."""
    directory = place("env_files/stack")
    create(directory)
    file = directory / "docker-compose.yml"

    def warnings() -> str:
        return "\n".join(each.what for each in problems(discover(directory)) if each.severity == "warning")

    assert "configuration" not in warnings()

    file.write_text(file.read_text().replace("DB: MailArchiver", "DB: ${MAB_TEST_NOT_SET}"))
    assert "MAB_TEST_NOT_SET" in warnings()

    (directory / "config" / "app.env").unlink()
    assert "config/app.env not found" in warnings()
