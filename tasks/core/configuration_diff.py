"""Show how an archive's configuration differs from the current one, without showing a secret."""

from __future__ import annotations

import difflib
import hashlib
import re

_SECRET = re.compile(
    r"(?i)([\w.\-]*(?:password|passwd|pwd|secret|token|apikey|api_key|client_?id)[\w.\-]*[\"']?\s*[:=]\s*)([^;\n]+)"
)


def configuration_diff(name: str, current: str | None, archived: str) -> str:
    """Give a unified diff from the current file to the archived one; "" where they are equal. Secrets appear as short fingerprints.

    >>> configuration_diff(".env", "POSTGRES_PASSWORD=a\\n", "POSTGRES_PASSWORD=a\\n")
    ''
    """
    if current == archived:
        return ""
    before = mask_secrets(current or "").splitlines()
    after = mask_secrets(archived).splitlines()
    origin = name if current is not None else "(missing)"
    return "\n".join(difflib.unified_diff(before, after, f"current/{origin}", f"archive/{name}", lineterm=""))


def mask_secrets(text: str) -> str:
    """Replace the value of everything that is named like a secret by a fingerprint that tells equal from different."""
    return _SECRET.sub(lambda found: f"{found[1]}<secret {_fingerprint(found[2])}>", text)


def _fingerprint(value: str) -> str:
    # Four hexadecimal digits tell a change from none, and tell a guesser next to nothing.
    return hashlib.sha256(value.strip().strip("\"'").encode()).hexdigest()[:4]
