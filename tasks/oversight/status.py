"""How an installation's backups stand, written where people and machines look: status, catalogue, charts, report, metrics, alarms."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tasks.adapters.archive.identity import read_identity
from tasks.adapters.archive.ownership import missed
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.copies.target_state import read_target_state
from tasks.adapters.host.files import free_space, one_at_a_time
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.adapters.outbox.history_file import read_history
from tasks.adapters.outbox.metrics_file import write_metrics
from tasks.adapters.outbox.report_page import write_report_page
from tasks.core.archive.manifest import Record
from tasks.core.copies.judge import SeenCopies, copy_counts_of, copy_notes, copy_problems, is_kept, require_problems
from tasks.core.errors import BackupError
from tasks.core.guests.judge import guest_notes, guest_problems
from tasks.core.machine.judge import host_note, host_problems
from tasks.core.policy.clocks import Dated, ahead_problem, jump_problem
from tasks.core.policy.drill import drill_problem
from tasks.core.policy.history import HOST_RUNS, Entry, last_backup_failed
from tasks.core.policy.settings import PROBLEMS, AlarmKind
from tasks.core.policy.status import Problem, Status, judge
from tasks.core.report.calendar import nights
from tasks.core.report.catalogue import CatalogueLine, Listed, catalogue
from tasks.core.report.charts import duration_chart, size_chart
from tasks.core.report.others import authenticity_problems, clock_problems, notes_on_others
from tasks.oversight.mail_at_risk import mail_on_servers
from tasks.oversight.pruning import plan_for
from tasks.oversight.system import SystemStatus, system_status
from tasks.run.config import InstallationConfig
from tasks.run.drills import drill_state
from tasks.run.history import notify
from tasks.run.own_backups import OwnBackups, look_at
from tasks.step import step

logger = logging.getLogger(__name__)

TELLING_SECONDS = 60.0
# Runs that look at the same time tell in any order; no two that belong together are further apart.
LATE = timedelta(minutes=10)
LOOKED = "looked"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """An installation's status with everything that shows it."""

    status: Status
    lines: tuple[CatalogueLine, ...]
    charts: tuple[str, ...]
    page: Path | None


@step(name="look at backups")
def read_status(config: InstallationConfig, *, now: datetime) -> Status:
    """Judge how an installation's backups stand; touch nothing."""
    own = look_at(config, list_backups(config.repository), now=now)
    return _status_of(config, own, read_history(config.id), copies_seen(config), system_status(config, now), now=now)


def copies_seen(config: InstallationConfig) -> tuple[SeenCopies, ...]:
    """Give what is remembered of each target; none of them is asked."""
    return tuple(SeenCopies(each, read_target_state(config.id, each.name)) for each in config.settings.copies)


def _status_of(
    config: InstallationConfig,
    own: OwnBackups,
    entries: Sequence[Entry],
    copies: Sequence[SeenCopies],
    system: SystemStatus,
    *,
    now: datetime,
    looks: bool = False,
) -> Status:
    failed = last_backup_failed(entries)
    wrong = _problem_of(config.repository)
    around = [each for each in own.system if each.manifest.host is not None]
    mail = mail_on_servers(config, own.records, copies, now=now, looks=looks)
    at_risk = mail.is_at_risk and "mail_at_risk" not in config.settings.accept_risks
    dated = [Dated(each.name, each.created, each.confirmed) for each in own.candidates if not each.foreign]
    clocks = (ahead_problem(own.ahead, now), jump_problem(dated, [each.at for each in entries], now))
    return judge(
        config.id,
        own.records,
        own.candidates,
        config.settings.alarms,
        now=now,
        free_bytes=free_space(config.repository)[0],
        minimum_free_bytes=config.settings.minimum_free_bytes,
        shrink_limit_percent=config.settings.retention.shrink_limit_percent,
        last_failure=f"the last {failed.run} {failed.outcome} ({failed.at:%Y-%m-%d %H:%M} UTC): {failed.message}"
        if failed
        else "",
        repository_problem=wrong,
        others=[
            *([Problem("mail_at_risk", str(mail))] if at_risk else []),
            *clock_problems(clocks),
            *_drill_of(config, now),
            *([] if wrong else _authenticity_of(config, own)),
            *copy_problems(own.records, copies, now),
            *require_problems(config.settings.require, own.records, copies, now, system.places),
            *(Problem("proxmox", text) for text in system.problems),
            *_host_of(config, around, entries, now),
            *_guests_of(config, own.system, now),
        ],
        notes=[
            *notes_on_others(own.authenticity),
            *copy_notes(copies),
            *system.notes,
            *(host_note(each, now=now) for each in around[:1]),
            *guest_notes(own.system, now=now),
        ],
        copy_counts=copy_counts_of(own.records[0], copies, now, system.places) if own.records else None,
        targets=[each.status() for each in copies],
        mail=mail,
        guests=system.guests,
    )


def _drill_of(config: InstallationConfig, now: datetime) -> list[Problem]:
    """Tell that the recovery key was not tried for too long, where archives are encrypted."""
    wanted = config.settings.encryption
    if wanted is None:
        return []
    told = drill_problem(drill_state(config.id), within_days=wanted.drill_within_days, now=now)
    return [Problem("overdue", told)] if told else []


def _host_of(
    config: InstallationConfig, records: Sequence[Record], entries: Sequence[Entry], now: datetime
) -> list[Problem]:
    """Tell what is wrong with the backups of the host around, where the settings want such."""
    wanted = config.settings.host
    if wanted is None:
        return []
    failed = last_backup_failed(entries, HOST_RUNS)
    return [Problem("host", each) for each in host_problems(records, wanted.within_hours, failed, now=now)]


def _guests_of(config: InstallationConfig, records: Sequence[Record], now: datetime) -> list[Problem]:
    """Tell what is wrong with the backups of this host's guests that the settings name."""
    lxc, vm = config.settings.lxc, config.settings.vm
    wanted = [(f"lxc {each}", lxc.within_hours) for each in lxc.containers] if lxc is not None else []
    wanted += [(f"vm {each}", vm.within_hours) for each in vm.domains] if vm is not None else []
    return [
        Problem("guests", text)
        for subject, within_hours in wanted
        for text in guest_problems(subject, records, within_hours, now=now)
    ]


def _authenticity_of(config: InstallationConfig, own: OwnBackups) -> list[Problem]:
    """Tell what is wrong with whose backups are there; below a mount that is gone nothing is missed."""
    identity = read_identity(config.id, config.directory)
    wanted = missed(config.id, config.directory, config.repository)
    gone = sorted(name for name in wanted if name not in own.authenticity or not own.authenticity[name].is_own)
    former = {key: own.signed_with(key) for key in identity.former if key not in config.settings.trusted_keys}
    return authenticity_problems(
        own.authenticity,
        gone,
        key_missing=str(identity.key_file) if identity.former and not identity.public else "",
        lost_keys={key: count for key, count in former.items() if count and identity.public},
    )


def _problem_of(repository: Path) -> str:
    try:
        require_repository(repository)
    except BackupError as error:
        return " ".join(str(error).splitlines())
    return ""


@step(name="write report")
def write_status_report(config: InstallationConfig, *, now: datetime, looks: bool = False) -> StatusReport:
    """Bring status, catalogue, charts, the report beside the backups and the metrics up to date.

    With `looks` the database is asked for what the mail accounts delete, however recently it was. Neither the page nor the metrics fail a run: what cannot be written is said.
    """
    backups, entries = list_backups(config.repository), read_history(config.id)
    own = look_at(config, backups, now=now)
    copies, system = copies_seen(config), system_status(config, now)
    status = _status_of(config, own, entries, copies, system, now=now, looks=looks)
    listed = [
        Listed(
            each.name, str(each.path), each.bytes, each.created, each.record,
            "" if own.authenticity[each.name].counts or each.record is None else str(own.authenticity[each.name]),
            str(copy_counts_of(each.record, copies, now, system.places)) if each.record is not None and own.authenticity[each.name].counts else "",
        )
        for each in backups
    ]  # fmt: skip
    lines = [*catalogue(listed, plan_for(config, own, entries, now=now), now=now), *system.lines]
    records = own.records
    charts = (size_chart(config.id, records, entries), duration_chart(config.id, records))
    page = None
    try:
        # Below a mount that is gone the page would lie where nobody looks, and say that there is no backup.
        if config.repository.is_dir() and not any(problem.kind == "repository" for problem in status.problems):
            shown = nights(
                records, entries, now=now, is_daily=config.settings.alarms.backup_within_hours <= 36,
                is_kept=lambda each: is_kept(config.settings.require, copy_counts_of(each, copies, now, system.places)),
            )  # fmt: skip
            page = write_report_page(config.repository, status, lines, charts, entries, shown)
        if config.settings.metrics_directory is not None:
            write_metrics(config.settings.metrics_directory, status)
    except (BackupError, OSError) as error:
        logger.warning("the report cannot be written: %s", error)
    return StatusReport(status, tuple(lines), charts, page)


@step(name="raise alarms")
def raise_alarms(config: InstallationConfig, status: Status, *, only: AlarmKind | None = None) -> list[str]:
    """Tell what is wrong, each kind again only after a while, and once that it is over; return the kinds that were told.

    With `only`, the other kinds are left for later.
    """
    place = state_subdirectory("alarms") / f"{config.id}.json"
    # A watch and a backup that begin together, as after a pause, would both tell the same.
    with one_at_a_time(place.with_suffix(".lock"), wait_seconds=TELLING_SECONDS):
        return _raise_alarms(config, status, place, only)


def _raise_alarms(config: InstallationConfig, status: Status, place: Path, only: AlarmKind | None) -> list[str]:
    try:
        told: dict[str, str] = {str(kind): str(at) for kind, at in (read_json(place) or {}).items()}
    except BackupError as error:
        logger.warning("%s; every alarm is told again", error.message)
        told = {}
    looked = told.pop(LOOKED, None)
    if only is None:
        if looked is not None and timedelta() < datetime.fromisoformat(looked) - status.at < LATE:
            return []  # somebody who looked later was quicker to tell
        looked = status.at.isoformat()
    problems = [problem for problem in status.problems if only in (None, problem.kind)]
    mark = _mark_of(problems)
    if only in (None, "authenticity") and told.get("authenticity", mark).partition(" ")[2] != mark.partition(" ")[2]:
        del told["authenticity"]
    news = [problem for problem in problems if _is_due(problem, told, status.at, config.settings.alarms.repeat_hours)]
    for kind in dict.fromkeys(problem.kind for problem in news):
        texts = [problem.text for problem in news if problem.kind == kind]
        notify(config, kind, f"{kind} of {config.id}", "\n".join(texts))
    wrong = {problem.kind for problem in problems} | {kind for kind in PROBLEMS if only not in (None, kind)}
    for kind in PROBLEMS:
        if kind in told and kind not in wrong:
            notify(config, kind, f"{kind} of {config.id} is over", str(status), good=True)
    left = {str(kind): at for kind, at in told.items() if kind in wrong}
    # The run that failed has told so itself: here it is only noted, to be repeated while it lasts.
    news_or_noted = [problem for problem in problems if problem in news or problem.kind not in left]
    at = status.at.isoformat()
    now_told = {str(each.kind): at + (mark if each.kind == "authenticity" else "") for each in news_or_noted}
    write_json(place, {**left, **now_told, **({LOOKED: looked} if looked else {})})
    return [problem.kind for problem in news]


def _mark_of(problems: Sequence[Problem]) -> str:
    """Tell one set of doubtful backups from another."""
    texts = [each.text for each in problems if each.kind == "authenticity"]
    return " " + hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _is_due(problem: Problem, told: dict[str, str], now: datetime, repeat_hours: float) -> bool:
    at = told.get(problem.kind)
    if at is None:
        return problem.kind != "failure"
    if (
        problem.kind == "authenticity"
    ):  # nobody but a person takes them away: told once, and again when there are others
        return False
    age_seconds = (now - datetime.fromisoformat(at)).total_seconds()
    # A moment that lies well ahead was told by a clock that was wrong; one a little ahead by a run that looked later.
    return age_seconds < -LATE.total_seconds() or age_seconds >= repeat_hours * 3600


def lines_of(status_report: StatusReport) -> Sequence[dict[str, str]]:
    """Give the catalogue as rows of a table; what is asked for most stands first, for Prefect shows five columns without scrolling."""
    return [
        {
            "backup": line.backup, "verdict": line.verdict, "age": line.age, "size": line.size, "kept because": line.kept, "copies": line.copies,
            "method": line.method, "took": line.took, "downtime": line.downtime, "location": line.location,
        }
        for line in status_report.lines
    ]  # fmt: skip
