"""The posture of an installation's backups: what makes a bad day worse, why, and what to do. Decided from what was seen, touching nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tasks.core.policy.mail_at_risk import MailOnServers
from tasks.core.policy.settings import RiskKind


@dataclass(frozen=True, slots=True)
class Weakness:
    """One thing that is weak: its kind (by which the settings may accept it), what is seen, why that matters, and what to do."""

    kind: RiskKind
    what: str
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class PostureSeen:
    """What was looked up of an installation.

    `off_site` are the targets at another site, each with whether a copy that counts lies there. `key_files` are files of this machine
    with a key that opens its archives. `wipeable` are targets whose copies this machine could remove, `default_passwords` the names
    of settings that have a well-known one, `readable` the files that every user of this machine may read. `listening` are the addresses
    at which Prefect's server listens here, `prefect_addresses` those by which it is asked. `unseen` is what could not be looked at, and why.
    """

    encrypted: bool
    off_site: Sequence[tuple[str, bool]] = ()
    key_files: Collection[Path] = ()
    wipeable: Sequence[str] = ()
    default_passwords: Collection[str] = ()
    readable: Collection[Path] = ()
    listening: Collection[str] = ()
    prefect_addresses: Collection[str] = ()
    mail: MailOnServers | None = None
    unseen: Sequence[str] = ()


def weaknesses(seen: PostureSeen) -> tuple[Weakness, ...]:
    """List what is weak, what costs most on a bad day first."""
    return (
        *_of_mail(seen), *_of_copies(seen), *_of_encryption(seen), *_of_passwords(seen), *_of_files(seen), *_of_prefect(seen)
    )  # fmt: skip


def not_accepted(found: Sequence[Weakness], accepted: Collection[RiskKind]) -> tuple[Weakness, ...]:
    """Give those of which the settings do not say that they are accepted (`accept_risks`)."""
    return tuple(each for each in found if each.kind not in accepted)


def _of_mail(seen: PostureSeen) -> list[Weakness]:
    if seen.mail is None or not seen.mail.is_at_risk:
        return []
    return [
        Weakness(
            "mail_at_risk",
            str(seen.mail),
            "mail that its server has deleted is on this machine alone: a fire or a thief takes it for good",
            "back up, verify and copy away more often than that (schedule, verification, copies), or raise DeleteAfterDays of the accounts",
        )
    ]


def _of_copies(seen: PostureSeen) -> list[Weakness]:
    found = []
    if not any(has_copy for _, has_copy in seen.off_site):
        names = ", ".join(name for name, _ in seen.off_site)
        found.append(
            Weakness(
                "no_off_site_copy",
                f"no copy is at {names} yet" if names else "there is no off-site copy: no target of `copies` is marked off_site",
                "what takes this machine (fire, theft, ransomware) takes all of its backups with it",
                f"mailarchiver-backup copy {seen.off_site[0][0]}" if names
                else "name a target elsewhere in the settings (`copies`, off_site: true), and run `mailarchiver-backup copy`",
            )
        )  # fmt: skip
    if seen.wipeable:
        found.append(
            Weakness(
                "unlocked_target",
                f"this machine could wipe the copies at {', '.join(seen.wipeable)}",
                "anyone who takes the machine over, ransomware for one, can remove them too",
                "lock them (S3 object lock: lock_days), or give rclone a key there that may write and not remove",
            )
        )
    return found


def _of_encryption(seen: PostureSeen) -> list[Weakness]:
    found = []
    if not seen.encrypted:
        found.append(
            Weakness(
                "unencrypted",
                "archives are not encrypted",
                "anyone who gets hold of one reads all mail, and the mailboxes' passwords, which the database keeps in clear text",
                "`mailarchiver-backup keygen`, and its public key as encryption.recipients in the settings",
            )
        )
    for path in sorted(seen.key_files):
        found.append(
            Weakness(
                "key_beside_backups",
                f"a key that opens the archives lies on this machine: {path}",
                "anyone who takes the machine has backups and key together, so the encryption protects nothing; and what destroys it destroys the key",
                "print it (`recovery-sheet --identity`), keep it away from here, and remove the file",
            )
        )
    return found


def _of_passwords(seen: PostureSeen) -> list[Weakness]:
    return [
        Weakness(
            "default_password",
            f"{name} is the guide's well-known default",
            "everybody who reaches the port can log in, read all mail and remove it",
            "change it: where it is stored (the database's role, the user's profile), and in the compose file or .env",
        )
        for name in sorted(seen.default_passwords)
    ]


def _of_files(seen: PostureSeen) -> list[Weakness]:
    return [
        Weakness(
            "readable_by_others",
            f"{path} can be read by every user of this machine",
            "it holds passwords, keys or mail",
            f"chmod o-rwx {path}",
        )
        for path in sorted(seen.readable)
    ]


def _of_prefect(seen: PostureSeen) -> list[Weakness]:
    why = "password, reports and commands cross the network in clear text: anyone who listens can then start a restore"
    found = [
        Weakness(
            "prefect_without_tls",
            f"Prefect's server listens at {address} without TLS",
            why,
            "let it listen at 127.0.0.1, behind a reverse proxy with TLS or an SSH tunnel (PREFECT_UI_API_URL=https://NAME/api)",
        )
        for address in sorted(set(seen.listening))
        if not is_loopback(address)
    ]
    return found + [
        Weakness(
            "prefect_without_tls",
            f"Prefect's server is asked at {plain_address(address)} without TLS",
            why,
            "give it a name with TLS: https://NAME/api",
        )
        for address in sorted(set(seen.prefect_addresses))
        if _is_plain_and_far(address)
    ]


def is_loopback(address: str) -> bool:
    """Tell whether an address (`HOST`, `HOST:PORT`, `[HOST]:PORT`) is of this machine alone.

    >>> [is_loopback(each) for each in ("127.0.0.1:4200", "[::1]:4200", "localhost", "0.0.0.0:4200", "[::]:4200", "10.0.0.1")]
    [True, True, True, False, False, False]
    """
    try:
        host = urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def plain_address(address: str) -> str:
    """Give an address without the password that may stand in it.

    >>> plain_address("http://me:secret@backups.lan:4200/api")
    'http://backups.lan:4200/api'
    """
    head, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _is_plain_and_far(address: str) -> bool:
    try:
        found = urlsplit(address)
        host, port = found.hostname or "", found.port
    except ValueError:
        return False
    shown = f"[{host}]" if ":" in host else host
    return found.scheme == "http" and bool(host) and not is_loopback(shown if port is None else f"{shown}:{port}")
