"""Addresses of notifications as plain webhooks, for what Prefect's server tells by itself: it has no Apprise at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tasks.core.policy.settings import Notification, Settings

# The template's words, which Prefect's block fills in.
TITLE, TEXT = "{{subject}}", "{{body}}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address, which is a secret, and the JSON to post to it."""

    url: str = field(repr=False)
    body: dict[str, str]


def webhooks(settings: Settings) -> list[Webhook]:
    """Turn the notifications that want failures into webhooks, each address once.

    Apprise's `json(s)://` and `ntfy(s)://` can be, and health checks (URL/fail); mail and chats are told by the runs themselves and by the
    timer alone.
    """
    found = [
        webhook
        for installation in settings.installations.values()
        for each in installation.notifications
        if (webhook := _webhook(each)) is not None
    ]
    return list({each.url: each for each in found}.values())


def _webhook(notification: Notification) -> Webhook | None:
    url = notification.url.get_secret_value()
    if notification.kind == "ping":
        return Webhook(f"{url.rstrip('/')}/fail", {"text": TITLE})
    if "failure" not in notification.events:
        return None
    scheme, _, rest = url.partition("://")
    protocol = "https" if scheme.endswith("s") else "http"
    if scheme in ("json", "jsons"):
        return Webhook(f"{protocol}://{rest}", {"title": TITLE, "message": TEXT, "type": "failure"})
    if scheme in ("ntfy", "ntfys"):
        parts = urlsplit(f"{protocol}://{rest}")
        topic = parts.path.strip("/")
        if not topic:  # ntfy://topic means the public server
            return Webhook("https://ntfy.sh", {"topic": parts.netloc, "title": TITLE, "message": TEXT})
        return Webhook(f"{protocol}://{parts.netloc}", {"topic": topic, "title": TITLE, "message": TEXT})
    return None
