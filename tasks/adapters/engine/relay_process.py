"""Carry connections to a container until stdin ends, which it does with our parent.

python -m tasks.adapters.engine.relay_process CONTAINER PORT
"""

from __future__ import annotations

import os
import sys

from tasks.adapters.engine.reach import listening
from tasks.core.errors import BackupError


def main() -> None:
    """Print the loopback address and port that were taken, and carry until stdin ends; print what is wrong instead where nothing can be."""
    container_id, port = sys.argv[1:]
    try:
        with listening(container_id, int(port)) as (host, taken):
            os.write(1, f"{host} {taken}\n".encode())
            while os.read(0, 4096):
                pass
    except BackupError as error:
        os.write(1, f"error {error.message}\n".encode())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
