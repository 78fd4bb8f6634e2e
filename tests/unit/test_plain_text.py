"""P12: whatever a name, a label, a message or a setting holds, it moves no cursor, turns no writing and becomes no markup."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from deployments.cli.options import Call, answering
from tasks.adapters.outbox.report_page import write_report_page
from tasks.core.archive.manifest import Verification
from tasks.core.errors import ArchiveDamaged
from tasks.core.plain_text import PlainFormatter, cell, line, markdown, plain
from tasks.core.policy.history import Entry
from tasks.core.policy.status import Problem, Status
from tasks.core.report.charts import size_chart
from tasks.core.report.texts import table, verification_report
from tasks.run.config import config_at
from tasks.run.history import remembered
from tasks.step import step
from tasks.surroundings import PrefectRun

EVIL = (
    "\x1b]0;owned\a\x1b[2J\x9b31m\u202egnp.exe\u2066\u200b\r\x08\x7f<img src=x onerror=alert(1)>|`x`[a](javascript:b)"
)
MOVES = "\x1b\a\x9b\u202e\u2066\u200b\r\x08\x7f"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def harmless(text: str) -> bool:
    return not any(each in text for each in MOVES)


@given(st.text())
def test_no_control_is_left_and_words_stay(text: str) -> None:
    shown = plain(text)

    assert all(each in "\t\n" or (each >= " " and not "\x7f" <= each <= "\x9f") for each in shown)
    assert not set(shown) & set(MOVES)
    assert plain(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", ["Größe €", "日本語", "مرحبا", "שלום", "👍🏽", "a\tb\nc", r"C:\x", "e\u0301"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert plain(text) == text


@given(st.text())
def test_a_cell_stays_in_its_table(text: str) -> None:
    shown = cell(text)

    assert "\n" not in shown
    assert "<" not in shown.replace(r"\<", "")
    assert shown.count("|") == shown.count(r"\|")


@pytest.mark.parametrize(
    "page",
    [
        "<img src=x>", "a </script>", "``<img src=x>", "a ```<img src=x>\n\n```", "```a`b\n<img>\n```", r"\`<img src=x>`", "<!-- a -->", "<?php", "` \n<img>`",
    ],
)  # fmt: skip
def test_no_tag_is_html_in_a_page(page: str) -> None:
    import re

    assert not re.search(r"(?<!\\)<[A-Za-z/!?]", markdown(page))


def test_code_and_fences_of_a_page_are_left() -> None:
    page = "`<a>`\n\n```diff\n-<b>\n+<c>\n```\n1 < 2"

    assert markdown(page) == page


def test_terminals_get_neither_answers_nor_errors_raw(capsys: pytest.CaptureFixture[str]) -> None:
    Call(None, as_json=False).answer({}, f"a backup of {EVIL}")
    with pytest.raises(typer.Exit), answering(as_json=False):
        raise ArchiveDamaged(f"{EVIL} is missing", hint=EVIL)
    with pytest.raises(typer.Exit), answering(as_json=True):
        raise ValueError(EVIL)
    record = logging.LogRecord("x", logging.WARNING, "", 1, "%s", (EVIL,), None)

    told = capsys.readouterr()
    assert harmless(told.err)
    answer, _, value = told.out.partition("\n")
    assert harmless(answer)
    assert EVIL in json.loads(value)["error"], "JSON is exact, and escapes by itself"
    assert harmless(PlainFormatter("%(message)s").format(record))


def test_reports_hold_no_markup_of_others() -> None:
    verification = Verification(
        verdict="different", at=NOW, archive_sha256="", rows=1, tables=1, attachments=0, differences=[EVIL, "a\n# b"],
        restore_seconds=1.0, seconds=1.0, notes=[EVIL],
    )  # fmt: skip
    page = verification_report("mailarchiver-backup-20260301-020005", verification) + table([("A", "B"), ("C", EVIL)])

    assert harmless(page)
    assert "](javascript" not in page
    assert "\n# b" not in page
    assert page.count("<img") == page.count(r"\<img") == 3
    assert line("a\nb") == "a b"


def test_the_page_beside_the_backups_and_its_charts_survive_any_message(tmp_path: Path) -> None:
    """A control character in a message is no XML: the chart, and so `status`, ended in a traceback."""
    status = Status("main", NOW, 0, None, None, 0, (Problem("failure", EVIL),))
    entries = [Entry(run="hot backup", at=NOW, seconds=1.0, outcome="failed", message=EVIL)]

    page = write_report_page(tmp_path, status, [], [size_chart("main", [], entries)], entries).read_text()

    assert harmless(page)
    assert "<img" not in page


def test_an_exception_shows_nothing_raw_whoever_reports_it() -> None:
    """Prefect takes an error's text for the run's state, and a traceback with its notes for the log."""
    error = ArchiveDamaged(f"{EVIL} is missing", hint=EVIL)
    error.add_note(EVIL)

    assert harmless(str(error))
    assert harmless("".join(traceback.format_exception(error)))
    assert EVIL in error.message, "JSON is exact"


def test_a_handler_of_prefect_gets_plain_records_during_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its formatter is not ours, and its server keeps what it is sent."""
    sent: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: sent.append(record.getMessage()))
    log = logging.getLogger("tasks")
    log.addHandler(handler)
    try:
        with remembered(config_at("main", tmp_path, tmp_path), "a run"):
            logging.getLogger("tasks.adapters.host").warning("%s has no end", EVIL)
    finally:
        log.removeHandler(handler)

    (told,) = [each for each in sent if "has no end" in each]
    assert harmless(told)
    assert "owned" in told


def test_artifacts_and_events_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, object] = {}
    announced: dict[str, object] = {}
    monkeypatch.setattr("prefect.events.emit_event", lambda **event: announced.update(event))
    monkeypatch.setattr("prefect.artifacts.create_table_artifact", lambda **artifact: stored.update(artifact))
    PrefectRun().store("table", table=[{"backup": EVIL}], description=EVIL)
    PrefectRun().announce("event", "main", {"archive": EVIL})

    assert harmless("".join([stored["table"][0]["backup"], stored["description"], announced["payload"]["archive"]]))  # type: ignore[index,list-item]


def test_the_name_of_a_steps_run_is_a_line(tmp_path: Path) -> None:
    @step(name="dump", run_name="dump {database}")
    def dump(database: str) -> None: ...

    assert callable(dump.task_run_name)
    assert harmless(dump.task_run_name(parameters={"database": f"a\nb{EVIL}"}))  # type: ignore[call-arg]
