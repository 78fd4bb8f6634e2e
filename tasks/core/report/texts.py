"""What a person reads about a run: short Markdown pages, the same in Prefect and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.core.archive.manifest import Encryption, Manifest, OpenedWith, Record, Verification
from tasks.core.archive.recipients import short_recipient
from tasks.core.plain_text import cell, line
from tasks.core.policy.retention import RetentionPlan
from tasks.core.policy.status import Status
from tasks.core.report.comparisons import counted, words_of
from tasks.core.units import duration_text, size_text


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Write pairs as a Markdown table; the first pair is its heading, for an empty one looks broken."""
    first, *rest = (f"| {cell(name)} | {cell(value)} |" for name, value in rows)
    return "\n".join([first, "|---|---|", *rest])


def backup_report(record: Record) -> str:
    """Describe a finished backup."""
    manifest = record.manifest
    if manifest.is_system:
        return _system_report(record)
    rows = [
        ("Archive", f"`{record.file}`"),
        ("Method", f"{manifest.method}, format {manifest.format}"),
        *_builds_on(manifest),
        ("Data as of", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Size", f"{size_text(record.bytes)} (database {size_text(manifest.database.size_bytes)})"),
        ("Took", duration_text(record.seconds)),
        ("Downtime", duration_text(manifest.downtime_seconds) if manifest.downtime_seconds else "none"),
        ("PostgreSQL", manifest.database.server_version),
        ("Encrypted", _encrypted_to(manifest.encryption)),
        ("SHA-256", f"`{record.sha256}`"),
    ]
    if manifest.census:
        counted = sum(found.rows for found in manifest.census.tables.values())
        rows.insert(4, ("Content", f"{counted:,} rows in {len(manifest.census.tables)} tables"))
    elif manifest.no_census:
        rows.insert(
            4,
            (
                "Content",
                f"**no census**: {manifest.no_census}; the dump is whole, and a verification still restores it",
            ),
        )
    rows += [("Warning", f"**{warning}**") for warning in manifest.warnings]
    return f"# Backup of {line(manifest.installation)}\n\n{table(rows)}\n\nNot yet proven: a verification restores it on staging.\n"


def _system_report(record: Record) -> str:
    """Describe a finished backup of the system around."""
    manifest, guest = record.manifest, record.manifest.guest
    rows = [
        ("Archive", f"`{record.file}`"),
        ("Backup of", manifest.subject),
        ("Format", manifest.format),
        ("Data as of", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Size", f"{size_text(record.bytes)}{f' (of {size_text(guest.bytes)} on the disk)' if guest else ''}"),
        ("Took", duration_text(record.seconds)),
        ("Downtime", duration_text(manifest.downtime_seconds) if manifest.downtime_seconds else "none"),
        ("Encrypted", _encrypted_to(manifest.encryption)),
        ("SHA-256", f"`{record.sha256}`"),
        *(("Not included", each) for each in (guest.left_out if guest else ())),
        *(("Warning", f"**{warning}**") for warning in manifest.warnings),
    ]
    return f"# Backup of the system around {line(manifest.installation)}\n\n{table(rows)}\n"


def system_report(installation: str, records: Sequence[Record], failed: Sequence[tuple[str, str]]) -> str:
    """Describe what a run over the system around made, and what it could not (of what, and why)."""
    parts = [_system_report(each).rstrip("\n") for each in records]
    parts += [f"# No backup of {line(subject)} of {line(installation)}\n\n{line(why)}" for subject, why in failed]
    return "\n\n".join(parts) + "\n"


def _builds_on(manifest: Manifest) -> list[tuple[str, str]]:
    """Tell what an incremental backup needs, or why one is full that was not to be."""
    if manifest.parents:
        full, nearest = manifest.parents[0].name, manifest.parents[-1].name
        more = f" and {len(manifest.parents) - 1} more, the last {nearest}" if len(manifest.parents) > 1 else ""
        return [("Holds", f"what has changed since {nearest}; needs {full}{more}")]
    return [("Holds", f"everything: {manifest.why_full}")] if manifest.why_full else []


def _encrypted_to(encryption: Encryption | None) -> str:
    if encryption is None:
        return "**no**: anyone who reads the archive reads the mail"
    return "to " + ", ".join(short_recipient(each) for each in encryption.recipients)


OPENED: dict[OpenedWith, str] = {
    "": "",
    "verification key": "the key made for this one verification, now gone: proven though sealed",
    "recovery key": "the recovery key: that it opens backups is proven, too",
    "identity": "a key that was given",
}


def verification_report(name: str, verification: Verification) -> str:
    """Describe a verdict: what was compared, the measured time to restore (RTO), and the age of the data (RPO)."""
    age, compared = verification.data_age_seconds, verification.compared
    done = verification.verdict in ("verified", "legacy")
    if compared is None:
        what = f"{verification.rows:,} rows in {verification.tables} tables; what else, this record does not say"
    else:
        what = words_of(compared, rows=verification.rows, tables=verification.tables)
    rows = [
        ("Verdict", f"**{verification.verdict}**"),
        ("Compared", what if done or not compared else f"{_what_was_looked_at(compared)}; see the differences"),
        (
            "Attachments",
            f"{verification.attachments:,} contents, each SHA-256 recomputed"
            if compared is None or "attachments" in compared
            else "not looked at",
        ),
        (
            "Time to restore (RTO)",
            duration_text(verification.restore_seconds) if done else "not measured: nothing was put in place",
        ),
        ("Age of the data (RPO)", duration_text(age) if age is not None else "unknown"),
        ("Verification took", duration_text(verification.seconds)),
        ("Archive's SHA-256", f"`{verification.archive_sha256}`"),
    ]
    if verification.opened_with:
        rows.insert(1, ("Opened with", OPENED[verification.opened_with]))
    text = f"# Verification of {name}\n\n{table(rows)}\n"
    if verification.verdict == "legacy":
        text += "\nThere is no census to compare with: it restored, and everything that can be checked without one is right.\n"
    if verification.notes:
        text += "\n## Notes\n\n" + "\n".join(f"- {line(each)}" for each in verification.notes) + "\n"
    if verification.differences:
        text += "\n## Differences\n\n" + "\n".join(f"- {line(each)}" for each in verification.differences) + "\n"
    return text


def _what_was_looked_at(compared: Sequence[str]) -> str:
    """Name what a comparison looked at that found differences: it must not say "equal"."""
    names = {"census": "the backup's census", "recorded census": "the census recorded before", "census recorded": ""}
    looked = [names.get(each, each) for each in compared]
    return ", ".join(each for each in looked if each) + ("" if counted(compared) else "; rows were not counted")


def restored_content(
    compared: Sequence[str],
    *,
    rows: int = 0,
    tables: int = 0,
    left_out: Sequence[str] = (),
    differences: Sequence[str] = (),
) -> str:
    """Say how a restore's content stands to the backup's: of what was compared alone, and no more."""
    if differences:
        return f"differs from the backup, and was not put in place: {'; '.join(differences)}"
    if left_out:
        rest = "the rest is equal to the backup's census" if "census" in compared else "there is no census of the rest"
        return f"all but {', '.join(left_out)}, which was left out as asked; {rest}"
    if not compared:
        return "restored; there is no census to compare it with"
    return words_of(compared, rows=rows, tables=tables)


def retention_report(installation: str, plan: RetentionPlan) -> str:
    """List which backups stay and which go, each with its reasons."""
    rows = [
        f"| {cell(decision.name)} | {'stays' if decision.keep else '**goes**'} | {cell('; '.join(decision.reasons))} |"
        for decision in plan.decisions
    ]
    text = "\n".join([f"# Retention of {installation}\n", "| backup | | because |", "|---|---|---|", *rows, ""])
    if plan.paused:
        what = "No backup of the database" if plan.removed else "Nothing"
        text += f"\n{what} is removed now:\n\n" + "\n".join(f"- {line(reason)}" for reason in plan.paused) + "\n"
    return text


def status_markdown(status: Status, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """Describe how an installation's backups stand; the line of RTO and RPO first, then what is wrong, then pictures (name and address)."""
    facts = status.facts
    problems = str(status).splitlines()[len(facts) :]
    text = "\n\n".join([f"# Backups of {status.installation}", *(line(each) for each in facts)]) + "\n"
    if problems:
        text += "\n## What is wrong\n\n" + "\n".join(f"- {line(each)}" for each in problems) + "\n"
    return text + "".join(f"\n![{name}]({address})\n" for name, address in pictures)
