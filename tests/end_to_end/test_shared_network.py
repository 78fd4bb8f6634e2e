"""A stack whose containers live in one side-car's network, as with a tailnet or a VPN: they find each other at localhost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli import Operator
from tests.content import content
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500)]

COMPOSE = """\ufeff# the network belongs to a service of its own
name: @PROJECT@
x-every: &every
  restart: unless-stopped
services:
  network:
    <<: *every
    image: @APPLICATION_IMAGE@
    entrypoint: ["sleep", "infinity"]
    ports: ["127.0.0.1:@PORT@:5000"]
  mailarchive-app:
    <<: *every
    image: @APPLICATION_IMAGE@
    network_mode: service:network
    environment:
      ConnectionStrings__DefaultConnection: "Host=localhost;Database=MailArchiver;Username=mailuser;Password=masterkey"
    volumes: ["./data-protection-keys:/app/DataProtection-Keys"]
    depends_on: {network: {condition: service_started}, postgres: {condition: service_healthy}}
  postgres:
    <<: *every
    image: postgres:17-alpine
    network_mode: service:network
    environment: {POSTGRES_DB: MailArchiver, POSTGRES_USER: mailuser, POSTGRES_PASSWORD: masterkey}
    volumes: ["./postgres-data:/var/lib/postgresql/data"]
    healthcheck: {test: ["CMD-SHELL", "pg_isready -U mailuser -d MailArchiver -h 127.0.0.1"], interval: 1s, retries: 60}
    depends_on: {network: {condition: service_started}}
"""


class SharedNetwork(Stack):
    """A stack that is reached at the address of the container whose network it shares."""

    def address(self, service: str = "network") -> str:
        return super().address("network")


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.stack.stack.Stack", SharedNetwork)
        made = create_stack(tmp_path_factory.mktemp("shared") / "stack", compose=COMPOSE)
    yield made
    made.destroy()


@pytest.mark.parametrize(
    "method", ["complete", *(pytest.param(method, marks=pytest.mark.long) for method in ("hot", "online"))]
)
def test_every_method_works_there(stack: Stack, tmp_path_factory: pytest.TempPathFactory, method: str) -> None:
    """Backed up, verified, restored and rolled back, each within its limit."""
    operator = Operator(stack.directory, tmp_path_factory.mktemp("backups") / method)
    before = content(stack)
    operator.must("backup", method)
    assert operator.must("verify", "latest")["verdict"] == "verified"
    stack.psql('DELETE FROM mail_archiver."EmailAttachments"')
    damaged = content(stack)

    operator.must("restore", "latest", "--yes", "--no-quarantine")
    stack.wait_app()
    assert content(stack) == before

    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == damaged
    assert operator.must("commit", "--yes")["dropped"]
