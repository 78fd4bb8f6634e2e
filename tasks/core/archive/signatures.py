"""Ed25519 signatures over JSON values: what is signed, by which key, and whether a signature holds.

A value's canonical form leaves out what is empty (null, false, 0, "", [] and {}), sorts keys and has no spaces. So a
reader that knows more or fewer fields than the writer computes the same bytes, as long as a field added later means by
its empty value what its absence meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_PREFIX = "ed25519:"
PUBLIC_KEY = r"ed25519:[A-Za-z0-9_-]{43}"
KEY_BYTES = 32


def canonical(value: Any) -> bytes:
    """Give the bytes that stand for a JSON value.

    >>> canonical({"b": 1, "a": {"x": None, "y": 0}, "c": [0, ""]})
    b'{"b":1,"c":[0,""]}'
    """
    kept = _without_empty(value)
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(value: Any) -> str:
    """Give the SHA-256 of a value's canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def new_private_key() -> bytes:
    """Make a key: the 32 bytes of its private half."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> str:
    """Give a key's public half as text."""
    return _text(Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw(), KEY_PREFIX)


def public_key_problem(text: str) -> str:
    """Say in words why a text is no public key; "" where it is one."""
    if not re.fullmatch(PUBLIC_KEY, text):
        return f"is not a public key: {KEY_PREFIX} and 43 letters, as `mailarchiver-backup doctor` prints it"
    return ""


def sign(private: bytes, purpose: str, value: Any) -> str:
    """Sign a value for one purpose: a signature of a manifest can never stand for one of a record."""
    return _text(Ed25519PrivateKey.from_private_bytes(private).sign(_message(purpose, value)))


def holds(key: str, signature: str, purpose: str, value: Any) -> bool:
    """Tell whether a signature of this value, for this purpose, was made with the private half of `key`."""
    if public_key_problem(key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(_bytes(key.removeprefix(KEY_PREFIX))).verify(
            _bytes(signature), _message(purpose, value)
        )
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _message(purpose: str, value: Any) -> bytes:
    return f"mailarchiver-backup {purpose} 1\n".encode() + hashlib.sha256(canonical(value)).digest()


def _without_empty(value: Any) -> Any:
    """Leave empty members of objects out, at every depth; a list keeps its length."""
    # Thousands of files are listed, each an object of plain values: only what holds others is looked into.
    if isinstance(value, dict):
        kept = {}
        for key, each in value.items():
            found = _without_empty(each) if isinstance(each, dict | list) else each
            if found:
                kept[key] = found
        return kept
    if isinstance(value, list):
        return [_without_empty(each) if isinstance(each, dict | list) else each for each in value]
    return value


def _text(raw: bytes, prefix: str = "") -> str:
    return prefix + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
