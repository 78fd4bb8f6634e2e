"""GNU tar's words: all that a volume's files are is kept, in the order of their names."""

from __future__ import annotations

import re

# Owners by number, extended attributes and access control lists, holes, hard links (tar's own way); times of reading are nobody's content.
KEEPING = ("--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
# A label of SELinux's is the running system's, and the container's that wrote the file; another one gives its own.
PACKING = (
    "--create", "--file=-", *KEEPING, "--sparse", "--sort=name",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--warning=no-file-ignored", "--xattrs-exclude=security.selinux",
)  # fmt: skip
UNPACKING = ("--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions", *KEEPING[2:])
# Of `tar --create`: some files changed while they were read; all else but 0 is a failure.
CHANGED = 1


def pack_words(directory: str) -> tuple[str, ...]:
    """Give the command that writes a directory's content to stdout."""
    return ("tar", *PACKING, f"--directory={directory}", ".")


def unpack_words(directory: str) -> tuple[str, ...]:
    """Give the command that fills a directory from stdin."""
    return ("tar", *UNPACKING, f"--directory={directory}")


def is_gnu(version: str) -> bool:
    """Tell from what `tar --version` prints whether it is GNU tar, of an age that knows these words.

    >>> is_gnu("tar (GNU tar) 1.34"), is_gnu("tar (busybox) 1.36.1"), is_gnu("tar (GNU tar) 1.26")
    (True, False, False)
    """
    found = re.match(r"tar \(GNU tar\) (\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 28)


def warnings_of(stderr: str, limit: int = 20) -> list[str]:
    """Give what tar said of single files, without its own name.

    >>> warnings_of("tar: ./a: file changed as we read it\\ntar: ./b: File removed before we read it\\n")
    ['a: file changed as we read it', 'b: File removed before we read it']
    """
    found = [line.removeprefix("tar: ").removeprefix("./") for line in stderr.splitlines() if line.startswith("tar: ")]
    return found if len(found) <= limit else [*found[:limit], f"and {len(found) - limit} more"]
