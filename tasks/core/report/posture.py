"""What people read of the posture of an installation's backups: a page for Prefect, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tasks.core.plain_text import cell, line
from tasks.core.policy.posture import PostureSeen, Weakness, not_accepted, weaknesses
from tasks.core.policy.settings import RiskKind


def posture_report(installation: str, seen: PostureSeen, accepted: Collection[RiskKind]) -> str:
    """Describe the posture as a Markdown page: each weakness with why and what to do, those that the settings accept too."""
    found = weaknesses(seen)
    wrong = not_accepted(found, accepted)
    parts = [f"# Posture of {line(installation)}\n\n{_summary(found, wrong)}\n"]
    if found:
        rows = [
            f"| {each.kind}{'' if each in wrong else ' (accepted)'} | {cell(each.what)} | {cell(each.why)} | {cell(each.hint)} |"
            for each in found
        ]
        parts.append("\n".join(["| kind | what | why | what to do |", "|---|---|---|---|", *rows]) + "\n")
    if seen.mail is not None:
        parts.append(f"Mail on its servers: {line(str(seen.mail))}.\n")
    if seen.unseen:
        parts.append("Not known:\n\n" + "\n".join(f"- {line(each)}" for each in seen.unseen) + "\n")
    return "\n".join(parts)


def posture_lines(seen: PostureSeen, accepted: Collection[RiskKind]) -> list[str]:
    """Describe it for the terminal, after what `doctor` tells of the stack."""
    found = weaknesses(seen)
    wrong = not_accepted(found, accepted)
    lines = []
    for each in wrong:
        lines += ["", f"WEAKNESS ({each.kind}): {each.what}", f"  WHY: {each.why}", f"  HINT: {each.hint}"]
    taken = dict.fromkeys(each.kind for each in found if each not in wrong)
    if taken:
        lines += ["", f"Accepted by the settings (accept_risks): {', '.join(taken)}"]
    if seen.unseen:
        lines += ["", *(f"Not known: {each}" for each in seen.unseen)]
    return lines


def posture_told(seen: PostureSeen, accepted: Collection[RiskKind]) -> list[dict[str, Any]]:
    """Give the weaknesses as they stand in a command's JSON."""
    found = weaknesses(seen)
    wrong = not_accepted(found, accepted)
    return [
        {"severity": "weakness", "kind": each.kind, "what": each.what, "why": each.why, "hint": each.hint, "accepted": each not in wrong}
        for each in found
    ]  # fmt: skip


def _summary(found: Sequence[Weakness], wrong: Sequence[Weakness]) -> str:
    if not found:
        return "Nothing is weak."
    accepted = len(found) - len(wrong)
    return f"**{len(wrong)} to mend**" + (f", {accepted} accepted by the settings" if accepted else "")
