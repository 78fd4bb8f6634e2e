"""A journal with rubbish in it is told by its name and kept; nothing that it says is done, and all others are settled (P15, P22)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.host.journals import list_journals, open_journal
from tasks.core.stack.journal_bodies import SHAPES
from tasks.recovery.recover import HANDLERS, recover

# Of each kind what a run of ours writes, with nothing behind it.
IDENTITY = {"device": 1, "inode": 2, "owner": 0, "parent": 3}
KEPT = {
    "database": "db_before_20260101_010101", "of": "db", "at": "2026-01-01T01:01:01+00:00", "backup": "b", "keys": "", "current_keys": "",
    "comment": None, "undone": False, "number": 5, "keys_identity": IDENTITY,
}  # fmt: skip
EXCHANGE = {
    "current": "/a/data",
    "incoming": "/a/data.new",
    "aside": "/a/data.old",
    "incoming_is": IDENTITY,
    "current_is": None,
}
WRITTEN: dict[str, dict[str, Any]] = {
    "stopped-services": {
        "reason": "r", "docker_host": "unix:///nowhere",
        "containers": [{"service": "s", "container_id": "c", "container_name": "n", "state": "running"}],
    },
    "replacement": {"database": "db_restored_20260101_010101", "keys": None, "project": "p", "role": ""},
    "swap": {"project": "p", "incoming": "i", "incoming_keys": "", "incoming_keys_identity": None, "kept": KEPT, "comment": None, "number": 7},
    "drop": {"project": "p", "database": "db", "number": 3, "keys": "", "keys_identity": None},
    "copy": {"project": "p", "data": "/a/data", "keys": "", "label": "0123456789abcdef"},
    "directory-swap": {"project": "p", "at": "a", "backup": "b", "exchanges": [EXCHANGE], "undone": False},
    "directory-drop": {"project": "p", "asides": ["/a/data.old"], "identities": [None]},
    "upgrade": {
        "project": "p", "at": "a", "from_image": "postgres:15", "to_image": "postgres:17", "data": EXCHANGE, "undone": False, "was": "running",
        "target": "/var/lib/postgresql/data",
        "files": [{"current": "/a/c.yml", "incoming": "/a/c.yml.new", "aside": "/a/c.yml.old", "incoming_sha256": "ab" * 32, "current_sha256": "cd" * 32}],
    },
    "application-upgrade": {
        "project": "p", "at": "a", "from_image": "m:1", "to_image": "m:2", "undone": False, "was": "running", "files": [],
        "database": {"kept": KEPT, "incoming": "i", "number": 7, "comment": None, "image_id": "sha256:a", "former_image_id": "sha256:b"},
        "application": {"image_id": "sha256:b", "digest": "", "mails": 3, "schema": "2026"},
    },
    "database-copy": {"project": "p", "database": "db_restored_20260101_010101"},
    "upgrade-files": {"project": "p", "files": ["/a/c.yml.new"]},
    "upgrade-drop": {
        "project": "p", "mark": {"word": "before", "stamp": "20260101_010101"}, "data": IDENTITY,
        "files": [{"path": "/a/c.yml", "sha256": "ab" * 32}],
    },
    "staging": {"project": "mailarchiver-staging-x", "directory": "/nowhere"},
    "scratch": {"scratch": "/nowhere/else"},
    "helper": {"mark": "0123456789abcdef"},
    "host-volume": {"volume": "mail_data", "former": 0},
    "lxc-container": {"reason": "r", "place": "/nowhere", "name": "mail", "former": "running", "asked": {"run": "a", "at": 1, "limit_seconds": 1}},
    "lxc-restore": {"place": "/nowhere", "name": "mail", "mark": "0123456789abcdef"},
    "vm-domain": {"reason": "r", "uri": "qemu:///system", "name": "mail", "former": "running", "asked": {"run": "a", "at": 1, "limit_seconds": 1}},
    "vm-restore": {
        "uri": "qemu:///system", "images": "/nowhere", "name": "mail", "uuid": "01234567-89ab-cdef-0123-456789abcdef", "mark": "0123456789abcdef",
    },
    "proxmox-guest": {
        "reason": "r", "host": "pve.example:8006", "node": "pve1", "guest": 101, "guest_kind": "lxc", "former": "running", "upid": "",
    },
    "proxmox-trial": {
        "reason": "r", "host": "pve.example:8006", "node": "pve1", "guest": 9000, "guest_kind": "qemu", "mark": "0123456789abcdef", "upid": "",
        "since": 1_795_000_000,
    },
}  # fmt: skip
RUBBISH: list[Any] = [
    None,
    7,
    -1,
    True,
    1e308,
    10**400,
    [],
    {},
    [[]],
    [None],
    {"a": "b"},
    "nul \0 in it",
    "half \ud800",
    "x" * 100_000,
    ["\0"],
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Make the directory of an installation that is none."""
    place = tmp_path / "installation"
    place.mkdir()
    return place


def plant(directory: Path, kind: str, body: Any, number: int, *, head: dict[str, Any] | None = None) -> Path:
    """Write a journal of a dead process, each of another one."""
    journal = open_journal(kind, {}, installation_id="main", installation_directory=directory)
    content = json.loads(journal.path.read_text()) | {
        "body": body,
        "owner": f"9-{number}",
        "kind": kind,
        **(head or {}),
    }
    path = journal.path.with_name(f"9-{number}-0001-{kind[:20]}.json")
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    journal.remove()
    return path


def test_every_kind_is_known() -> None:
    assert set(HANDLERS) == set(SHAPES) == set(WRITTEN)


@pytest.mark.parametrize("kind", HANDLERS)
def test_rubbish_in_a_body(kind: str, directory: Path, tmp_path: Path) -> None:
    """Wrong types, missing keys, NUL, huge: each is told by name with what to do, and the file stays."""
    bodies: list[Any] = [{}, {"a": 1}]
    for name in WRITTEN[kind]:
        bodies += [{**WRITTEN[kind], name: rubbish} for rubbish in RUBBISH]
    planted = {str(plant(directory, kind, body, number)) for number, body in enumerate(bodies)}
    scratch = tmp_path / ".mailarchiver-backup-20260101-010101.copy"
    scratch.mkdir()
    good = plant(directory, "scratch", {"scratch": str(scratch)}, 9999)

    results = recover()

    assert [each.message for each in results if each.settled and each.kind == "scratch"] == [f"removed {scratch}"]
    assert not good.exists()
    assert not scratch.exists()
    unsettled = [each.message for each in results if not each.settled]
    assert [words for words in unsettled if "unexpected" in words] == []
    not_ours = [words for words in unsettled if "is not a journal that this program writes" in words]
    assert len(not_ours) > len(bodies) // 2
    assert all("HINT: " in words and any(path in words for path in planted) for words in not_ours)
    for path in (Path(each) for each in planted):
        path.unlink(missing_ok=True)
    assert list_journals() == []


def test_rubbish_in_a_head(directory: Path) -> None:
    """It belongs to nobody, and is told all the same."""
    heads = [
        {name: rubbish}
        for name in ("kind", "installation_id", "installation_directory", "owner", "number", "pid", "created_at")
        for rubbish in RUBBISH
    ]
    for number, head in enumerate(heads):
        plant(directory, "scratch", {"scratch": "/nowhere"}, number, head=head)
    (nested := plant(directory, "helper", {}, 9998)).write_text("[" * 100_000)
    (empty := plant(directory, "helper", {}, 9999)).write_text("")

    results = recover()

    told = "\n".join(each.message for each in results)
    assert "unexpected" not in told
    assert str(nested) in told
    assert str(empty) in told
    assert not any(each.settled for each in results)
