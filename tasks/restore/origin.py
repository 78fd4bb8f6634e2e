"""Ask whether an archive is known as the installation's own, and for the operator's word where it is not."""

from __future__ import annotations

from tasks.adapters.archive.identity import keys_of_this_host
from tasks.adapters.archive.ownership import authenticity_of_archive, authenticity_of_checked
from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.archive.authenticity import Trust
from tasks.core.archive.origin import FRESH_HOST_HINT, Words, require_words, why_foreign
from tasks.core.errors import Refused, UsageError
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import trust_of
from tasks.step import step


@step(name="ask whose archive it is")
def why_not_own(config: InstallationConfig, stack: Installation, archive: Archive) -> str:
    """Say why an archive is not known as the installation's own; "" where it is.

    On a host that is being set up from an archive only a key can tell: its project and cluster are new.
    """
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
        has_key=bool(trust.own) or config.fresh,
    )


def require_word_for(
    config: InstallationConfig, stack: Installation, archive: Archive, words: Words, quarantine: bool | None
) -> str:
    """Say why the archive is not known as the installation's own, "" where it is; raise Refused where `--foreign` is missing."""
    why = why_not_own(config, stack, archive)
    return _with_word(archive, why, words, quarantine)


def require_word_for_fresh_host(
    archive: CheckedArchive, trusted_keys: tuple[str, ...], words: Words, quarantine: bool | None
) -> None:
    """Raise Refused, before anything of the archive is written, where it is signed with none of these keys and the word is missing."""
    why = is_foreign_to(archive, trusted_keys)
    try:
        _with_word(archive, why, words, quarantine)
    except Refused as error:
        if not words.foreign:
            error.hint = FRESH_HOST_HINT
        raise


def trusted_on_fresh_host(
    config: InstallationConfig | None, archive: Archive, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Give the keys by which an archive is known where there is no stack yet: this host's, the settings', and those given."""
    of_settings = config.settings.trusted_keys if config else ()
    return (*keys_of_this_host(installation_of_archive(archive)), *of_settings, *given)


def installation_of_archive(archive: Archive) -> str:
    """Give the id of the installation that an archive is of; the guide's own name none."""
    return archive.manifest.installation if archive.manifest else "main"


def _with_word(archive: Archive, why: str, words: Words, quarantine: bool | None) -> str:
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


def is_foreign_to(archive: CheckedArchive, trusted_keys: tuple[str, ...]) -> str:
    """Say why an archive is signed with none of these keys; "" where it is signed with one."""
    trust = Trust(installation_of_archive(archive), trusted=trusted_keys)
    found = authenticity_of_checked(trust, archive)
    return why_foreign(
        archive.manifest, found, installation=trust.installation, project="", system_identifier="", has_key=True
    )
