"""Change a service's image, or where its volume is mounted, in the text of a compose file: those characters and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tasks.core.errors import Refused
from tasks.core.stack.compose_model import parse_dot_env

BY_HAND = "set it by hand where it comes from, `docker compose up -d`, and see the README: Upgrading PostgreSQL"
_VARIABLE = re.compile(
    r"(?<!\$)(?:\$\{(?P<braced>\w+)(?:(?P<operator>:?-)(?P<default>[^{}$]*))?\}|\$(?P<bare>\w+))", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text, and where the file is."""

    path: Path
    text: str


def change_image(compose_files: Sequence[Text], env_files: Sequence[Text], service: str, image: str) -> Text:
    """Give the one file that decides a service's image, with the new image in it; the last file that names one decides.

    Raise Refused, with what stands there, where it is not sure that a change of a few characters does it.
    """
    for file in reversed(compose_files):
        node = _child(_service(file.text, service), "image")
        if isinstance(node, yaml.ScalarNode):
            return _change_value(file, node, env_files, service, image)
        if node is not None:
            break
    names = ", ".join(file.path.name for file in compose_files)
    raise Refused(f"no `image:` of service {service} stands in {names} itself (extends, include or a merge?)", hint=BY_HAND)  # fmt: skip


def change_mount(compose_files: Sequence[Text], service: str, target: str, new_target: str) -> Text:
    """Give the one file that mounts something at `target` of a service, with the mount at `new_target`."""
    for file in reversed(compose_files):
        found = list(_mounts_at(_service(file.text, service), target))
        if len(found) == 1:
            node, inside = found[0]
            return Text(file.path, _replaced(file.text, node, inside.replace(target, new_target)))
        if found:
            break
    raise Refused(f"not exactly one volume of service {service} is mounted at {target} in its compose files", hint=BY_HAND)  # fmt: skip


def _change_value(file: Text, node: yaml.ScalarNode, env_files: Sequence[Text], service: str, image: str) -> Text:
    """Change the value itself; the value of its one variable in an env file; or the variable's default where none sets it."""
    value = node.value
    found = list(_VARIABLE.finditer(value))
    if "$" not in value:
        return Text(file.path, _replaced(file.text, node, image))
    said = f"the image of service {service} is {value!r} in {file.path.name}"
    if len(found) != 1 or "$" in value[: found[0].start()] + value[found[0].end() :]:
        raise Refused(f"{said}, with more than one variable", hint=BY_HAND)
    variable = found[0]
    before, after = value[: variable.start()], value[variable.end() :]
    if not (image.startswith(before) and image.endswith(after) and len(image) > len(before) + len(after)):
        raise Refused(f"{said}, which {image} does not fit", hint=BY_HAND)
    wanted = image[len(before) : len(image) - len(after)]
    name = variable["braced"] or variable["bare"]
    for each in reversed(env_files):
        if name in parse_dot_env(each.text):
            return Text(each.path, _with_setting(each, name, wanted))
    if variable["default"]:
        return Text(file.path, _replaced(file.text, node, f"{before}${{{name}{variable['operator']}{wanted}}}{after}"))
    raise Refused(f"{said}, and no .env file sets {name}", hint=BY_HAND)


def _with_setting(file: Text, name: str, value: str) -> str:
    """Set a name in a `.env` file's text; what stands around the value, quotes and a comment, stays."""
    line = re.compile(
        rf"(?m)^(?P<head>[ \t]*(?:export[ \t]+)?{re.escape(name)}[ \t]*=[ \t]*)"
        r"""(?P<quote>["']?)(?P<value>[^"'\s#$]*)(?P=quote)(?P<tail>[ \t]*(?:[ \t]\#.*)?)$"""
    )
    if len(line.findall(file.text)) != 1:
        raise Refused(f"{name} is not set by one plain line of {file.path.name}", hint=BY_HAND)
    return line.sub(lambda at: f"{at['head']}{at['quote']}{value}{at['quote']}{at['tail']}", file.text)


def _service(text: str, service: str) -> yaml.Node | None:
    """Find a service's own mapping; None where the text has none, or only refers to one that stands elsewhere."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    return _child(_child(root, "services"), service)


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    """Give what a mapping holds under a name; nothing that an alias stands for: it is written, and used, elsewhere too."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == name:
            return value if _lies_in(value, node) else None
    return None


def _lies_in(inner: yaml.Node, outer: yaml.Node) -> bool:
    return bool(outer.start_mark.index <= inner.start_mark.index and inner.end_mark.index <= outer.end_mark.index)


def _mounts_at(service: yaml.Node | None, target: str) -> Iterator[tuple[yaml.ScalarNode, str]]:
    """Yield the scalars that mount something at a place, in the short or the long way of writing it."""
    volumes = _child(service, "volumes")
    for entry in volumes.value if isinstance(volumes, yaml.SequenceNode) else ():
        if isinstance(entry, yaml.ScalarNode) and re.search(rf":{re.escape(target)}/?(:[\w,]+)?\Z", entry.value):
            yield entry, entry.value
        place = _child(entry, "target")
        if isinstance(place, yaml.ScalarNode) and place.value.rstrip("/") == target:
            yield place, place.value


def _replaced(text: str, node: yaml.ScalarNode, value: str) -> str:
    """Put a value in a scalar's place, quoted as that was."""
    if node.style not in (None, "'", '"'):
        raise Refused(f"{node.value!r} is written as a block of lines", hint=BY_HAND)
    quote: Callable[[str], str] = lambda plain: f"{node.style or ''}{plain}{node.style or ''}"  # noqa: E731
    return text[: node.start_mark.index] + quote(value) + text[node.end_mark.index :]
