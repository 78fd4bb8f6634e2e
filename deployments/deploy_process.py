"""The process that brings all that is ours to a Prefect server: work pool, deployments, and what `prefect deploy` does not do.

`python -m deployments.deploy_process RENDERED-PREFECT-YAML`, with the server at PREFECT_API_URL. One process, since each
would import Prefect anew; and a process of its own, which leaves `serve` small and reads its own environment.
"""

from __future__ import annotations

import ssl
import sys
from functools import cache
from pathlib import Path

from prefect.cli import app
from prefect.client.orchestration import get_client

from deployments.reconcile import reconcile
from deployments.work_pool import lock_pool


def main() -> None:
    """Lock the pool, have Prefect deploy the file's deployments, and reconcile the rest."""
    file = Path(sys.argv[1])
    # Each of Prefect's clients, four for a deployment, reads the list of all authorities anew, also for a server asked without TLS:
    # half of the work. Nothing else is asked in this process, so that one context does for all.
    ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment]
    with get_client(sync_client=True) as client:
        lock_pool(client)
    prefect(["--no-prompt", "deploy", "--all", "--prefect-file", str(file)])
    with get_client(sync_client=True) as client:
        reconcile(client, file)


def prefect(words: list[str]) -> None:
    """Run a command of Prefect's own command line here; end this process where it fails."""
    sys.argv = ["prefect", *words]
    try:
        app()
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


if __name__ == "__main__":
    main()
