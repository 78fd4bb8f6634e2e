"""A later version of the stand-in: it runs its migrations before it listens, as the real application does, and only logs a failed one.

`/app/migrations/*.sql` are its migrations, in the order of their names; each is written into the history once it has run.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psycopg
import standin

MIGRATIONS = sorted(Path("/app/migrations").glob("*.sql"))


def main() -> None:
    """Bring the schema to this version, and serve."""
    standin.migrate()
    try:
        for file in MIGRATIONS:
            with standin.connect() as connection:
                known = 'SELECT 1 FROM public."__EFMigrationsHistory" WHERE "MigrationId" = %s'
                if connection.execute(known, [file.stem]).fetchone() is None:
                    connection.execute(file.read_text())
                    connection.execute(
                        'INSERT INTO public."__EFMigrationsHistory" VALUES (%s, %s)', [file.stem, "10.0.0"]
                    )
                    print(f"applied {file.stem}", flush=True)
    except psycopg.Error as error:
        print(f"An error occurred while migrating the database: {error}", flush=True)
    if "--never-listens" in sys.argv:
        signal.pause()
    standin.main()


if __name__ == "__main__":
    main()
