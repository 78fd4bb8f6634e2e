"""The message for a dump that cannot be loaded: what failed, that their archive is sound, and what they can do."""

from __future__ import annotations

from tasks.core.byte_text import shown
from tasks.core.errors import BackupError, ProgramFailed

# Another server could not be reached (class 08), or a foreign data wrapper failed (HV): no other program of ours would fare better.
_ANOTHER_SERVER = ("08", "HV")
QUERY_CANCELED = "57014"
INSUFFICIENT_PRIVILEGE = "42501"


def is_of_another_server(error: BackupError) -> bool:
    """Tell whether loading failed, or took too long, on behalf of another server: trying again only doubles the wait."""
    return isinstance(error, ProgramFailed) and error.sqlstate.startswith((*_ANOTHER_SERVER, QUERY_CANCELED))


def unloadable(archive: str, first: BackupError, second: BackupError | None, program: str) -> ProgramFailed:
    """Word the failure of both ways to load a dump; `second` is None where the second had no sense to try."""
    about = shown(first.about) if isinstance(first, ProgramFailed) else ""
    alike = f"; {program} fails as well: {second.message}" if second is not None else ""
    message = (
        f"PostgreSQL cannot rebuild {about or 'all'} from the dump in {archive}: {first.message}{alike}."
        f" The archive itself is sound: its bytes are as they were sealed"
    )
    options = ["take a `backup complete` or `backup online`, which carries this database as it is"]
    if about:
        options.append(f"all but that object is restored by: mailarchiver-backup restore {archive} --without '{about}'")
    said = [first.hint] if first.hint else []
    error = ProgramFailed(message, hint="; ".join([*said, *options]))
    error.about = about
    return error


def is_refused_right(error: BackupError) -> bool:
    """Tell whether PostgreSQL refused the role that loads a stranger's dump a right."""
    return isinstance(error, ProgramFailed) and error.sqlstate == INSUFFICIENT_PRIVILEGE


def needs_rights(archive: str, error: BackupError) -> ProgramFailed:
    """Word what a stranger's dump may not do."""
    about = shown(error.about) if isinstance(error, ProgramFailed) else ""
    return ProgramFailed(
        f"{about or 'something'} in {archive} needs rights beyond the new database, which a dump that is not known as this installation's own"
        f" does not get: {error.message}",
        hint=f"all but that object: --without '{about}'; or make the archive one of this installation's own"
        if about
        else "",
    )
