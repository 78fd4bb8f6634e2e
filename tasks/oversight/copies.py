"""What is told of copies: the report of a run, and the failure of a run that left a target without them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.copies.copy import TargetCopied
from tasks.copies.read_back import ReadBack
from tasks.copies.remove import TargetPruned
from tasks.core.errors import BackupError
from tasks.core.report.copies import TargetReport, copies_report
from tasks.oversight.reports import show_report
from tasks.oversight.run_page import show_status
from tasks.run.config import InstallationConfig
from tasks.surroundings import surroundings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyRun:
    """What a run did at one target; `error` is why it could not do it all."""

    target: str
    copied: TargetCopied
    pruned: TargetPruned | None
    read_back: ReadBack
    error: BackupError | None

    @property
    def report(self) -> TargetReport:
        """Give it in the words and numbers of a report."""
        notes = list(self.copied.notes)
        if self.pruned is not None and self.pruned.refused:
            notes.append(f"not removed: {self.pruned.refused}")
        return TargetReport(
            self.target, self.copied.sent, self.copied.sent_bytes, self.copied.records, self.copied.there,
            self.copied.locked, self.copied.lock_extended,
            self.pruned.removed if self.pruned else (), self.read_back.equal, self.read_back.damaged, tuple(notes),
            str(self.error) if self.error is not None else "",
        )  # fmt: skip


class CopiesFailed(BackupError):
    """Targets could not be brought up to date; `runs` says what was done at each."""

    def __init__(self, runs: Sequence[CopyRun]) -> None:
        failed = [each.error for each in runs if each.error is not None]
        super().__init__(
            "; ".join(each.message for each in failed),
            hint=failed[0].hint,
            transient=False,
        )
        self.runs = tuple(runs)
        self.exit_code = failed[0].exit_code if len(failed) == len(runs) else 1


def report_copies(config: InstallationConfig, runs: Sequence[CopyRun]) -> None:
    """Show what a run did, announce it (`mailarchiver.copies.completed`), and bring the status up to date.

    Raise CopiesFailed where a target failed.
    """
    reports = [each.report for each in runs]
    show_report(f"copies-{config.id}", copies_report(config.id, reports))
    surroundings().announce(
        "mailarchiver.copies.completed",
        config.id,
        {"targets": {each.target: "failed" if each.error else "up to date" for each in reports}},
    )
    show_status(config)
    if any(each.error for each in reports):
        raise CopiesFailed(runs)
