"""Proxmox's own retention (`prune-backups`), with the reason for each backup that stays or goes.

Proxmox decides, by its own rules and in its own time zone; the reasons are found by the same rules, and where they would
not explain Proxmox's word, that word stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.core.policy.proxmox_settings import ProxmoxRetention
from tasks.core.proxmox.replies import PruneMark

_PERIODS: Mapping[str, Callable[[datetime], str]] = {
    "keep-hourly": lambda at: at.strftime("%Y-%m-%d %H:00"),
    "keep-daily": lambda at: at.strftime("%Y-%m-%d"),
    "keep-weekly": lambda at: at.strftime("week %G-%V"),
    "keep-monthly": lambda at: at.strftime("%Y-%m"),
    "keep-yearly": lambda at: at.strftime("%Y"),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One backup of a guest: whether it stays, and why."""

    name: str
    at: datetime
    keep: bool
    reason: str


def prune_text(retention: ProxmoxRetention) -> str:
    """Write the rules as Proxmox reads them.

    >>> prune_text(ProxmoxRetention(keep_last=3, keep_monthly=12))
    'keep-last=3,keep-monthly=12'
    """
    return ",".join(f"{name}={count}" for name, count in retention.rules.items() if count)


def decisions(marks: Sequence[PruneMark], retention: ProxmoxRetention | None) -> list[Decision]:
    """Give Proxmox's decisions (newest first) with reasons; `retention` None: the rules are the storage's own, and not known here."""
    reasons = _reasons([each for each in marks if each.mark in ("keep", "remove")], retention)
    return [_decision(each, reasons.get(each.name, ""), retention) for each in marks]


def may_prune(found: Sequence[Decision], newest: str) -> str:
    """Say why nothing may be removed now; "" where it may. The backup that was just made always stays."""
    if newest not in {each.name for each in found}:
        return f"Proxmox does not list the new backup {newest} among those that it would keep"
    if any(each.name == newest and not each.keep for each in found):
        return f"the rules would remove the new backup {newest}: is a clock wrong?"
    return ""


def _decision(mark: PruneMark, reason: str, retention: ProxmoxRetention | None) -> Decision:
    if mark.mark == "remove":
        return Decision(mark.name, mark.at, False, "no rule keeps it")
    if mark.mark == "protected":
        return Decision(mark.name, mark.at, True, "it is protected: Proxmox never prunes it")
    if mark.mark == "renamed":
        return Decision(mark.name, mark.at, True, "it was renamed: Proxmox never prunes it")
    fallback = "a rule of the storage keeps it" if retention is None else "Proxmox keeps it"
    return Decision(mark.name, mark.at, True, reason or fallback)


def _reasons(marks: Sequence[PruneMark], retention: ProxmoxRetention | None) -> dict[str, str]:
    """Apply the rules one after the other, as Proxmox does: each keeps the newest of so many periods that no former rule has kept one of."""
    reasons: dict[str, str] = {}
    if retention is None:
        return reasons
    for rule, count in retention.rules.items():
        period = _PERIODS.get(rule)
        if period is None:
            for each in marks[:count]:
                reasons[each.name] = f"{rule}={count}: one of the newest"
            continue
        covered = {period(each.at) for each in marks if each.name in reasons}
        taken: set[str] = set()
        for each in marks:
            if each.name in reasons or (now := period(each.at)) in covered or now in taken:
                continue
            if len(taken) >= count:
                break
            taken.add(now)
            reasons[each.name] = f"{rule}={count}: the newest of {now}"
    return reasons
