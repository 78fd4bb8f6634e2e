"""Whose backup is it: what a signature, an id and our own memory of what we made say of a record (P22).

**The key decides.** A writer to a repository can write any id, project and system identifier into a record, and nothing but the key is
out of their reach. The other three are compared all the same:

- The *id* must be the installation's: one host may keep two installations' keys, and `trusted_keys` may name a key of several.
- The *system identifier* changes rightly: a dump restored on a fresh host lives in a cluster with an identifier of its own, and so does one
  restored into a new PostgreSQL major version. The *project* changes when a directory is renamed. So with the installation's own key a
  change of either is told and refuses nothing. With a trusted key, of another host, at least one of the two must be ours: two living
  installations that trust each other's keys by mistake must not remove each other's backups.
- *What we made*: this host remembers the name and digest of every backup that it signed in a repository and has not removed. A backup with our
  own signature that is not among them was put back after it was removed, or made with a copy of the key elsewhere; it is not counted.
- *What we wrote of it*: a record is signed anew with each verdict, and counts its revisions. One of a lower revision than this host has signed last
  was put back in place of a newer one, and with it a verdict that has been refuted since; it is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.archive import signatures
from tasks.core.archive.manifest import Manifest, Origin, Record, RecordSignature

State = Literal["authentic", "unsigned", "foreign", "forged"]
Chain = Literal["", "missing link", "replayed", "outdated"]

MANIFEST, RECORD = "manifest", "record"
UNSIGNED_HINT = "`mailarchiver-backup adopt` signs it after a full check"


@dataclass(frozen=True, slots=True)
class Trust:
    """What an installation goes by: its id, its own public key ("": none yet), others that it trusts, and what it knows of itself.

    `project` and `system_identifier` are those of its last backup, "" where none is known. `made` are the names of the
    backups that it made in this repository and has not removed, each with its manifest's digest; None where this host
    does not know. `revisions` are those of the records that it signed last.
    """

    installation: str
    own: str = ""
    trusted: tuple[str, ...] = ()
    project: str = ""
    system_identifier: str = ""
    made: Mapping[str, str] | None = None
    revisions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Authenticity:
    """Whose a backup is, why, what is wrong with its place in the chain, and what else is to be told (`notes`)."""

    state: State
    reason: str = ""
    chain: Chain = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def is_own(self) -> bool:
        """Tell whether the archive is the installation's own, be its record the newest or not: it is restored and verified as such."""
        return self.state == "authentic" and self.chain != "replayed"

    @property
    def counts(self) -> bool:
        """Tell whether `latest`, retention, alarms and reports may see it; one whose predecessor is missing does count."""
        return self.is_own and self.chain != "outdated"

    def __str__(self) -> str:
        """Name the state in a word or two, as lists do."""
        return self.chain if self.state == "authentic" and self.chain else self.state


def manifest_digest(manifest: Manifest) -> str:
    """Give what the next manifest names as the one before, and what this host remembers: the digest of all but the signature."""
    return signatures.digest(_signed_manifest(manifest))


def sign_manifest(manifest: Manifest, private: bytes, *, sequence: int, previous: str) -> Manifest:
    """Give a manifest its origin and its signature."""
    origin = Origin(key=signatures.public_key(private), sequence=sequence, previous=previous)
    bare = manifest.model_copy(update={"origin": origin})
    signature = signatures.sign(private, MANIFEST, _signed_manifest(bare))
    return bare.model_copy(update={"origin": origin.model_copy(update={"signature": signature})})


def sign_record(record: Record, private: bytes) -> Record:
    """Give a record its signature, instead of the one it had."""
    key = signatures.public_key(private)
    signature = signatures.sign(private, RECORD, _signed_record(record))
    return record.model_copy(update={"signature": RecordSignature(key=key, signature=signature)})


def authenticity_of(
    trust: Trust,
    record: Record | None,
    manifest: Manifest | None = None,
    *,
    name: str = "",
    file_bytes: int | None = None,
) -> Authenticity:
    """Classify a backup by its record; by its `manifest` (read from the archive) where it has no record.

    `name` and `file_bytes` are those of the archive's file, where there is one to compare.
    """
    if record is None:
        if manifest is None:
            return Authenticity("unsigned", "it has no record of this program")
        return _as_named(_of_manifest(trust, manifest), manifest, name)
    about = record.manifest
    if name and about.name != name:
        return _as_named(authenticity_of(trust, record), about, name)
    if file_bytes is not None and record.bytes != file_bytes:
        return Authenticity(
            "forged" if record.signature else "unsigned",
            f"it is not the file that its record describes: {file_bytes:,} bytes, not {record.bytes:,}",
        )
    if manifest is not None and manifest_digest(manifest) != manifest_digest(about):
        return Authenticity("forged", "its record describes another archive: their manifests differ")
    if record.signature is None:
        return _unsigned(trust, about)
    if not _record_holds(record) or (about.origin is not None and not _manifest_holds(about)):
        return Authenticity(
            "forged", f"its signature does not hold: it was changed after {_short(record.signature.key)} signed it"
        )
    return _newest(trust, record, _signed(trust, about, record.signature.key))


def _newest(trust: Trust, record: Record, found: Authenticity) -> Authenticity:
    newest = trust.revisions.get(record.manifest.name, 0)
    if found.state != "authentic" or found.chain or record.revision >= newest:
        return found
    why = (
        f"its record is an older one, put back in place of a newer (revision {record.revision}, not {newest}): its verdict does not count;"
        f" `mailarchiver-backup verify {record.manifest.name}` judges it anew"
    )
    return Authenticity("authentic", why, "outdated", found.notes)


def chain_problems(trust: Trust, found: Mapping[str, Authenticity]) -> list[str]:
    """Name what this host made in the repository, has not removed, and no longer finds there as its own."""
    return [
        f"{name} is missing, or no longer what was made" for name in sorted(trust.made or ())
        if name not in found or not found[name].is_own
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Places:
    """What the places of backups in their chains are judged by: the digest of each, and its number, with the key that signed it."""

    digests: frozenset[tuple[str, str]]
    sequences: frozenset[tuple[str, int]]


def places_of(manifests: Iterable[Manifest]) -> Places:
    """Digest each of a repository's own manifests once, however many are judged by them."""
    signed = [(each, each.origin) for each in manifests if each.origin is not None]
    return Places(
        digests=frozenset((origin.key, manifest_digest(each)) for each, origin in signed),
        sequences=frozenset((origin.key, origin.sequence) for _, origin in signed),
    )


def with_chain(trust: Trust, places: Places, manifest: Manifest, found: Authenticity) -> Authenticity:
    """Look at a backup's place in the chain: is the one before it there, which it names and which this host has not removed?"""
    origin = manifest.origin
    if found.state != "authentic" or found.chain or origin is None or not origin.previous:
        return found
    if (origin.key, origin.previous) in places.digests:
        return found
    remembered = trust.made is not None and origin.previous in trust.made.values()
    contradicted = (origin.key, origin.sequence - 1) in places.sequences
    if remembered or contradicted:
        return Authenticity(found.state, "the backup before it is missing", "missing link", found.notes)
    return found


def _as_named(found: Authenticity, manifest: Manifest, name: str) -> Authenticity:
    """Judge a backup under a name that need not be its own: genuine bytes under another name are a replay."""
    if not name or manifest.name == name:
        return found
    why = f"it is {manifest.name} under another name"
    if found.state == "authentic":
        return Authenticity("authentic", why, "replayed", found.notes)
    return Authenticity("forged" if found.state == "unsigned" else found.state, why)


def _of_manifest(trust: Trust, manifest: Manifest) -> Authenticity:
    if manifest.origin is None:
        return _unsigned(trust, manifest)
    if not _manifest_holds(manifest):
        return Authenticity("forged", f"the signature by {_short(manifest.origin.key)} in its manifest does not hold")
    return _signed(trust, manifest, manifest.origin.key)


def _unsigned(trust: Trust, manifest: Manifest) -> Authenticity:
    if manifest.installation != trust.installation:
        return Authenticity("foreign", _of_another(trust, manifest))
    return Authenticity("unsigned", f"nobody has signed it; {UNSIGNED_HINT}")


def _signed(trust: Trust, manifest: Manifest, signer: str) -> Authenticity:
    """Judge what is signed rightly: `signer` wrote the record last (a verdict, say), the manifest's origin made the backup."""
    key = manifest.origin.key if manifest.origin is not None else signer
    for each in (key, signer):
        if each not in (trust.own, *trust.trusted):
            return Authenticity("foreign", f"it is signed with a key that is not trusted here: {each}")
    if manifest.installation != trust.installation:
        return Authenticity("foreign", _of_another(trust, manifest))
    changes = _changes(trust, manifest)
    if key != trust.own:
        if len(changes) == 2:
            return Authenticity(
                "foreign", f"it is signed with the trusted key {_short(key)}, but {' and '.join(changes)}"
            )
        return Authenticity("authentic", notes=tuple(changes))
    if trust.made is not None and trust.made.get(manifest.name) != manifest_digest(manifest):
        why = "it was not made here, or was removed and put back"
        return Authenticity("authentic", f"our own signature, yet {why}", "replayed", tuple(changes))
    return Authenticity("authentic", notes=tuple(changes))


def _changes(trust: Trust, manifest: Manifest) -> list[str]:
    changes = []
    theirs, ours = manifest.database.system_identifier, trust.system_identifier
    if theirs and ours and theirs != ours:
        changes.append(f"it is of the cluster {theirs}, not of {ours}")
    if trust.project and manifest.project != trust.project:
        changes.append(f"it is of the project {manifest.project!r}, not of {trust.project!r}")
    return changes


def _of_another(trust: Trust, manifest: Manifest) -> str:
    return f"it is of the installation {manifest.installation!r}, not of {trust.installation!r}"


def _record_holds(record: Record) -> bool:
    seal = record.signature
    return seal is not None and signatures.holds(seal.key, seal.signature, RECORD, _signed_record(record))


def _manifest_holds(manifest: Manifest) -> bool:
    origin = manifest.origin
    return origin is not None and signatures.holds(origin.key, origin.signature, MANIFEST, _signed_manifest(manifest))


def _signed_manifest(manifest: Manifest) -> dict[str, Any]:
    value = manifest.model_dump(mode="json")
    if manifest.origin is not None:
        value["origin"] = {key: each for key, each in value["origin"].items() if key != "signature"}
    return value


def _signed_record(record: Record) -> dict[str, Any]:
    value = record.model_dump(mode="json")
    value.pop("signature", None)
    return value


def _short(key: str) -> str:
    return key[:20] + "..." if len(key) > 20 else key
