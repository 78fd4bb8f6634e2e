"""The change of the compose file that an upgrade needs: a few characters, proven by Compose before anything is touched."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tasks.adapters.engine.compose import compose_config, compose_hashes
from tasks.adapters.host.files import TEMPORARY_EXTENSION, write_atomically
from tasks.adapters.host.outside_files import CONFIGURATION, UnfitFile, read_outside
from tasks.adapters.stack.find_stack import Stack, find_stack
from tasks.core.errors import Refused
from tasks.core.stack.compose_edit import BY_HAND, Text, change_image, change_mount
from tasks.core.stack.compose_model import DOT_ENV, ComposeService
from tasks.core.stack.config_diff import configuration_diff
from tasks.core.stack.installation import Installation, Service
from tasks.core.units import duration_text
from tasks.step import step
from tasks.upgrade.files import refuse_link

logger = logging.getLogger(__name__)


def described(stack: Installation, service: Service) -> ComposeService:
    """Give what the compose files say of a service, which is what its container is.

    Raise Refused where Compose cannot make sense of them, where the container runs another image than they say, and for
    one that is built here.
    """
    found = find_stack(stack.directory, project=stack.project)
    said = found.model.service(service.name) if found.model else None
    if said is None:
        why = found.model_error or f"they describe no service {service.name}"
        raise Refused(f"the compose files cannot be changed: {why}", hint="mend them, and see `docker compose config`")
    if said.is_built:
        raise Refused(
            f"the compose file builds the image of service {service.name} (`build:`), so no other image can be put in its place",
            hint="build the new version under a name of its own, and let `image:` name it without `build:`",
        )
    if said.image != service.image:
        raise Refused(
            f"the compose file says {said.image}, and the container runs {service.image}",
            hint="let the container be what the file says first: docker compose up -d",
        )
    return said


@step(name="plan compose file")
def new_configuration(stack: Installation, name: str, image: str, *, target: str = "") -> tuple[Text, ...]:
    """Give the files that change, with their new texts: the image of service `name`, and where the data is mounted (`target`).

    Raise Refused, with what to do, where Compose would not make exactly this of them. Nothing changes where they say that
    image already.
    """
    found = find_stack(stack.directory, project=stack.project)
    service = found.model.service(name) if found.model else None
    if service is None:
        raise Refused(
            f"the compose files cannot be changed: {found.model_error or f'they describe no service {name}'}",
            hint="mend them, and see `docker compose config`",
        )
    if service.image == image and target in ("", stack.data_mount.target):
        return ()
    composed = [_read(path) for path in found.compose_files]
    dotted = [_read(path) for path in _env_files(found) if path.is_file()]
    changed: dict[Path, Text] = {}

    def take(text: Text) -> None:
        changed[text.path] = text
        composed[:] = [changed.get(each.path, each) for each in composed]

    take(change_image(composed, dotted, name, image))
    if target not in ("", stack.data_mount.target):
        take(change_mount(composed, name, stack.data_mount.target, target))
    for path in changed:
        refuse_link(path)
    _require_compose_agrees(found, stack, service, changed, image, target)
    return tuple(changed.values())


def differences_of(texts: Sequence[Text]) -> dict[str, str]:
    """Show what changes in each file, without its secrets."""
    return {each.path.name: configuration_diff(each.path.name, _read(each.path).text, each.text).replace("+++ archive/", "+++ new/") for each in texts}  # fmt: skip


def plan_page(rows: Iterable[tuple[str, str]], configuration: Mapping[str, str]) -> str:
    """Write a plan as a short Markdown page, which a terminal shows as well: its rows, and what changes in each file."""
    changes = [
        f"\n`{name}` changes:\n\n```diff\n{difference.replace('```', '~~~')}\n```"
        for name, difference in configuration.items()
    ]
    return "\n".join([*(f"- {name}: **{value}**" for name, value in rows), *changes])


def plan_question(installation: str, change: str, proven: str, downtime_seconds: float) -> str:
    """Ask for approval of an upgrade in few lines."""
    return "\n".join(
        [
            f"Upgrade **{installation}**: {change}?\n",
            f"- Rehearsed: {proven}",
            f"- Down for about {duration_text(downtime_seconds)}",
            "- `rollback` takes it back until `commit`",
        ]
    )


def _require_compose_agrees(
    found: Stack, stack: Installation, before: ComposeService, changed: Mapping[Path, Text], image: str, target: str
) -> None:
    """Raise Refused unless Compose, asked with the new texts, sees the new image and mount, and all else as it was."""
    name = before.name
    with _candidates(changed) as places:
        files = [places.get(path, path) for path in found.compose_files]
        env_files = [places.get(path, path) for path in (_env_files(found) if places.keys() & set(_env_files(found)) else found.env_files)]  # fmt: skip
        model = compose_config(found.base, files, found.project, env_files=env_files)
        hashes = compose_hashes(found.base, files, found.project, env_files=env_files)
    now = compose_hashes(found.base, found.compose_files, found.project, env_files=found.env_files)
    after = model.service(name)
    mounts = tuple(
        replace(each, target=target) if target and each.target == stack.data_mount.target else each
        for each in before.mounts
    )
    others = [each for each in now.keys() | hashes.keys() if each != name and now.get(each) != hashes.get(each)]
    if after != replace(before, image=image, mounts=mounts) or others:
        seen = f"{after.image if after else 'nothing'}" + (
            f", and other services: {', '.join(others)}" if others else ""
        )
        raise Refused(f"Compose would not take {image} alone from the changed {', '.join(p.name for p in changed)}: it sees {seen}", hint=BY_HAND)  # fmt: skip


@contextmanager
def _candidates(changed: Mapping[Path, Text]) -> Iterator[dict[Path, Path]]:
    """Write the new texts beside the files under names of their own, for as long as Compose reads them."""
    places = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_EXTENSION}") for path in changed}
    try:
        for path, place in places.items():
            write_atomically(place, changed[path].text.encode())
        yield places
    finally:
        for place in places.values():
            place.unlink(missing_ok=True)


def _env_files(found: Stack) -> tuple[Path, ...]:
    """Name the files that Compose reads variables from, the one that wins last."""
    return found.env_files or (found.base / DOT_ENV,)


def _read(path: Path) -> Text:
    content = read_outside(path, CONFIGURATION)[0]
    try:
        return Text(path, content.decode())
    except UnicodeDecodeError as error:
        raise UnfitFile(path, CONFIGURATION, "it is no UTF-8") from error
