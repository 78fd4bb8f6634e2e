"""The recovery sheet as one HTML file to be printed, with QR codes of the keys; it needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

import jinja2
import segno
from markupsafe import Markup

from tasks.core.plain_text import plain
from tasks.core.report.recovery_sheet import SheetFacts, program_lines, recovery_steps, signing_key_lines


def recovery_page(
    facts: SheetFacts, rows: Sequence[tuple[str, str]], *, at: datetime, secret: str = "", signing: str = ""
) -> str:
    """Write the sheet; `secret` is the recovery key and `signing` the private signing key, where they are to stand on it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.adapters.outbox"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    encryption = facts.manifest.encryption
    return environment.get_template("recovery-sheet.html.j2").render(
        facts=facts,
        rows=rows,
        steps=recovery_steps(facts),
        program=program_lines(facts),
        recipients=[(each, qr_code(each)) for each in (encryption.recipients if encryption else ())],
        secret=secret,
        secret_qr=qr_code(secret) if secret else "",
        signing=signing,
        signing_qr=qr_code(signing) if signing else "",
        signing_lines=signing_key_lines(facts),
        at=at,
        version=version("mailarchiver-backup"),
    )


def qr_code(text: str) -> Markup:
    """Draw a text as a QR code that survives a fold in the paper (error correction Q: a quarter may be lost)."""
    return Markup(segno.make(text, error="q", micro=False).svg_inline(border=2, omitsize=True))
