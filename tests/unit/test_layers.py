"""A test that guards the shape: which way imports may point."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.structure import RULES, WINGS, Imports, read_imports, wings_crossed

ADVICE = f"""
Imports point one way: deployments -> flows -> tasks -> tasks.adapters -> tasks.core, and inside these from a wing to those below it:
{" < ".join(WINGS)}.
If you need something from further up, pass it in as an argument, or move the decision down. See CONTRIBUTING.md.
"""

BREACHES: list[tuple[str, Imports]] = [
    ("unplaced", {"tasks.attic.trunk": []}),
    ("unplaced", {"tasks.core.attic.trunk": []}),
    ("upward", {"tasks.core.dump.sql": ["tasks.adapters.host.files.rename"], "tasks.adapters.host.files": []}),
    ("upward", {"tasks.core.archive.names": ["tasks.core.dump.sql"], "tasks.core.dump.sql": []}),
    ("upward", {"tasks.restore.plan": ["tasks.verification.verify.verify"], "tasks.verification.verify": []}),
    ("upward", {"tasks.recovery.recover": ["tasks.watchdog"], "tasks.watchdog": []}),
    ("upward", {"tasks.step": ["flows.prune"], "flows.prune": []}),
    ("between_siblings", {"tasks.restore.plan": ["tasks.backup.dump.dump_database"], "tasks.backup.dump": []}),
    ("between_siblings", {"tasks.backup.dump": ["tasks.restore.plan"], "tasks.restore.plan": []}),
    ("circles", {"tasks.run.a": ["tasks.run.b"], "tasks.run.b": ["tasks.run.c.x"], "tasks.run.c": ["tasks.run.a"]}),
    ("prefect_below", {"tasks.adapters.stack.discovery": ["prefect.task"]}),
    ("prefect_below", {"tasks.core.policy.settings": ["prefect"]}),
    ("past_the_door", {"tasks.adapters.stack.discovery": ["docker"]}),
    ("past_the_door", {"tasks.adapters.postgres.load": ["psycopg.errors"]}),
    ("past_the_door", {"deployments.cli.program": ["subprocess.run"]}),
    ("relative", {"tasks.run.history": [".config"]}),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_program_keeps(rule: Callable[[Imports], list[str]]) -> None:
    breaches = rule(read_imports())

    assert not breaches, "\n".join(breaches) + ADVICE


@pytest.mark.parametrize(("name", "imports"), BREACHES)
def test_a_breach_is_found(name: str, imports: Imports) -> None:
    """Each rule can fail, also for files inside wings."""
    (rule,) = [each for each in RULES if each.__name__ == name]

    assert rule(imports)


def test_every_rule_is_shown_to_fail() -> None:
    assert {name for name, _ in BREACHES} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    ("flow", "at_most"), [("full_restore", 6), ("sql_dump_restore", 6), ("restore_verification", 7)]
)
def test_what_a_flow_does_is_read_in_few_wings(flow: str, at_most: int) -> None:
    crossed = wings_crossed(f"flows.{flow}", read_imports())

    assert 0 < len(crossed) <= at_most, crossed
