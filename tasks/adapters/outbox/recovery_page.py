"""The recovery sheet as one HTML file to be printed, with QR codes of the keys; it needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

import segno
from markupsafe import Markup

from tasks.adapters.outbox.pages import template
from tasks.core.report.recovery_sheet import (
    SheetFacts,
    from_copies_lines,
    program_lines,
    recovery_steps,
    signing_key_lines,
)


def recovery_page(
    facts: SheetFacts, rows: Sequence[tuple[str, str]], *, at: datetime, secret: str = "", signing: str = ""
) -> str:
    """Write the sheet; `secret` is the recovery key and `signing` the private signing key, where they are to stand on it."""
    encryption = facts.manifest.encryption
    return template("recovery-sheet.html.j2").render(
        facts=facts,
        rows=rows,
        steps=recovery_steps(facts),
        program=program_lines(facts),
        from_copies=from_copies_lines(facts),
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
