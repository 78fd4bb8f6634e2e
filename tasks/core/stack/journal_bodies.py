"""What the journals of each kind hold: whatever else a file says is no crash's doing, and is told instead of acted upon."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import get_args

from tasks.core.policy.guest_names import GUEST_NAME, LARGEST_GUEST, NODE, UPID
from tasks.core.stack.installation import ServiceState

Check = Callable[[object], bool]
Shape = Mapping[str, Check]

_LONGEST_TEXT = 4096
_LONGEST_LIST = 1000
_LARGEST_NUMBER = 1 << 63
_STATES = frozenset(get_args(ServiceState))


def is_text(value: object) -> bool:
    """Tell whether the value is a text of the length of a path or a name."""
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and _is_writable(value)


def _is_long_text(value: object) -> bool:
    return isinstance(value, str) and _is_writable(value)


def _is_writable(value: str) -> bool:
    """Tell whether the text could be a path's or PostgreSQL's: both know neither NUL nor half a character."""
    try:
        return b"\0" not in value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_NUMBER


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _is_mark(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{8,64}", value) is not None


def _is_node(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(NODE, value) is not None


def _is_guest(value: object) -> bool:
    return _is_number(value) and 100 <= int(str(value)) <= LARGEST_GUEST


def _is_guest_kind(value: object) -> bool:
    return value in ("lxc", "qemu")


def _is_guest_state(value: object) -> bool:
    return value in ("running", "paused", "prelaunch", "stopped")


def _is_volume(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", value) is not None


def _is_guest_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(GUEST_NAME, value) is not None


def _is_path(value: object) -> bool:
    return is_text(value) and str(value).startswith("/") and ".." not in str(value).split("/")


def _is_uri(value: object) -> bool:
    return value in ("qemu:///system", "qemu:///session")


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value) is not None


def _is_former(value: object) -> bool:
    return value in ("running", "stopped")


def _is_run(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[A-Za-z0-9-]{0,64}", value) is not None


def _is_upid(value: object) -> bool:
    return value == "" or (isinstance(value, str) and re.fullmatch(UPID, value) is not None)


def _is_state(value: object) -> bool:
    return isinstance(value, str) and value in _STATES


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check, *, least: int = 1) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= _LONGEST_LIST and all(map(check, value))


def _is(shape: Shape, *, closed: bool = True) -> Check:
    """Make a check of an object's keys and values; a key that ends in "?" may be missing. A closed one takes no other key."""
    return lambda value: not _misfits(shape, value, closed=closed)


def _misfits(shape: Shape, value: object, *, closed: bool) -> list[str]:
    if not isinstance(value, dict):
        return ["it is no object"]
    known = {name.removesuffix("?"): (check, name.endswith("?")) for name, check in shape.items()}
    wrong = [f"it lacks {name!r}" for name, (_, may_lack) in known.items() if name not in value and not may_lack]
    wrong += [f"its {name!r} is not what we write" for name, (check, _) in known.items() if name in value and not check(value[name])]  # fmt: skip
    if closed:
        wrong += [f"it has {str(name)[:40]!r}, which we do not write" for name in value if name not in known]
    return wrong


_IDENTITY = _or_none(_is(dict.fromkeys(("device", "inode", "owner", "parent"), _is_number)))
_KEPT: Shape = {
    "database": is_text, "of": is_text, "at": is_text, "backup": is_text, "keys": is_text, "current_keys": is_text,
    "comment": _or_none(_is_long_text), "undone?": _is_truth, "number?": _is_number, "keys_identity?": _IDENTITY,
}  # fmt: skip
_CONTAINER: Shape = {
    "service": is_text, "container_id": is_text, "container_name": is_text, "state": _is_state, "started_by_us?": _is_truth,
    "stop_of_run?": is_text, "stop_timeout_seconds?": _is_number,
}  # fmt: skip
_EXCHANGE: Shape = {
    "current": is_text, "incoming": is_text, "aside": is_text, "incoming_is?": _IDENTITY, "current_is?": _IDENTITY,
}  # fmt: skip
_FILE: Shape = {
    "current": is_text, "incoming": is_text, "aside": is_text, "incoming_sha256": _is_mark, "current_sha256": _is_mark,
}  # fmt: skip

_ASKED: Shape = {"run": _is_run, "at": _is_number, "limit_seconds": _is_number}
_DATABASE: Shape = {
    "kept": _is(_KEPT), "incoming": is_text, "number": _is_number, "comment": _or_none(_is_long_text), "image_id": is_text,
    "former_image_id": is_text,
}  # fmt: skip
_APPLICATION: Shape = {"image_id": is_text, "digest": is_text, "mails": _is_number, "schema": is_text}

# What earlier versions did not write yet may be missing, and other keys beside these are passed over.
SHAPES: Mapping[str, Shape] = {
    "stopped-services": {"docker_host": is_text, "containers": _list_of(_is(_CONTAINER), least=0), "reason?": is_text},
    "replacement": {"database": is_text, "keys?": _or_none(is_text), "project?": _or_none(is_text), "role?": is_text},
    "swap": {
        "incoming": is_text, "incoming_keys": is_text, "kept": _is(_KEPT), "incoming_keys_identity?": _IDENTITY,
        "comment?": _or_none(_is_long_text), "number?": _is_number, "project?": _or_none(is_text),
    },
    "drop": {
        "database": is_text, "number": _is_number, "keys": is_text, "keys_identity?": _IDENTITY, "project?": _or_none(is_text),
    },
    "copy": {"data": is_text, "keys": is_text, "label": _is_mark, "project?": _or_none(is_text)},
    "directory-swap": {
        "at": is_text, "backup": is_text, "exchanges": _list_of(_is(_EXCHANGE)), "undone": _is_truth,
        "project?": _or_none(is_text),
    },
    "directory-drop": {
        "asides": _list_of(is_text), "identities?": _list_of(_IDENTITY), "record?": _or_none(is_text),
        "project?": _or_none(is_text),
    },
    "upgrade": {
        "at": is_text, "from_image": is_text, "to_image": is_text, "data": _is(_EXCHANGE), "files": _list_of(_is(_FILE)),
        "undone": _is_truth, "was": _is_state, "target": is_text, "project?": _or_none(is_text),
    },
    "application-upgrade": {
        "at": is_text, "from_image": is_text, "to_image": is_text, "database": _is(_DATABASE), "files": _list_of(_is(_FILE), least=0),
        "undone": _is_truth, "was": _is_state, "application": _is(_APPLICATION), "project?": _or_none(is_text),
    },
    "database-copy": {"database": is_text, "project?": _or_none(is_text)},
    "upgrade-files": {"files": _list_of(is_text, least=0), "project?": _or_none(is_text)},
    "upgrade-drop": {
        "mark": _is({"word": is_text, "stamp": is_text}), "data": _IDENTITY,
        "files": _list_of(_is({"path": is_text, "sha256": _is_mark}), least=0), "project?": _or_none(is_text),
    },
    "staging": {"project": is_text, "directory": is_text},
    "scratch": {"scratch": is_text},
    "helper": {"mark": _is_mark},
    "host-volume": {"volume": _is_volume, "former": _is_number},
    "proxmox-guest": {
        "host": is_text, "node": _is_node, "guest": _is_guest, "guest_kind": _is_guest_kind, "former": _is_guest_state, "upid": _is_upid,
        "reason?": is_text,
    },
    "lxc-container": {
        "place": _is_path, "name": _is_guest_name, "former": _is_former, "asked": _or_none(_is(_ASKED)), "reason?": is_text,
    },
    "vm-domain": {
        "uri": _is_uri, "name": _is_guest_name, "former": _is_former, "asked": _or_none(_is(_ASKED)), "reason?": is_text,
    },
    "vm-restore": {"uri": _is_uri, "images": _is_path, "name": _is_guest_name, "uuid": _is_uuid, "mark": _is_mark},
    "lxc-restore": {"place": _is_path, "name": _is_guest_name, "mark": _is_mark},
    "proxmox-trial": {
        "host": is_text, "node": _is_node, "guest": _is_guest, "guest_kind": _is_guest_kind, "mark": _is_mark, "upid": _is_upid,
        "since": _is_number, "reason?": is_text,
    },
}  # fmt: skip


def problem_of_body(kind: str, body: Mapping[str, object]) -> str:
    """Say in words why no run of ours can have written this body of a journal; "" where one can.

    >>> problem_of_body("helper", {"mark": ""}), problem_of_body("scratch", {})
    ("its 'mark' is not what we write", "it lacks 'scratch'")
    """
    return "; ".join(_misfits(SHAPES[kind], dict(body), closed=False)) if kind in SHAPES else ""
