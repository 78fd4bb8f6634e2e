"""Ask whether an archive is known as the installation's own, and for the operator's word where it is not."""

from __future__ import annotations

from tasks.adapters.archive.ownership import authenticity_of_archive, authenticity_of_checked
from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, server_of, session
from tasks.core.archive.origin import Words, require_words, why_foreign
from tasks.core.errors import UsageError
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import trust_of
from tasks.step import step


@step(name="ask whose archive it is")
def why_not_own(config: InstallationConfig, stack: Installation, archive: Archive) -> str:
    """Say why an archive is not known as the installation's own; "" where it is.

    A host that is being set up from an archive knows no key, has nothing to protect, and runs the archive's own compose
    file: naming the archive there is the operator's word for it. A dump of nobody knows whom is loaded without rights
    even there.
    """
    if config.fresh and archive.manifest is not None:
        return ""
    trust = trust_of(config)
    if isinstance(archive, CheckedArchive):
        found = authenticity_of_checked(trust, archive)
    else:
        found = authenticity_of_archive(trust, archive.path)
    return why_foreign(
        archive.manifest,
        found,
        installation=config.id,
        project=stack.project,
        system_identifier=_system_identifier(stack),
        has_key=bool(trust.own),
    )


def require_word_for(
    config: InstallationConfig, stack: Installation, archive: Archive, words: Words, quarantine: bool | None
) -> str:
    """Say why the archive is not known as the installation's own, "" where it is; raise Refused where `--foreign` is missing."""
    why = why_not_own(config, stack, archive)
    if not config.fresh:
        require_words(archive.name, why, words, kind=archive.kind)
    if why and quarantine is False:
        raise UsageError(
            f"--no-quarantine does not go with an archive that is not known as this installation's own: {why}",
            hint="restore it, look at its mail accounts, and end the quarantine: mailarchiver-backup lift-quarantine",
        )
    return why


def _system_identifier(stack: Installation) -> str:
    if stack.postgres.state != "running":
        return ""
    with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
        return str(opened.value("SELECT system_identifier FROM pg_control_system()"))
