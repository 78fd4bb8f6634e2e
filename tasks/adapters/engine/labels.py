"""Labels on containers: those by which Compose marks what belongs to a project, and ours."""

from __future__ import annotations

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
FILES_LABEL = "com.docker.compose.project.config_files"
ENV_FILES_LABEL = "com.docker.compose.project.environment_file"
DEPENDS_ON_LABEL = "com.docker.compose.depends_on"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
HASH_LABEL = "com.docker.compose.config-hash"
VERSION_LABEL = "com.docker.compose.version"

# Of staging stacks: they are ours, and gone in a moment.
STAGING_LABEL = "mailarchiver-backup.staging"
HELPER_LABEL = "mailarchiver-backup.helper"
COPY_LABEL = "mailarchiver-backup.copy"
