"""Prefect's server behind a guard: it answers requests that were meant for it, and of its own pages alone.

`python -m deployments.server --host HOST --port PORT [--fd N]`, with Prefect's settings in the environment. Prefect judges
neither Host nor Origin, and its own command has no place for somebody who does; so its application is run here,
services included, as `prefect server start` runs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from deployments.password import require_auth_string
from tasks.adapters.host.listening import handed_over, inherited, listen
from tasks.collector import collect_beside
from tasks.core.errors import BackupError
from tasks.core.policy.own_addresses import ADDRESS_VARIABLE, OwnAddresses, Refusal, own_addresses, refusal

CORS_VARIABLE = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# No page shows ours in a frame, and lures somebody's clicks; none takes our answers for pictures or scripts.
PROTECTION = (
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def guarded(application: Application, own: OwnAddresses) -> Application:
    """Let an ASGI application see the requests and websockets alone that its own addresses allow."""

    async def guard(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await application(scope, receive, send)
            return
        hosts, origins = (_values(scope, name) for name in (b"host", b"origin"))
        refused = refusal(own, hosts, origins)
        if refused is None:
            await application(scope, receive, _protecting(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: HTTP status 403
        else:
            await _refuse(send, refused)

    return guard


def _values(scope: Message, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]


def _protecting(send: Send) -> Send:
    async def protect(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *PROTECTION]
        await send(message)

    return protect


async def _refuse(send: Send, refused: Refusal) -> None:
    body = f"error: {refused.text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), (b"x-content-type-options", b"nosniff")
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run_server(host: str, port: int, descriptor: int | None = None) -> None:
    """Run the server until a signal comes, on a socket that is there already (`descriptor`) or taken at once.

    Raise UsageError where it would have no password.
    """
    require_auth_string()
    listening = listen(host, port) if descriptor is None else inherited(descriptor)
    port = int(listening.getsockname()[1])
    own = own_addresses(host, port, os.environ.get(ADDRESS_VARIABLE))
    # Read by Prefect at its import: by default any page may read what the server answers.
    os.environ[CORS_VARIABLE] = ",".join(sorted(own.origins))
    os.umask(0o077)
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(create_app(final=True), own), timeout_keep_alive=settings.api.keepalive_timeout,
            ws_ping_interval=settings.api.websocket_ping_interval, ws_ping_timeout=settings.api.websocket_ping_timeout,
            log_level=str(settings.logging_level).lower(),
        )
    )  # fmt: skip
    collect_beside()
    server.run(sockets=[listening])
    if not server.started:
        raise BackupError("Prefect's server did not start", hint="what it printed above says why")


def main() -> None:
    """Read host and port, and run the server."""
    parser = argparse.ArgumentParser(prog="python -m deployments.server")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fd", type=int, help="a socket that listens already")
    asked = parser.parse_args()
    descriptor = handed_over(os.environ, os.getpid()) if asked.fd is None else asked.fd
    try:
        run_server(asked.host, asked.port, descriptor)
    except BackupError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
