"""Which pieces of a host's backup are wanted: `--only volume:NAME`, `project:NAME`, `image:NAME`, `file:PATH`, or a whole kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.archive.system_contents import HostContents, HostImage, HostLink, HostVolume
from tasks.core.errors import UsageError
from tasks.core.machine.paths import holds

KINDS = ("volumes", "images", "files")
HINT = "say volume:NAME, project:NAME (its files), image:NAME, file:/PATH (with all below), or volumes, images, files"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pieces that are wanted, each as the archive has it; `above` are the paths that are wanted with all below them."""

    volumes: tuple[HostVolume, ...]
    images: tuple[HostImage, ...]
    files: tuple[str, ...]
    links: tuple[HostLink, ...]
    above: tuple[str, ...] = ()


def choose(contents: HostContents, files: Sequence[str], only: Sequence[str]) -> Wanted:
    """Give the pieces that `only` names, or all where it names none; `files` are the paths of the archive's files.

    Raise UsageError for a word that names nothing in it.
    """
    words = list(only) or list(KINDS)
    volumes: list[str] = []
    images: list[str] = []
    above: list[str] = []
    for word in words:
        kind, _, name = word.partition(":")
        known = (
            {each.name for each in contents.volumes} if kind == "volume" else {each.name for each in contents.images}
        )
        if word == "volumes":
            volumes += [each.name for each in contents.volumes]
        elif word == "images":
            images += [each.name for each in contents.images]
        elif word == "files":
            above.append("/")
        elif kind in ("volume", "image") and name in known:
            (volumes if kind == "volume" else images).append(name)
        elif kind == "project" and (project := next((p for p in contents.projects if p.name == name), None)):
            above += project.files
        elif kind == "file" and name.startswith("/") and _has(contents, files, name):
            above.append(name.rstrip("/") or "/")
        else:
            raise UsageError(
                f"--only {word}: the backup holds nothing of that name", hint=f"{HINT}; {_known(contents)}"
            )
    return Wanted(
        tuple(each for each in contents.volumes if each.name in volumes),
        tuple(each for each in contents.images if each.name in images),
        tuple(each for each in files if any(holds(one, each) for one in above)),
        tuple(each for each in contents.links if any(holds(one, each.path) for one in above)),
        tuple(above),
    )


def _has(contents: HostContents, files: Sequence[str], name: str) -> bool:
    name = name.rstrip("/") or "/"
    return any(holds(name, each) for each in (*files, *(link.path for link in contents.links)))


def _known(contents: HostContents) -> str:
    names = [f"volume:{each.name}" for each in contents.volumes]
    names += [f"project:{each.name}" for each in contents.projects] + [f"image:{each.name}" for each in contents.images]
    shown = ", ".join(names[:12]) or "no volume, project or image"
    return f"it holds {shown}{', ...' if len(names) > 12 else ''}"
