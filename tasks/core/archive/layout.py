"""The names of an archive's members: the one place where they are spelled.

Every archive has one top directory of the backup's name; these names are relative to it. The guide's own scripts know the first four.
"""

from __future__ import annotations

from typing import Literal

from tasks.core.archive.manifest import Format

Kind = Literal["sql", "custom", "physical", "system"]
"""What an archive holds; "system": the system around the application, which no restore of the database takes."""

DUMP_MEMBERS: dict[Format, str] = {"guide": "database.sql", "fast": "database.dump"}
DATA_DIRECTORY = "postgres-data"
KEYS_DIRECTORY = "data-protection-keys"
COMPOSE_FILE = "docker-compose.yml"

ROLES_MEMBER = "roles.sql"
MANIFEST_NAME = "manifest.json"
# A configuration file from outside the installation's directory, or one whose name the archive uses itself, lies under this.
OUTSIDE = "outside"
# A guest as a whole: what LXC or libvirt know of it, and its files as GNU tar writes them.
GUEST_DIRECTORY = "guest"
MACHINE_DEFINITION = f"{GUEST_DIRECTORY}/domain.xml"
MACHINE_DISK = f"{GUEST_DIRECTORY}/disk-"
CONTAINER_CONFIG = f"{GUEST_DIRECTORY}/config"
CONTAINER_LISTING = f"{GUEST_DIRECTORY}/listing"
CONTAINER_FILES = f"{GUEST_DIRECTORY}/rootfs.tar"

# pg_basebackup's own list of its files, which pg_verifybackup checks.
BACKUP_MANIFEST_NAME = "backup_manifest"
BACKUP_MANIFEST = f"{DATA_DIRECTORY}/{BACKUP_MANIFEST_NAME}"
BACKUP_LABEL = f"{DATA_DIRECTORY}/backup_label"
# A backup of the host around holds these alone.
HOST_VOLUMES = "volumes"
HOST_FILES = "files"
HOST_IMAGES = "images"
HOST_PACKAGES = "packages.txt"

# Without these nothing is a data directory.
DATA_DIRECTORY_PROOFS = {f"{DATA_DIRECTORY}/PG_VERSION", f"{DATA_DIRECTORY}/global/pg_control"}

DUMP_KINDS: dict[str, Kind] = {DUMP_MEMBERS["guide"]: "sql", DUMP_MEMBERS["fast"]: "custom"}

# First components that an archive uses itself; a configuration file of such a name moves under OUTSIDE.
RESERVED_NAMES = frozenset(
    {*DUMP_MEMBERS.values(), ROLES_MEMBER, BACKUP_MANIFEST_NAME, DATA_DIRECTORY, KEYS_DIRECTORY, MANIFEST_NAME, OUTSIDE}
)
