"""An installation's signing key and what this host remembers of the backups made with it, in the state directory.

`identities/ID-HASH/` belongs to one installation's directory: `signing-key` (0600) is the private half, `identity.json`
says whose it is, and one `made-HASH.json` for each repository lists what was made there and not removed. All changes
are made by runs that hold the installation's lock. But `revisions-HASH/NAME.json` says which revision of a backup's
record was signed last: a verification signs too, and takes no lock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host.files import create_whole, make_directory
from tasks.adapters.host.outside_files import SIGNING_KEY, open_outside
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.archive.authenticity import Trust
from tasks.core.archive.signatures import KEY_BYTES, new_private_key, public_key
from tasks.core.errors import BackupError, Refused

logger = logging.getLogger(__name__)

KEY_FILE, NOTE, PRIVATE_PREFIX = "signing-key", "identity.json", "ed25519-private:"
KEY_FILE_LIMIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """What this host knows of an installation's own key; `public` is "" where there is none (yet, or any more)."""

    place: Path
    public: str
    made_at: datetime | None
    project: str
    system_identifier: str
    former: tuple[str, ...]

    @property
    def key_file(self) -> Path:
        """Name the file of the private half."""
        return self.place / KEY_FILE


def read_identity(installation: str, directory: Path) -> Identity:
    """Read what is known of an installation's key; make nothing. Raise Refused for a key file that is none."""
    place = _place(installation, directory)
    note = _note_in(place)
    private = _read_key(place / KEY_FILE)
    public = public_key(private) if private else ""
    noted = str(note.get("public", ""))
    former = tuple(dict.fromkeys([*_texts(note, "former"), *([noted] if noted and noted != public else [])]))
    return Identity(
        place, public, _moment(note.get("made_at")), str(note.get("project", "")), str(note.get("system_identifier", "")),
        tuple(each for each in former if each != public),
    )  # fmt: skip


def private_key(installation: str, directory: Path) -> bytes | None:
    """Give an installation's private key; None where it has none."""
    return _read_key(_place(installation, directory) / KEY_FILE)


def keys_of_this_host(installation: str) -> tuple[str, ...]:
    """Give the public keys with which this host has signed backups of an installation of this id, wherever it lives or lived."""
    found: list[str] = []
    for each in sorted(state_subdirectory("identities").glob(f"*/{NOTE}")):
        note = _note_in(each.parent)
        if note.get("installation") == installation:
            found += [str(note.get("public", "")), *_texts(note, "former")]
    return tuple(dict.fromkeys(each for each in found if each))


def require_key(installation: str, directory: Path, *, project: str, system_identifier: str) -> bytes:
    """Give an installation's private key, made where there is none, and note whose it is.

    A backup never fails because a key is gone: a new one is made, and said.
    """
    _follow_move(installation, directory, system_identifier)
    _put_aside_damaged(_place(installation, directory) / KEY_FILE)
    known = read_identity(installation, directory)
    private = _read_key(known.key_file)
    made_at = known.made_at
    if private is None:
        private, made_at = new_private_key(), datetime.now(UTC)
        text = PRIVATE_PREFIX + base64.urlsafe_b64encode(private).decode() + "\n"
        if not create_whole(known.key_file, text.encode()):
            return require_key(installation, directory, project=project, system_identifier=system_identifier)
        if known.former:
            logger.warning(
                "The signing key of %s was missing: a new one was made. Backups signed with %s count again once that key is put back, or"
                " stands in trusted_keys.", installation, known.former[-1],
            )  # fmt: skip
        else:
            logger.info("Made the signing key of %s: %s", installation, known.key_file)
    note = {
        "installation": installation, "directory": os.path.realpath(directory), "public": public_key(private),
        "made_at": made_at.isoformat() if made_at else None, "project": project,
        "system_identifier": system_identifier or known.system_identifier,
        "former": [each for each in known.former if each != public_key(private)],
    }  # fmt: skip
    write_json(known.place / NOTE, note)
    return private


def _put_aside_damaged(path: Path) -> None:
    """Keep a key file that cannot be understood under another name: it must not fail a backup."""
    try:
        _read_key(path)
    except Refused as error:
        aside = path.with_name(f"{KEY_FILE}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        os.rename(path, aside)
        logger.warning("%s; it is kept as %s", error.message, aside)


def read_trust(installation: str, directory: Path, repository: Path, trusted: tuple[str, ...] = ()) -> Trust:
    """Give what an installation's backups in a repository are judged by."""
    known = read_identity(installation, directory)
    made = read_made(known.place, repository)
    return Trust(
        installation, known.public, trusted, known.project, known.system_identifier,
        {each.name: each.digest for each in made.entries} if made is not None and made.key == known.public else None,
        read_revisions(known.place, repository),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """One backup that this host made: its name, its manifest's digest, and whether it is being sealed or removed."""

    name: str
    digest: str
    sequence: int
    state: str = ""


@dataclass(frozen=True, slots=True)
class MadeList:
    """What this host made in one repository with one key, in its order, and the last number given."""

    key: str
    sequence: int
    entries: tuple[Made, ...]


def read_made(place: Path, repository: Path) -> MadeList | None:
    """Read what was made in a repository; None where this host does not know."""
    try:
        found = read_json(_made_path(place, repository))
        if found is None:
            return None
        entries = [
            Made(str(each["name"]), str(each["digest"]), int(each["sequence"]), str(each.get("state", "")))
            for each in found["entries"]
        ]
        return MadeList(str(found["key"]), int(found["sequence"]), tuple(entries))
    except (BackupError, KeyError, TypeError, ValueError) as error:
        logger.warning(
            "%s cannot be understood, and is made anew by the next backup: %s", _made_path(place, repository), error
        )
        return None


def write_made(place: Path, repository: Path, made: MadeList) -> None:
    """Write what was made in a repository."""
    entries = [
        {"name": each.name, "digest": each.digest, "sequence": each.sequence, "state": each.state}
        for each in made.entries
    ]
    value = {"repository": str(repository), "key": made.key, "sequence": made.sequence, "entries": entries}
    write_json(_made_path(place, repository), value)


def read_revisions(place: Path, repository: Path) -> dict[str, int]:
    """Give the revisions of the records that were signed last, by the backups' names."""
    found = {path.stem: _read_revision(path) for path in _revisions(place, repository).glob("*.json")}
    return {name: revision for name, revision in found.items() if revision is not None}


def next_revision(place: Path, repository: Path, name: str, revision: int) -> int:
    """Give the revision of a record that is signed now, above its own and any before, and remember it."""
    directory = _revisions(place, repository)
    make_directory(directory)
    path = directory / f"{name}.json"
    found = max(revision, _read_revision(path) or 0) + 1
    write_json(path, {"revision": found})
    return found


def _read_revision(path: Path) -> int | None:
    try:
        return int((read_json(path) or {}).get("revision", 0))
    except (BackupError, TypeError, ValueError) as error:
        logger.warning("%s cannot be understood: %s", path, error)
        return None


def forget_revisions(place: Path, repository: Path, names: Iterable[str]) -> None:
    """Forget the revisions of backups that were removed."""
    for name in names:
        (_revisions(place, repository) / f"{name}.json").unlink(missing_ok=True)


def _revisions(place: Path, repository: Path) -> Path:
    return place / f"revisions-{_hash(os.path.abspath(repository))}"


def _made_path(place: Path, repository: Path) -> Path:
    return place / f"made-{_hash(os.path.abspath(repository))}.json"


def _place(installation: str, directory: Path) -> Path:
    state_subdirectory("identities")
    return state_subdirectory(f"identities/{installation}-{_hash(os.path.realpath(directory))}")


def _follow_move(installation: str, directory: Path, system_identifier: str) -> None:
    """Take over the identity of an installation that was moved: of the same id and cluster, its former directory gone."""
    place = _place(installation, directory)
    if not system_identifier or any(place.iterdir()):
        return
    moved = [
        each.parent
        for each in place.parent.glob(f"{installation}-*/{NOTE}")
        if (found := _note_in(each.parent)).get("installation") == installation
        and found.get("system_identifier") == system_identifier
        and not os.path.lexists(str(found.get("directory", "/")))
    ]
    if len(moved) == 1:
        logger.info("%s was moved to %s; its signing key goes with it", installation, directory)
        os.rename(moved[0], place)


def _note_in(place: Path) -> dict[str, Any]:
    try:
        return read_json(place / NOTE) or {}
    except BackupError as error:
        logger.warning("%s; the next backup writes it anew", error.message)
        return {}


def _read_key(path: Path) -> bytes | None:
    try:
        with open_outside(path, SIGNING_KEY) as (descriptor, found):
            if found.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
            text = os.read(descriptor, KEY_FILE_LIMIT_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    try:
        raw = base64.b64decode(text.removeprefix(PRIVATE_PREFIX), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if not text.startswith(PRIVATE_PREFIX) or len(raw) != KEY_BYTES:
        raise Refused(
            f"{path} is not a signing key",
            hint="put the copy of the key back, or remove the file: a new key is made then",
        )
    return raw


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _texts(note: Mapping[str, Any], key: str) -> list[str]:
    found = note.get(key)
    return [str(each) for each in found] if isinstance(found, list) else []


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
