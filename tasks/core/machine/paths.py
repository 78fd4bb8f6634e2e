"""Files of a host under their absolute paths, and their names in an archive."""

from __future__ import annotations

from tasks.core.archive.layout import HOST_FILES, HOST_IMAGES, HOST_VOLUMES

NAME_LIMIT_BYTES, DEPTH_LIMIT = 800, 24


def file_member(path: str) -> str:
    """Name the member that holds a file.

    >>> file_member("/etc/fstab")
    'files/etc/fstab'
    """
    return f"{HOST_FILES}{path}"


def path_of(member: str) -> str:
    """Give the absolute path of a member, or "" where it is no file of the host.

    >>> path_of("files/etc/fstab"), path_of("volumes/a.tar")
    ('/etc/fstab', '')
    """
    return member[len(HOST_FILES) :] if member.startswith(f"{HOST_FILES}/") else ""


def volume_member(name: str) -> str:
    """Name the member that holds a volume's tar."""
    return f"{HOST_VOLUMES}/{name}.tar"


def image_member(image_id: str) -> str:
    """Name the member that holds a saved image.

    >>> image_member("sha256:0123456789abcdef0123")
    'images/0123456789ab.tar'
    """
    return f"{HOST_IMAGES}/{image_id.rpartition(':')[2][:12]}.tar"


def path_problem(path: str) -> str:
    """Say why a path can be no member of an archive; "" where it can.

    >>> path_problem("/etc/fstab"), path_problem("/etc/a\\nb")
    ('', 'its name holds a control character')
    """
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(ord(letter) < 32 or letter == "\x7f" for letter in path):
        return "its name holds a control character"
    if size > NAME_LIMIT_BYTES or path.count("/") > DEPTH_LIMIT:
        return "its name is too long, or lies too deep"
    return ""


def holds(above: str, path: str) -> bool:
    """Tell whether a path is another one, or lies below it.

    >>> holds("/etc", "/etc/fstab"), holds("/etc/fst", "/etc/fstab"), holds("/", "/etc")
    (True, False, True)
    """
    return path == above or path.startswith(above.rstrip("/") + "/")
