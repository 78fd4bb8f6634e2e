"""Check the archives named on stdin, one a line, and tell how many were refused, what it took at most, and which took longest."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.repository import list_backups
from tasks.core.errors import BackupError
from tests.corpus.memory import peak_kib


def main() -> None:
    logging.disable()
    refused, slowest, which = 0, 0.0, ""
    for line in sys.stdin.read().split("\n"):
        begun = time.monotonic()
        try:
            check_archive(Path(line))
        except BackupError:
            refused += 1
        list_backups(Path(line).parent)
        took = time.monotonic() - begun
        if took > slowest:
            slowest, which = took, line
    told = {"refused": refused, "memory_kib": peak_kib(), "slowest_seconds": round(slowest, 2), "slowest": which}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
