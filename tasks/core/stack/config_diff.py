"""Show how an archive's configuration differs from the current one, without showing a secret."""

from __future__ import annotations

import difflib
import hashlib
import re

# A whole word that holds one of these: looked at once from where it begins, so that a stranger's long line costs no long time.
_NAME = (
    r"""(?P<name>(?<![\w.\-])(?=[\w.\-]*?(?:password|passwd|passphrase|pwd|secret|token|credential|client_?id|api_?key"""
    r"""|(?:access|account|encryption|licen[cs]e|private|signing)[_\-]?key))[\w.\-]+["']?[ \t]*[:=])"""
)
# YAML: a block, or a value that begins on a line of its own; not the settings of a section that is merely named like a secret.
_BELOW = re.compile(
    r"(?im)^(?P<indent>[ \t]*)(?P<dash>(?:-[ \t]+)?[\"']?)"
    + _NAME
    + r"[ \t]*(?:[|>][-+\d]*[ \t]*(?:#.*)?|(?=\n(?P=indent)[ \t]+(?![ \t]|-[ \t]|[\w.\-]+[\"']?:(?:\s|$))))"
    + r"\n(?P<block>(?:(?:(?P=indent)[ \t]+.*|[ \t]*)(?:\n|\Z))+?)(?=(?!(?P=indent)[ \t]|[ \t]*\n)|\Z)"
)
# A quoted value ends with its quote where the setting does; in a connection string a value ends before the next key;
# all else with the line.
_SECRET = re.compile(
    r"(?i)(?P<connection>(?:;|=|[=:]\s*[\"'])\s*)?"
    + _NAME
    + r"""(?P<space>[ \t]*)(?P<value>"(?:[^"\\\n]|\\.)*"(?=\s*(?:[,}\];]|\#|\n|$))|'[^'\n]*'(?=\s*(?:[,}\];]|\#|\n|$))"""
    + r"""|(?(connection)(?:[^;\n]|;(?!\s*[a-z][\w ]*=))+|[^\n]+))"""
)
_ADDRESS = re.compile(r"""(?P<before>://[^\s:@/"']*:)(?P<value>[^\s/"']+)(?=@)""")


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
    text = _BELOW.sub(lambda at: f"{at['indent']}{at['dash']}{at['name']} {_digest(at['block'])}\n", text)
    text = _SECRET.sub(lambda at: f"{at['connection'] or ''}{at['name']}{at['space']}{_masked(at['value'])}", text)
    return _ADDRESS.sub(lambda at: f"{at['before']}{_masked(at['value'])}", text)


def _masked(value: str) -> str:
    # Four hexadecimal digits tell a change from none, and tell a guesser next to nothing.
    return f"<secret {_digest(value)[:4]}>"


def _digest(value: str) -> str:
    return hashlib.sha256(value.strip().strip("\"'").encode("utf-8", "surrogateescape")).hexdigest()
