"""A small host as an operator has it: the installed program's `serve` with two installations, and a browser that is logged in."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.receiver import Receiver, receiver
from tests.settings import write_settings
from tests.stack.stack import Stack, create_stack, wait_until
from tests.wheel import install_wheel

AUTH = "operator:a-pass-phrase"
# Chromium as root in a container, and without its own requests to the internet.
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# The picture of a run is drawn anew for each frame, by the processor here: a core and more, as long as such a page is open.
FEWER_PICTURES = """{
  const draw = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (then) => setTimeout(() => draw(then), 100);
}"""
OUTPUT = Path(os.environ.get("MAILARCHIVER_BACKUP_SCREENSHOTS", Path(__file__).parents[1] / "output"))


# What the browser met since the page was opened, for the report of a test that fails.
WRONG: list[str] = []


@dataclass
class Host:
    """A host that serves: its two stacks, their repositories, where its UI is, and how long it took to be ready."""

    url: str
    main: Stack
    office: Stack
    place: Path
    heard: Receiver
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    ready_cpu_seconds: float
    scheduled_for: datetime

    @property
    def settings(self) -> Path:
        """Where the settings file is."""
        return self.place / "settings.yaml"

    def repository(self, installation: str) -> Path:
        """Where an installation's archives are."""
        return self.place / f"backups-{installation}"


@pytest.fixture(scope="module")
def host(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Serve two installations; the office's nightly backup is set for three minutes from now, when `serve` is ready on a busy machine too.

    It is a complete one: that stops the stack, and so has a watchdog.
    """
    place = tmp_path_factory.mktemp("host")
    installed = install_wheel(place)
    main, office = create_stack(place / "main"), create_stack(place / "office")
    soon = (datetime.now(UTC) + timedelta(minutes=3)).replace(second=0, microsecond=0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with receiver() as heard:
        common = {"notifications": heard.settings(events=["success", "failure", "overdue"])}
        write_settings(
            place / "settings.yaml",
            {
                "main": {"directory": main.directory, "repository": place / "backups-main", **common},
                "office": {
                    "directory": office.directory, "repository": place / "backups-office", "method": "complete", **common,
                    "schedule": {"backup": f"{soon.minute} {soon.hour} * * *"},
                },
            },
        )  # fmt: skip
        environment = installed.environment(
            PREFECT_SERVER_API_AUTH_STRING=AUTH, MAILARCHIVER_BACKUP_STATE=str(place / "state"),
            PREFECT_API_URL=f"http://127.0.0.1:{port}/api", PREFECT_API_AUTH_STRING=AUTH,
        )  # fmt: skip
        log = place / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [installed.program, "serve", "--settings", str(place / "settings.yaml"), "--port", str(port)],
                cwd=installed.elsewhere, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(lambda: b"ready: " in log.read_bytes() or process.poll() is not None, 180, "serve is not ready")
            assert process.poll() is None, log.read_text()
            yield Host(
                f"http://127.0.0.1:{port}",
                main,
                office,
                place,
                heard,
                environment,
                process,
                _cpu_seconds(process.pid),
                soon,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            for stack in (main, office):
                stack.destroy()


def _cpu_seconds(pid: int) -> float:
    """Give the CPU time that a process, its living children, and those that it has waited for have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if pid in (int(path.parent.name), int(fields[1])):
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def logged_in(host: Host, chromium: str) -> Iterator[Page]:
    """Give a browser's page, logged in with the auth string; it asks nobody but the server."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        opened = browser.new_page(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
        opened.set_default_timeout(30_000)
        opened.add_init_script(FEWER_PICTURES)
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("requestfailed", lambda request: WRONG.append(f"{request.url}: {request.failure}"))
        opened.on("pageerror", lambda error: WRONG.append(f"the page's program: {error}"))
        opened.on("crash", lambda _: WRONG.append("the page crashed"))
        opened.goto(host.url)
        opened.locator("input").first.fill(AUTH)
        opened.keyboard.press("Enter")
        opened.get_by_text("Deployments", exact=True).first.wait_for()
        yield opened
        browser.close()
    assert [url for url in asked if not re.match(rf"{host.url}|data:|blob:", url)] == []


@pytest.fixture
def page(logged_in: Page) -> Iterator[Page]:
    """Lend the page to a test; it shows nothing when nobody looks any more."""
    yield logged_in
    logged_in.goto("about:blank")


def shot(page: Page, name: str) -> None:
    """Keep what is to be seen as a picture."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1000)
    page.screenshot(path=OUTPUT / f"{name}.png")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what was to be seen when a test failed, and tell what the browser met until then."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    opened = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and opened is not None:
        shot(opened, f"failed-{item.name}")
        report.sections.append(("what the browser met", "\n".join(WRONG[-50:]) or "nothing"))
