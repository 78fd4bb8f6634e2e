"""Encrypt or decrypt one age file from stdin to stdout, in a process of its own: the library holds Python's lock while it works.

The first line of stdin is a JSON list of keys; so no key stands in arguments or environment. What went wrong is the last line of stderr.
"""

from __future__ import annotations

import json
import resource
import sys

import pyrage

from tasks.adapters.archive.age_keys import identities_of, recipients_of

NO_KEY = "No matching keys found"


def main(direction: str) -> int:
    """Do it; return 0 where all of it was done."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        keys = json.loads(source.readline())
        if direction == "encrypt":
            pyrage.encrypt_io(source, sink, recipients_of(keys))
        else:
            pyrage.decrypt_io(source, sink, identities_of(keys))
        sink.flush()
    except (pyrage.DecryptError, pyrage.EncryptError, pyrage.IdentityError, pyrage.RecipientError, OSError) as error:
        sys.stderr.write(f"{' '.join(str(error).split()) or type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
