"""Which backups a target is sent, and which go there: by the target's own retention, with the floors that the repository has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tasks.core.policy.retention import PAUSED, Candidate, RetentionPlan, plan_retention, with_needed
from tasks.core.policy.settings import Retention


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What is to be sent, the newest chain first, and what retention says of all that the target then holds."""

    send: tuple[str, ...]
    retention: RetentionPlan


def plan_sending(
    local: Sequence[Candidate],
    there: Sequence[Candidate],
    retention: Retention,
    *,
    now: datetime,
    whole: Collection[str],
) -> CopyPlan:
    """Plan what is missing at a target: an own backup that a rule of its retention keeps, once it is there.

    So nothing is sent that would be removed again, and nothing that was removed is sent twice. What a verification has
    refuted is not worth the way.
    """
    known = {each.name: each for each in there}
    known.update({each.name: each for each in local if not each.foreign})
    plan = plan_retention(list(known.values()), retention, now=now)
    kept = {each.name for each in plan.decisions if each.keep and each.reasons != (PAUSED,)}
    wanted = [
        each for each in local
        if not each.foreign and each.proof != "refuted" and each.name in kept and each.name not in whole
    ]  # fmt: skip
    return CopyPlan(tuple(each.name for each in _chains_first_to_last(wanted)), plan)


def _chains_first_to_last(wanted: Sequence[Candidate]) -> list[Candidate]:
    """Put the chain with the newest backup first, and in a chain what the others need: none counts there before its parents."""
    chains: dict[str, list[Candidate]] = {}
    for each in wanted:
        chains.setdefault(each.needs[0] if each.needs else each.name, []).append(each)
    ordered = [sorted(each, key=_age) for each in chains.values()]
    ordered.sort(key=lambda each: _age(each[-1]), reverse=True)
    return [each for chain in ordered for each in chain]


def _age(candidate: Candidate) -> tuple[datetime, str]:
    return candidate.created, candidate.name


def plan_removal(
    there: Sequence[Candidate],
    local: Sequence[Candidate],
    retention: Retention,
    *,
    now: datetime,
    whole: Collection[str],
    locked: Collection[str],
    paused: Sequence[str] = (),
    runs: Collection[datetime] = (),
) -> RetentionPlan:
    """Plan what goes at a target, from what is really there: a copy that is not whole fills no place, a locked one stays.

    The repository's own word on a backup, where it still has it, is the fresher one.
    """
    fresher = {each.name: each for each in local if not each.foreign}
    candidates = []
    for each in there:
        about = each if each.foreign else fresher.get(each.name, each)
        if not about.foreign and each.name not in whole:
            about = replace(about, foreign="it is not whole there")
        candidates.append(about)
    plan = plan_retention(candidates, retention, now=now, paused=paused, runs=runs)
    decisions = tuple(
        replace(each, keep=True, reasons=("it is locked there",)) if not each.keep and each.name in locked else each
        for each in plan.decisions
    )
    return replace(plan, decisions=with_needed(decisions, {each.name: each.needs for each in candidates}))
