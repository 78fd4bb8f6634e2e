"""What a restore of a host's pieces would do: what is new, what is there already, and what stands in the way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.core.archive.system_contents import HostContents, HostImage, HostVolume
from tasks.core.errors import Refused
from tasks.core.machine.only import Wanted
from tasks.core.machine.paths import path_problem

PIECES_SHOWN = 60
VOLUME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}"
Act = Literal["create", "replace", "leave", "by hand", "refuse"]


@dataclass(frozen=True, slots=True)
class VolumeThere:
    """A volume of a wanted name that is on this host: the containers that mount it and run, whether its content can be exchanged."""

    running: tuple[str, ...] = ()
    exchangeable: bool = True


@dataclass(frozen=True, slots=True)
class There:
    """What is on this host of what is wanted. A file is `same`, `other` (a file or link), or `unfit` (a directory where a file is to be).

    `free` are the directories that are there and empty, of those that wanted volumes stand for.
    """

    volumes: Mapping[str, VolumeThere]
    images: Mapping[str, str]
    files: Mapping[str, Literal["same", "other", "unfit"]]
    free: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece, what becomes of it, and why where that is not plain."""

    kind: Literal["volume", "image", "file", "link"]
    name: str
    act: Act
    why: str = ""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.act:8} {self.kind} {self.name}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """All pieces of a restore, in the order in which they are restored."""

    backup: str
    pieces: tuple[Piece, ...]

    def of(self, kind: str, *acts: Act) -> set[str]:
        """Name the pieces of a kind with these acts."""
        return {each.name for each in self.pieces if each.kind == kind and each.act in acts}

    def __str__(self) -> str:
        """Write the plan for people; of many files the first are shown, and those that are as in the backup only counted."""
        shown = [each for each in self.pieces if each.act != "leave" or each.kind not in ("file", "link")]
        left = len(self.pieces) - len(shown)
        lines = [f"Restore of the host's pieces from {self.backup}:", *(str(each) for each in shown[:PIECES_SHOWN])]
        if len(shown) > PIECES_SHOWN:
            acts = Counter(each.act for each in shown[PIECES_SHOWN:])
            lines.append("and " + ", ".join(f"{count:,} more to {act}" for act, count in acts.items()))
        if left:
            lines.append(f"{left:,} files are as in the backup and are left alone")
        return "\n".join(lines)


def plan_restore(backup: str, wanted: Wanted, there: There, *, replace: bool, foreign: bool = False) -> HostPlan:
    """Decide what becomes of each wanted piece; nothing that is there is replaced unless `replace` says so.

    A volume that stands for a place elsewhere is made only where that is an empty directory, and for a `foreign` archive never.
    """
    pieces = [_image(each, there.images.get(each.name), replace) for each in wanted.images]
    pieces += [_volume(each, there, replace, foreign) for each in wanted.volumes]
    pieces += [_file("file", each, there.files.get(each), replace) for each in wanted.files]
    pieces += [_file("link", each.path, there.files.get(each.path), replace) for each in wanted.links]
    return HostPlan(backup, tuple(pieces))


def require_free(plan: HostPlan) -> None:
    """Raise Refused, naming them, where pieces would replace what is there and may not."""
    refused = [each for each in plan.pieces if each.act == "refuse"]
    if not refused:
        return
    more = f"; and {len(refused) - 8} more" if len(refused) > 8 else ""
    told = "; ".join(f"{each.kind} {each.name} {each.why}" for each in refused[:8])
    raise Refused(
        f"nothing was restored, for this is in the way: {told}{more}",
        hint="--replace replaces what is there and keeps it aside; --only restores single pieces",
    )


def require_sound(contents: HostContents, files: Sequence[str]) -> None:
    """Raise Refused for links that no backup of ours has: below another link, of an impossible name, or in the place of a file."""
    above = {each.path for each in contents.links}
    for path in (*files, *above):
        parts = path.split("/")
        if parts[0] or any(part in ("", ".", "..") for part in parts[1:]) or path_problem(path):
            raise Refused(f"the backup holds the path {path[:200]!r}, which is no proper one")
        over = next((one for end in range(2, len(parts)) if (one := "/".join(parts[:end])) in above), "")
        if over:
            raise Refused(f"the backup holds {path}, below the link {over}: it would be written elsewhere")
    if twice := above & set(files):
        raise Refused(f"the backup holds {min(twice)} both as a file and as a link")
    if len(above) < len(contents.links):
        raise Refused("the backup holds a link twice")
    names = [each.name for each in contents.volumes]
    if bad := [each for each in names if not re.fullmatch(VOLUME, each) or names.count(each) > 1]:
        raise Refused(f"the backup holds a volume {bad[0][:80]!r}, which is no name of one, or holds it twice")


def _image(image: HostImage, there: str | None, replace: bool) -> Piece:
    if there == image.image_id:
        return Piece("image", image.name, "leave", "there already")
    if not image.member:
        how = f"docker pull {image.digests[0]}" if image.digests else "it has no registry's digest: build it anew"
        return Piece("image", image.name, "by hand", f"only its digest was kept: {how}")
    if there is None:
        return Piece("image", image.name, "create")
    why = f"is another one here ({there[:19]})"
    return Piece("image", image.name, "replace" if replace else "refuse", why)


def stands_for(volume: HostVolume) -> str:
    """Say what else than a directory of Docker's own a volume stands for; "" where it is one.

    >>> stands_for(HostVolume(name="a", member="volumes/a.tar", driver="local"))
    ''
    """
    if volume.driver != "local":
        return f"a volume of the driver {volume.driver}"
    return (
        str(volume.options.get("device") or volume.options.get("type") or "what its options say")
        if volume.options
        else ""
    )


def _volume(volume: HostVolume, found: There, replace: bool, foreign: bool) -> Piece:
    name, there, elsewhere = volume.name, found.volumes.get(volume.name), stands_for(volume)
    if there is None and elsewhere and (foreign or elsewhere not in found.free):
        return Piece(
            "volume", name, "refuse", f"stands for {elsewhere}, which is no empty directory here: unpack {volume.member} by hand"
        )  # fmt: skip
    if there is None:
        return Piece("volume", name, "create", f"stands for {elsewhere}" if elsewhere else "")
    if there.running:
        return Piece("volume", name, "refuse", f"is in use by {', '.join(there.running)}: stop that first")
    if not replace:
        return Piece("volume", name, "refuse", "is there already")
    if not there.exchangeable or elsewhere:
        return Piece("volume", name, "refuse", "is there, and is no directory of this host's Docker: remove it by hand")
    return Piece("volume", name, "replace", "the former content is kept beside it")


def _file(kind: Literal["file", "link"], path: str, there: str | None, replace: bool) -> Piece:
    if there is None:
        return Piece(kind, path, "create")
    if there == "same":
        return Piece(kind, path, "leave")
    if there == "unfit":
        return Piece(kind, path, "refuse", "is a directory here, or something else that is no file")
    return Piece(kind, path, "replace" if replace else "refuse", "differs here")
