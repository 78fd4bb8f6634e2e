"""Metrics as a text file for Prometheus' node exporter: nothing of ours needs to run for them to be scraped."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tasks.adapters.host.files import make_directory, write_atomically
from tasks.core.policy.status import Status

PREFIX = "mailarchiver_backup"
VERDICTS = ("verified", "different", "failed", "legacy", "none")


def write_metrics(directory: Path, status: Status) -> Path:
    """Write an installation's metrics, replacing the former ones at once; return the file.

    Ages are given as moments (seconds since 1970), as Prometheus likes them: a metric that is no longer written then ages by itself.
    """
    make_directory(directory, 0o755)
    path = directory / f"{PREFIX}_{status.installation}.prom"
    write_atomically(path, metrics_text(status), 0o644)
    return path


def _copies(registry: CollectorRegistry, status: Status) -> None:
    found, names = status.copy_counts, ["installation", "target"]
    for name, help_text, value in (
        ("copies", "Copies of the newest backup, the repository's own among them", found.copies if found else 0),
        ("copies_media", "Kinds of media that the newest backup is on", found.media if found else 0),
        ("copies_off_site", "Copies of the newest backup away from the site", found.off_site if found else 0),
        ("copies_immutable", "Copies of the newest backup that nobody can remove or change", found.immutable if found else 0),
        ("copies_errors", "Errors of the newest backup's verification; -1: none yet", -1 if found is None or found.errors is None else found.errors),
    ):  # fmt: skip
        Gauge(f"{PREFIX}_{name}", help_text, ["installation"], registry=registry).labels(status.installation).set(value)
    counts = Gauge(f"{PREFIX}_target_copies", "Copies at a target", names, registry=registry)
    moments = Gauge(
        f"{PREFIX}_target_last_timestamp_seconds", "Moment of the newest copy's data", names, registry=registry
    )
    for each in status.targets:
        counts.labels(status.installation, each.name).set(each.copies)
        if each.newest is not None:
            moments.labels(status.installation, each.name).set(each.newest.timestamp())


def _guests(registry: CollectorRegistry, status: Status) -> None:
    names = ["installation", "guest"]
    counts = Gauge(
        f"{PREFIX}_guest_backups", "Backups of a guest as a whole, no matter who made them", names, registry=registry
    )
    moments = Gauge(
        f"{PREFIX}_guest_last_timestamp_seconds", "Moment of a guest's newest backup", names, registry=registry
    )
    verdicts = Gauge(
        f"{PREFIX}_guest_last_verified",
        "Whether the backup server has verified a guest's newest backup",
        names,
        registry=registry,
    )
    proven = Gauge(
        f"{PREFIX}_guest_last_proven_timestamp_seconds",
        "When a guest's backup was last restored as a test and found to work; 0: never",
        names,
        registry=registry,
    )
    wrong = Gauge(
        f"{PREFIX}_guest_problems", "Number of things that are wrong with a guest's backups", names, registry=registry
    )
    for each in status.guests:
        guest = str(each.guest)
        counts.labels(status.installation, guest).set(each.copies)
        moments.labels(status.installation, guest).set(each.newest.timestamp() if each.newest else 0)
        verdicts.labels(status.installation, guest).set(each.verification == "ok")
        proven.labels(status.installation, guest).set(each.proven.timestamp() if each.proven else 0)
        wrong.labels(status.installation, guest).set(len(each.problems))


def metrics_text(status: Status) -> bytes:
    """Write the metrics in Prometheus' text format."""
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"{PREFIX}_{name}", help_text, ["installation"], registry=registry).labels(status.installation).set(
                value
            )

    newest, verified = status.newest, status.newest_verified
    gauge("checked_timestamp_seconds", "When these metrics were written", status.at.timestamp())
    gauge("backups", "Number of backups in the repository", status.backups)
    gauge("free_bytes", "Free space where the backups are", status.free_bytes)
    gauge("problems", "Number of things that are wrong", len(status.problems))
    gauge("rto_seconds", "Measured time of a restore", status.rto_seconds)
    if newest is not None:
        gauge("last_timestamp_seconds", "Moment of the newest backup's data", newest.manifest.created_at.timestamp())
        gauge("last_bytes", "Size of the newest backup", newest.bytes)
        gauge("last_duration_seconds", "How long the newest backup took", newest.seconds)
        gauge("last_downtime_seconds", "Downtime of the newest backup", newest.manifest.downtime_seconds)
    if verified is not None:
        moment = verified.manifest.created_at.timestamp()
        gauge("last_verified_timestamp_seconds", "Moment of the newest verified backup's data", moment)
    if status.mail is not None and status.mail.is_known:
        days, away = status.mail.deletion.days, status.mail.proven_away
        gauge(
            "server_deletion_seconds",
            "After how long mail is deleted on its server",
            days * 86_400 if days is not None else None,
        )
        gauge(
            "proven_away_timestamp_seconds",
            "Moment of the newest verified and off-site backup's data",
            away.timestamp() if away else 0,
        )
    verdict = newest.verification.verdict if newest and newest.verification else "none"
    verdicts = Gauge(
        f"{PREFIX}_last_verdict", "Verdict on the newest backup", ["installation", "verdict"], registry=registry
    )
    for each in VERDICTS:
        verdicts.labels(status.installation, each).set(each == verdict)
    if status.targets or status.guests:
        _copies(registry, status)
    if status.guests:
        _guests(registry, status)
    kinds = Gauge(f"{PREFIX}_problem", "Things that are wrong, by kind", ["installation", "kind"], registry=registry)
    for problem in status.problems:
        kinds.labels(status.installation, problem.kind).set(1)
    return generate_latest(registry)
