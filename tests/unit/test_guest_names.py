"""Names of guests, and of what Proxmox has around them: its own forms, and nothing that leads elsewhere."""

from __future__ import annotations

import re

import pytest

from tasks.core.policy.guest_names import DATASTORE, GUEST_NAME, GUEST_POOL, NAMESPACE, NODE, STORAGE, UPID

ELSEWHERE = ("", "../x", "/etc", "-rf", ".hidden", "a b", "a\nb", "a\0", "ä", "x" * 300)


@pytest.mark.parametrize("pattern", [GUEST_NAME, NODE, STORAGE, DATASTORE, NAMESPACE, GUEST_POOL])
def test_a_name_leads_nowhere_else(pattern: str) -> None:
    assert re.fullmatch(pattern, "mail-1")
    assert not [name for name in ELSEWHERE if re.fullmatch(pattern, name)]


def test_a_namespace_has_eight_levels_at_most() -> None:
    assert re.fullmatch(NAMESPACE, "/".join("abcdefgh"))
    assert not re.fullmatch(NAMESPACE, "/".join("abcdefghi"))
    assert not re.fullmatch(NAMESPACE, "a/../b")


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("UPID:pve1:000003E8:00001B58:6B0B3418:vzdump:101:backup@pve!archive:", True),
        ("UPID:pbs:000003E8:00001B58:00000001:6B0B3418:verify:store:root@pam:", True),
        ("UPID:../x:000003E8:00001B58:6B0B3418:vzdump:101:root@pam:", False),
        ("UPID:pve1:000003E8:00001B58:6B0B3418:vzdump:1/2:root@pam:", False),
        ("UPID:pve1:000003E8:00001B58:6B0B3418:vzdump:101:root@pam", False),
    ],
)
def test_a_task_of_proxmox(value: str, *, is_one: bool) -> None:
    assert bool(re.fullmatch(UPID, value)) is is_one
