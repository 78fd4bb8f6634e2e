"""What is wanted of a backup of the host, what a restore of it would do, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.adapters.engine.volumes import User, Volume
from tasks.core.archive.manifest import Manifest, parse_manifest, written
from tasks.core.archive.system_contents import HostContents, HostImage, HostLink, HostProject, HostVolume
from tasks.core.errors import ArchiveDamaged, Refused, UsageError
from tasks.core.machine.judge import contents_text, host_problems
from tasks.core.machine.only import choose
from tasks.core.machine.paths import file_member, holds, path_of, path_problem
from tasks.core.machine.restore_plan import There, VolumeThere, plan_restore, require_free, require_sound
from tasks.core.machine.tar_words import warnings_of
from tasks.core.policy.history import HOST_RUNS, Entry, last_backup_failed
from tasks.core.policy.settings import parse_settings
from tasks.core.stack.installation import Mount, ServiceState
from tasks.machine.look import SeenHost, SeenVolume, database_obstacle
from tests.unit import values

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
VOLUME = HostVolume(name="data", member="volumes/data.tar", driver="local", labels={"a": "b"})
BOUND = HostVolume(
    name="bound",
    member="volumes/bound.tar",
    driver="local",
    options={"type": "none", "o": "bind", "device": "/srv/mail"},
)
IMAGE = HostImage(name="db:1", image_id="sha256:" + "1" * 64, digests=["db@sha256:" + "2" * 64], member="images/1.tar")
CONTENTS = HostContents(
    hostname="h", volumes=[VOLUME, BOUND], images=[IMAGE],
    projects=[HostProject(name="mail", directory="/srv/a", files=["/srv/a/docker-compose.yml", "/srv/a/.env"])],
    links=[HostLink(path="/etc/localtime", target="/usr/share/zoneinfo/UTC")], paths=["/etc"],
)  # fmt: skip
FILES = ["/etc/fstab", "/etc/docker/daemon.json", "/srv/a/docker-compose.yml", "/srv/a/.env"]
NOTHING = There({}, {}, {})


def host_manifest(**changes: object) -> Manifest:
    return values.manifest().model_copy(update={"method": "host", "host": CONTENTS, **changes})


@pytest.mark.parametrize(
    ("only", "volumes", "images", "files", "links"),
    [
        ((), 2, 1, 4, 1),
        (("volumes",), 2, 0, 0, 0),
        (("volume:data", "image:db:1"), 1, 1, 0, 0),
        (("project:mail",), 0, 0, 2, 0),
        (("file:/etc/",), 0, 0, 2, 1),
        (("file:/etc/localtime",), 0, 0, 0, 1),
        (("file:/",), 0, 0, 4, 1),
    ],
)
def test_only_names_single_pieces(only: tuple[str, ...], volumes: int, images: int, files: int, links: int) -> None:
    found = choose(CONTENTS, FILES, only)

    assert (len(found.volumes), len(found.images), len(found.files), len(found.links)) == (
        volumes,
        images,
        files,
        links,
    )


@pytest.mark.parametrize("word", ["volume:x", "image:db", "project:data", "file:/et", "file:etc", "data", "volume", ""])
def test_a_word_that_names_nothing_is_refused_with_what_there_is(word: str) -> None:
    with pytest.raises(UsageError) as refused:
        choose(CONTENTS, FILES, [word])

    assert "volume:data" in str(refused.value.hint)


def test_on_an_empty_host_all_is_made_but_what_stands_for_another_place() -> None:
    wanted = choose(CONTENTS, FILES, ())
    plan = plan_restore("b", wanted, NOTHING, replace=True)

    assert {each.act for each in plan.pieces if each.name != "bound"} == {"create"}
    assert plan.of("volume", "refuse") == {"bound"}
    free = plan_restore("b", wanted, replace_free(NOTHING), replace=False)
    assert free.of("volume", "create") == {"data", "bound"}
    # A stranger's volume never stands for a directory of this host.
    assert plan_restore("b", wanted, replace_free(NOTHING), replace=True, foreign=True).of("volume", "refuse") == {
        "bound"
    }


def replace_free(there: There) -> There:
    return replace(there, free=frozenset({"/srv/mail"}))


def test_what_is_there_stays_unless_that_is_said() -> None:
    wanted = choose(CONTENTS, FILES, ("volume:data", "images", "files"))
    there = There(
        {"data": VolumeThere()}, {"db:1": "sha256:other"},
        {"/etc/fstab": "same", "/etc/docker/daemon.json": "other", "/srv/a/.env": "unfit"},
    )  # fmt: skip
    kept, replaced = (plan_restore("b", wanted, there, replace=each) for each in (False, True))

    assert {each.name for each in kept.pieces if each.act == "refuse"} == {
        "data", "db:1", "/etc/docker/daemon.json", "/srv/a/.env",
    }  # fmt: skip
    assert {each.name for each in replaced.pieces if each.act == "replace"} == {
        "data",
        "db:1",
        "/etc/docker/daemon.json",
    }
    assert replaced.of("file", "refuse") == {"/srv/a/.env"}
    assert kept.of("file", "leave") == {"/etc/fstab"}
    with pytest.raises(Refused, match=r"nothing was restored.*volume data is there already") as refused:
        require_free(kept)
    assert "--replace" in str(refused.value.hint)


def test_a_plan_of_many_files_is_no_wall_of_text() -> None:
    files = [f"/etc/{number}" for number in range(5000)]
    wanted = choose(HostContents(hostname="h"), files, ())

    told = str(plan_restore("b", wanted, There({}, {}, {"/etc/1": "same"}), replace=False))
    assert len(told.splitlines()) < 70
    assert "more to create" in told
    assert "1 files are as in the backup" in told


@pytest.mark.parametrize("there", [VolumeThere(running=("app",)), VolumeThere(exchangeable=False)])
def test_a_volume_in_use_or_out_of_reach_is_never_replaced(there: VolumeThere) -> None:
    plan = plan_restore("b", choose(CONTENTS, [], ("volume:data",)), There({"data": there}, {}, {}), replace=True)

    assert plan.of("volume", "refuse") == {"data"}


def test_an_image_is_loaded_where_it_was_saved_and_else_told() -> None:
    digests = CONTENTS.model_copy(update={"images": [IMAGE.model_copy(update={"member": ""})]})

    by_hand = plan_restore("b", choose(digests, [], ("images",)), NOTHING, replace=False).pieces[0]
    assert (by_hand.act, IMAGE.digests[0] in by_hand.why) == ("by hand", True)
    there = There({}, {"db:1": IMAGE.image_id}, {})
    assert plan_restore("b", choose(CONTENTS, [], ("images",)), there, replace=False).pieces[0].act == "leave"


@pytest.mark.parametrize(
    ("links", "files"),
    [
        ([("/etc/a", "/root")], ["/etc/a/b"]),
        ([("/etc/a", "/root"), ("/etc/a/b", "c")], []),
        ([("/etc/../root/a", "b")], []),
        ([("etc/a", "b")], []),
        ([("/etc/a", "b")], ["/etc/a"]),
        ([("/etc/a", "b"), ("/etc/a", "c")], []),
        ([("/etc/a\n", "b")], []),
    ],
)
def test_links_that_would_lead_a_restore_elsewhere_are_refused(links: list[tuple[str, str]], files: list[str]) -> None:
    contents = HostContents(hostname="h", links=[HostLink(path=path, target=target) for path, target in links])

    with pytest.raises(Refused):
        require_sound(contents, files)
    require_sound(CONTENTS, FILES)


@pytest.mark.parametrize("names", [["../x"], ["a/b"], [""], ["-v"], ["a", "a"]])
def test_a_volume_has_a_volumes_name(names: list[str]) -> None:
    contents = HostContents(
        hostname="h", volumes=[HostVolume(name=each, member=f"volumes/{each}.tar", driver="local") for each in names]
    )

    with pytest.raises(Refused):
        require_sound(contents, [])


def test_paths_and_members_go_back_and_forth() -> None:
    assert all(path_of(file_member(each)) == each for each in FILES)
    assert path_of("manifest.json") == path_of("filesystem/a") == ""
    assert holds("/etc/", "/etc/fstab")
    assert not holds("/etc/fs", "/etc/fstab")
    assert path_problem("/a" * 30)
    assert path_problem("/" + "x" * 900)
    assert path_problem("/\udcff")


def test_a_manifest_of_a_host_says_what_it_holds_and_is_of_no_database() -> None:
    manifest = host_manifest()

    assert parse_manifest(written(manifest), source="m") == manifest
    assert (manifest.is_system, manifest.subject) == (True, "host")
    for changes in ({"host": None}, {"method": "hot"}):
        with pytest.raises(ArchiveDamaged, match="go together"):
            parse_manifest(written(host_manifest(**changes)), source="m")


def test_a_newer_version_is_told_before_its_fields_are_judged() -> None:
    text = written(host_manifest(version=4)).replace(b'"host"', b'"cloud"')

    with pytest.raises(ArchiveDamaged, match="manifest version 4; this program reads up to 2") as told:
        parse_manifest(text, source="m")
    assert told.value.hint == "update mailarchiver-backup"


def test_a_host_without_backups_or_with_old_ones_is_a_problem() -> None:
    record = values.record().model_copy(update={"manifest": host_manifest(created_at=NOW - timedelta(hours=10))})
    failed = Entry(run=HOST_RUNS[0], at=NOW, seconds=1, outcome="failed", message="full")

    assert host_problems([record], 11, None, now=NOW) == []
    assert "more than 9 hours" in host_problems([record], 9, None, now=NOW)[0]
    assert "no backup of the host yet" in host_problems([], 9, None, now=NOW)[0]
    assert "full" in host_problems([record], 11, failed, now=NOW)[0]


def test_a_failed_host_backup_says_nothing_of_the_database_and_the_other_way_round() -> None:
    host, hot = (Entry(run=each, at=NOW, seconds=1, outcome="failed") for each in (HOST_RUNS[0], "hot backup"))

    assert (last_backup_failed([host]), last_backup_failed([hot], HOST_RUNS)) == (None, None)
    assert (last_backup_failed([hot, host]), last_backup_failed([hot, host], HOST_RUNS)) == (hot, host)


@pytest.mark.parametrize(
    ("volumes", "paths", "state", "refused"),
    [
        (("pgdata",), (), "running", True),
        (("pgdata",), (), "exited", False),
        (("other",), (), "running", False),
        ((), ("/srv/volumes/pgdata/sub",), "running", True),
        ((), ("/srv",), "running", True),
        ((), ("/srv",), "exited", False),
        ((), ("/etc",), "running", False),
    ],
)
def test_the_database_at_work_is_no_piece_of_the_host(
    volumes: tuple[str, ...], paths: tuple[str, ...], state: ServiceState, refused: bool
) -> None:
    postgres = values.service("postgres", state=state)
    mount = Mount("volume", "pgdata", "/var/lib/postgresql/data", Path("/srv/volumes/pgdata"))
    stack = values.installation(postgres=postgres, data_mount=mount, pgdata="/var/lib/postgresql/data")
    users = (User("db", state == "running", True),)
    seen = SeenHost(
        tuple(SeenVolume(Volume(each, "local", place=Path(f"/srv/volumes/{each}")), users) for each in volumes),
        (), (), tuple(Path(each) for each in paths), (), (), "",
    )  # fmt: skip

    assert bool(database_obstacle(seen, stack)) == refused


def test_a_volume_that_was_at_work_is_told() -> None:
    live = CONTENTS.model_copy(update={"volumes": [VOLUME.model_copy(update={"consistent": False})]})

    assert "data (while in use)" in contents_text(live)
    assert "1 image" in contents_text(live)


def test_tars_words_about_many_files_are_bounded() -> None:
    said = "".join(f"tar: ./{number}: file changed as we read it\n" for number in range(30))

    assert warnings_of(said, 3) == [*(f"{number}: file changed as we read it" for number in range(3)), "and 27 more"]


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ({}, "names nothing"),
        ({"volumes": ["a", "a"]}, "twice"),
        ({"volumes": ["../a"]}, "volumes"),
        ({"projects": ["A b"]}, "projects"),
        ({"paths": ["etc"]}, "paths"),
        ({"paths": ["/"]}, "root directory"),
        ({"volumes": ["a"], "images": "all"}, "images"),
    ],
)
def test_settings_that_name_nothing_of_the_host_are_refused(host: dict[str, object], problem: str) -> None:
    main = {"directory": "/srv/mail", "repository": "/srv/backups", "host": host}

    with pytest.raises(UsageError, match=problem):
        parse_settings({"installations": {"main": main}}, source="the test")
