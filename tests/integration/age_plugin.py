"""A plugin of age's for tests, `age-plugin-testplug`: it keeps a file's key by turning its bits over, as no real plugin would.

Written next to nothing but the protocol (C2SP age-plugin): states of stanzas on stdin and stdout.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

NAME = "testplug"
_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

PROGRAM = f"""#!{sys.executable}
import base64, sys

def read():
    words = sys.stdin.readline().split()[1:]
    body = ""
    while True:
        line = sys.stdin.readline().strip()
        body += line
        if len(line) < 64:
            return words, base64.b64decode(body + "=" * (-len(body) % 4))

def write(words, body=b""):
    text = base64.b64encode(body).decode().rstrip("=")
    lines = [text[at:at + 64] for at in range(0, len(text), 64)] or [""]
    if len(lines[-1]) == 64:
        lines.append("")
    sys.stdout.write("-> " + " ".join(words) + "\\n" + "\\n".join(lines) + "\\n")
    sys.stdout.flush()

turned = lambda data: bytes(each ^ 0x55 for each in data)
keys, found = [], []
while True:
    words, body = read()
    if words[0] == "done":
        break
    if words[0] == "wrap-file-key":
        keys.append(body)
    if words[0] == "recipient-stanza" and words[2] == "{NAME}":
        found.append((words[1], body))
if sys.argv[1].endswith("recipient-v1"):
    for number, key in enumerate(keys):
        write(["recipient-stanza", str(number), "{NAME}"], turned(key))
        read()
else:
    for number, body in found:
        write(["file-key", number], turned(body))
        read()
write(["done"])
"""


def install_plugin(directory: Path) -> None:
    """Write the plugin's program into a directory that is to be on PATH."""
    path = directory / f"age-plugin-{NAME}"
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def plugin_recipient() -> str:
    return _bech32(f"age1{NAME}", b"somebody")


def plugin_identity() -> str:
    return _bech32(f"age-plugin-{NAME}-", b"somebody").upper()


def _bech32(prefix: str, data: bytes) -> str:
    """Write bytes as age writes keys (BIP 173)."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    expanded = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    check = 1
    for value in [*expanded, *values, *[0] * 6]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    check ^= 1
    values += [check >> 5 * (5 - number) & 31 for number in range(6)]
    return f"{prefix}1{''.join(_LETTERS[value] for value in values)}"
