"""Bring words to people: Apprise for the addresses it knows, plain pings for health checks. Addresses are secrets and are never logged."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Sequence
from typing import Literal

from tasks.core.plain_text import plain, plain_line
from tasks.core.policy.settings import AlarmKind, Notification

logger = logging.getLogger(__name__)

Ping = Literal["start", "success", "fail"]
PING_SECONDS = 10
_PING_PATHS: dict[Ping, str] = {"start": "/start", "success": "", "fail": "/fail"}


def send_alarm(
    notifications: Sequence[Notification], kind: AlarmKind, title: str, body: str, *, good: bool = False
) -> int:
    """Tell everybody who wants to know of this kind, as good news or as a warning; return how many could not be told.

    An address that cannot be reached is logged by its place in the settings, and fails nothing: a notification must not
    end the work it tells of.
    """
    unreached = 0
    for place, each in enumerate(notifications):
        if each.kind != "apprise" or kind not in each.events:
            continue
        if not _notify(each.url.get_secret_value(), good or kind == "success", title, body):
            unreached += 1
            logger.warning("notification %d (apprise) could not be sent: %s", place, title)
    return unreached


def send_ping(notifications: Sequence[Notification], ping: Ping, body: str = "") -> int:
    """Ping every health check as Healthchecks and its kin understand it: URL/start, URL, URL/fail; return how many did not answer."""
    unreached = 0
    for place, each in enumerate(notifications):
        if each.kind == "ping" and not _ping(each.url.get_secret_value().rstrip("/") + _PING_PATHS[ping], body):
            unreached += 1
            logger.warning("notification %d (ping) got no answer to %s", place, ping)
    return unreached


def _notify(url: str, good: bool, title: str, body: str) -> bool:
    # Imported here: it takes half a second, which only those pay who are told something.
    import apprise

    for noisy in ("apprise", "requests", "urllib3"):  # they would log the address
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    sender = apprise.Apprise()
    if not sender.add(url):
        return False
    severity = apprise.NotifyType.SUCCESS if good else apprise.NotifyType.FAILURE
    return bool(sender.notify(title=plain_line(title), body=plain(body), notify_type=severity))


def _ping(url: str, body: str) -> bool:
    if not url.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(url, data=plain(body).encode()[:10_000] or None)
    try:
        with urllib.request.urlopen(request, timeout=PING_SECONDS) as answer:
            return bool(200 <= answer.status < 300)
    except (OSError, ValueError):
        return False
