"""To whom an installation's archives are encrypted: the settings' recipients, and those of the file that they name."""

from __future__ import annotations

from datetime import timedelta

from tasks.adapters.host.outside_files import RECIPIENTS, read_outside
from tasks.core.archive.recipients import RECIPIENTS_LIMIT, recipients_in
from tasks.core.errors import UsageError
from tasks.run.config import InstallationConfig

VERIFIED_WITHIN = timedelta(hours=24)


def recipients_of(config: InstallationConfig) -> tuple[str, ...]:
    """Give the recipients of an installation's archives; none where the settings ask for no encryption.

    Raise UsageError where they ask for it and the file of recipients cannot be used: nothing is ever left unencrypted for that.
    """
    wanted = config.settings.encryption
    if wanted is None:
        return ()
    named: tuple[str, ...] = ()
    if wanted.recipients_file is not None:
        place = wanted.recipients_file
        hint = "the setting encryption.recipients_file names it: one recipient a line, as `age-keygen -y` prints it"
        try:
            content, _ = read_outside(place, RECIPIENTS)
        except FileNotFoundError:
            raise UsageError(f"there is no file of recipients {place}", hint=hint) from None
        named, wrong = recipients_in(content.decode(errors="replace"))
        if wrong or not named:
            raise UsageError(f"{place}: {'; '.join(wrong[:5]) or 'it holds no recipient'}", hint=hint)
    found = tuple(dict.fromkeys((*wanted.recipients, *named)))
    if len(found) > RECIPIENTS_LIMIT:
        raise UsageError(f"there are {len(found)} recipients, more than {RECIPIENTS_LIMIT}", hint="who needs them all?")
    return found


def keeps_verification_key(config: InstallationConfig) -> bool:
    """Tell whether a key for one verification is kept of each archive: unless verifications or such keys are switched off."""
    wanted = config.settings.encryption
    return (
        wanted is not None
        and verification_key_limit(config) > timedelta(0)
        and config.settings.verification.when != "never"
    )


def verification_key_limit(config: InstallationConfig) -> timedelta:
    """Give how long such a key is kept at the most."""
    wanted, chains = config.settings.encryption, config.settings.incremental
    if wanted is None:
        return timedelta(0)
    if wanted.verification_key_hours is not None:
        return timedelta(hours=wanted.verification_key_hours)
    return VERIFIED_WITHIN + (timedelta(days=chains.full_after_days) if chains.kind != "full" else timedelta(0))
