"""A session with a server of Proxmox's: TLS that is always checked, bounded answers, and errors in our words.

Here alone proxmoxer is spoken to. By itself it would follow redirects, obey the environment's proxies, and read an answer of any
length; and it knows no certificate by its fingerprint.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NoReturn

import requests
from requests.adapters import HTTPAdapter

from tasks.adapters.host.outside_files import CA_FILE, UnfitFile, read_outside
from tasks.adapters.proxmox.token import Token, read_token
from tasks.core.errors import BackupError, Refused, UsageError
from tasks.core.plain_text import plain_line
from tasks.core.policy.proxmox_settings import BackupServer, Proxmox

TIMEOUT_SECONDS = 30.0
ANSWER_SECONDS = 120.0
ANSWER_BYTES = 32 << 20
# Statuses of Proxmox's own proxy between nodes: the node that is asked about does not answer.
NODE_AWAY = frozenset({595, 596, 597, 598, 599})


class Session:
    """Requests to one server, with what went wrong told as errors of ours. `caller` is whom its tasks are of: USER@REALM!NAME."""

    def __init__(self, api: Any, where: str, caller: str) -> None:
        self._api = api
        self.where, self.caller = where, caller

    def get(self, path: str, **parameters: Any) -> Any:
        """Ask for something. `path` is made of words of ours and of names whose form was checked."""
        return self._call("get", path, parameters)

    def post(self, path: str, **parameters: Any) -> Any:
        """Have something done."""
        return self._call("post", path, parameters)

    def put(self, path: str, **parameters: Any) -> Any:
        """Have something changed."""
        return self._call("put", path, parameters)

    def delete(self, path: str, **parameters: Any) -> Any:
        """Have something removed or ended."""
        return self._call("delete", path, parameters)

    def _call(self, method: str, path: str, parameters: Mapping[str, Any]) -> Any:
        from proxmoxer import ResourceException

        named = {name.replace("_", "-"): value for name, value in parameters.items()}
        try:
            return getattr(self._api(path), method)(**named)
        except ResourceException as error:
            _tell_refusal(error, self.where, path)
        except requests.exceptions.SSLError as error:
            raise _untrusted(self.where, error) from None
        except requests.exceptions.RequestException as error:
            raise _away(self.where, error) from None
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BackupError(
                f"what answers at {self.where} is no Proxmox: its answer to {path} is not JSON as its API documents",
                hint="are host and port right?",
            ) from error


@contextmanager
def session(server: Proxmox | BackupServer, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Session]:
    """Give a session with a server of the settings. Nothing is sent before the first request."""
    # Imported here: only those pay for it who have a Proxmox.
    from proxmoxer import ProxmoxAPI

    token = read_token(server.token_file)
    where = f"{server.host}:{server.port}"
    api = ProxmoxAPI(
        server.host,
        port=server.port,
        service="PBS" if isinstance(server, BackupServer) else "PVE",
        user=token.user,
        token_name=token.name,
        token_value=token.secret,
        verify_ssl=_proof(server),
        timeout=timeout_seconds,
    )
    inner: requests.Session = api._store["session"]
    inner.trust_env = False  # neither a proxy nor a .netrc of the environment
    inner.max_redirects = 0
    inner.mount("https://", _Bounded(server.fingerprint))
    inner.mount("http://", _Never())
    try:
        yield Session(api, where, f"{token.user}!{token.name}")
    finally:
        inner.close()


def token_of(server: Proxmox | BackupServer) -> Token:
    """Read a server's token, to see whether it is there and fit."""
    return read_token(server.token_file)


def shown_fingerprint(host: str, port: int, *, timeout_seconds: float = 10.0) -> str:
    """Give the SHA-256 of the certificate that a server shows, for an operator to compare; nothing is trusted by it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout_seconds) as plain:
            with context.wrap_socket(plain, server_hostname=host) as line:
                found = line.getpeercert(binary_form=True) or b""
    except OSError:
        return ""
    return ":".join(f"{byte:02X}" for byte in sha256(found).digest()) if found else ""


class _Bounded(HTTPAdapter):
    """Reads answers of a bounded length within a bounded time; knows the server by its certificate's fingerprint, where one is named."""

    def __init__(self, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        if self._fingerprint is not None:
            options["assert_fingerprint"] = self._fingerprint
            options["assert_hostname"] = False
        super().init_poolmanager(*args, **options)

    def send(self, *args: Any, **options: Any) -> requests.Response:
        response = super().send(*args, **{**options, "stream": True})
        pieces, count, deadline = [], 0, time.monotonic() + ANSWER_SECONDS
        for piece in response.iter_content(1 << 16):
            pieces.append(piece)
            count += len(piece)
            if count > ANSWER_BYTES or time.monotonic() > deadline:
                response.close()
                raise requests.exceptions.ContentDecodingError(
                    f"the answer is longer than {ANSWER_BYTES:,} bytes or takes more than {ANSWER_SECONDS:g} s"
                )
        response._content, response._content_consumed = b"".join(pieces), True
        return response


class _Never(HTTPAdapter):
    """Sends nothing: a token never goes over a line that is not encrypted."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        raise requests.exceptions.ConnectionError("it wants to be spoken to without TLS")


def _proof(server: Proxmox | BackupServer) -> bool | str:
    """Tell by what the certificate is checked: a CA's file, the system's CAs, or (False) its fingerprint alone."""
    if server.fingerprint is not None:
        return False
    if server.ca_file is None:
        return True
    try:
        read_outside(server.ca_file, CA_FILE)
    except FileNotFoundError:
        raise UsageError(f"there is no CA file {server.ca_file}", hint="is the path right?") from None
    except UnfitFile as error:
        raise UsageError(error.message, hint=error.hint) from None
    return str(server.ca_file)


def _tell_refusal(error: Any, where: str, path: str) -> NoReturn:
    said = plain_line(str(error.content or error.status_message or "")).strip()[:300]
    if isinstance(error.errors, dict) and error.errors:
        said = "; ".join(
            f"{plain_line(str(name))[:60]}: {plain_line(str(why)).strip()[:200]}" for name, why in error.errors.items()
        )
    if error.status_code == 401:
        raise Refused(
            f"{where} does not accept the API token: {said or 'authentication failure'}",
            hint="has it expired, or was it removed? see Datacenter > Permissions > API Tokens, and write a new one into the token file",
        ) from None
    if error.status_code == 403:
        raise Refused(
            f"the API token may not do this at {where} ({path}): {said}",
            hint="give the token itself the privileges that the README lists; a token with privilege separation has none by itself",
        ) from None
    if error.status_code in NODE_AWAY:
        raise BackupError(
            f"a node behind {where} does not answer ({error.status_code}): {said}",
            hint="is the node online?",
            transient=True,
        ) from None
    raise BackupError(
        f"{where} answered {path} with {error.status_code}: {said or 'no reason'}",
        hint="its task log and `journalctl -u pvedaemon` there say more",
        transient=error.status_code in (502, 503, 504),
    ) from None


def _untrusted(where: str, error: Exception) -> Refused:
    """Tell that the certificate is not the one that is expected: the hint says which one is shown."""
    host, _, port = where.rpartition(":")
    found = shown_fingerprint(host, int(port))
    return Refused(
        f"the certificate of {where} is not trusted: {plain_line(_reason(error))[:200]}",
        hint=f"it shows the fingerprint {found or '(none)'}; compare it with `pvenode cert info` there (`proxmox-backup-manager cert info`), "
        "and only then name it in `fingerprint`; or give the CA's certificate in `ca_file`",
    )


def _away(where: str, error: Exception) -> BackupError:
    if "without TLS" in str(error) or isinstance(error, requests.exceptions.TooManyRedirects):
        return Refused(f"{where} sends us elsewhere, where no token goes", hint="are host and port right?")
    return BackupError(
        f"{where} cannot be reached: {plain_line(_reason(error))[:200]}",
        hint="is it running, and is its port open to this machine?",
        transient=True,
    )


def _reason(error: Exception) -> str:
    """Find the innermost words: requests and urllib3 wrap each other's."""
    inner: Any = error
    for _ in range(6):
        following = getattr(inner, "reason", None) or (
            inner.args[0] if inner.args and isinstance(inner.args[0], Exception) else None
        )
        if not isinstance(following, Exception):
            break
        inner = following
    return str(inner) or type(error).__name__
