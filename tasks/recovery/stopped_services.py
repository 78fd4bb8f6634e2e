"""The one loan that must never be forgotten: services that are stopped for a while.

Before the first of them stops, a journal of their states is on the disk and a watchdog process stands by. So each way out
leads back: the end of the block, an exception, the death of this process (the watchdog), of the machine (`recover`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

from tasks.adapters.engine import client, containers
from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, OpenJournal
from tasks.adapters.host.watchdog_link import WatchdogLink, watched_journal
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.installation import Installation, Service
from tasks.core.stack.service_states import Action, FormerState, PresentState, way_back

logger = logging.getLogger(__name__)

KIND = "stopped-services"
GIVING_BACK = "giving back the services of a run that died"
# A cancelled Prefect run is killed 30 s after it was asked to end: hand over to the watchdog before that.
GIVE_BACK_SECONDS = 20.0
# A request that Docker had only just received when its sender was killed has surely been begun after this time.
_SETTLING_SECONDS = 2.0
_AS_IT_WAS = "every container was in its former state"
_ALIVE = frozenset({"running", "restarting", "paused"})
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


class Loan:
    """Stopped services, until they are given back. Made by `stopped` only.

    `downtime_seconds` counts from the first stop until all were started again (until now, while they are not).
    """

    def __init__(
        self,
        former: Sequence[FormerState],
        journal: OpenJournal,
        watchdog: WatchdogLink,
        reason: str,
        timeouts_seconds: Mapping[str, int],
    ) -> None:
        self._former = tuple(former)
        self._timeouts_seconds = timeouts_seconds
        self._journal = journal
        self._watchdog = watchdog
        self._reason = reason
        self._began: float | None = None
        self._ended: float | None = None
        self._over = False
        self._started: set[str] = set()

    @property
    def downtime_seconds(self) -> float:
        """Tell for how long the services were away; 0 before the first stop."""
        if self._began is None:
            return 0.0
        return (self._ended if self._ended is not None else time.monotonic()) - self._began

    def stop_all(self) -> None:
        """Stop all borrowed services (again), in reverse start order."""
        for each in reversed(self._former):
            self.stop(each.service)

    def stop(self, service: str) -> None:
        """Stop one of the borrowed services (again); one that is stopped is left alone."""
        former = self._find(service)
        timeout_seconds = self._timeouts_seconds[service]
        found = containers.container(former.container_id)
        if found is None or found.state not in _ALIVE:
            return
        # On the disk first: Docker goes on with a stop whose client was killed, and the settling process must know of it.
        self._rewrite(replace(former, stop_of_run=found.started_at, stop_timeout_seconds=timeout_seconds))
        if self._began is None:
            self._began = time.monotonic()
        self._ended = None
        containers.stop_container(former.container_id, timeout_seconds=timeout_seconds)
        self._started.discard(service)

    def start(self, service: str) -> None:
        """Start one of the borrowed services early, for work that needs it; it does not wait until it is ready.

        One that was not running before the loan is stopped again when the loan is given back, by whomever.
        """
        former = self._find(service)
        if former.state not in _ALIVE and not former.started_by_us:
            self._rewrite(replace(former, started_by_us=True))
        self._started.add(service)
        containers.start_container(former.container_id)

    def start_all(self) -> None:
        """Bring every container back to its former state early, without giving the loan back: what they do now is to be seen first.

        They may be stopped again; whatever happens meanwhile, the end of the loan (or the process that settles it) goes
        by their state before it.
        """
        with signals_deferred():
            _bring_back(self._former, patience_seconds=GIVE_BACK_SECONDS)
            self._ended = time.monotonic()

    def running_again(self) -> list[str]:
        """List the containers that should be stopped but run, or ran: somebody else started them during the loan.

        A daemon that restarts brings containers with `restart: always` back, in the middle of a cold copy too. Ask after
        copying: a copy of files whose server ran meanwhile is worth nothing.
        """
        quiet = ((each, _present(each.container_id)) for each in self._former if each.service not in self._started)
        return [
            each.container_name
            for each, now in quiet
            if now.state in _ALIVE or (each.stop_of_run and now.started_at not in {each.stop_of_run, ""})
        ]

    def give_back(self) -> None:
        """Bring every container back to its former state, without waiting for its health. A second call does nothing.

        Signals are heard afterwards. Try for 20 s; then leave it to the watchdog, which goes on, and raise BackupError.
        """
        with signals_deferred():
            self._give_back()

    def _give_back(self) -> None:
        if self._over:
            return
        try:
            _bring_back(self._former, patience_seconds=GIVE_BACK_SECONDS)
            self._ended = self._ended or time.monotonic()
            self._journal.remove()
            self._watchdog.release()
        finally:
            # Cut short (an error, or a second signal): journal and watchdog are let go of, and finish without us.
            self._over = True
            self._journal.abandon()
            self._watchdog.close()

    def _rewrite(self, changed: FormerState) -> None:
        former = tuple(changed if each.service == changed.service else each for each in self._former)
        self._journal.rewrite(_body(former, self._reason))
        self._former = former

    def _find(self, service: str) -> FormerState:
        for each in self._former:
            if each.service == service:
                return each
        names = ", ".join(each.service for each in self._former)
        raise BackupError(f"service {service} is not part of this loan ({names})")


@contextmanager
def stopped(
    installation: Installation,
    services: Sequence[Service],
    *,
    reason: str,
    other_stop_seconds: int = 30,
) -> Iterator[Loan]:
    """Stop services for the length of the block, in reverse start order, and give each its former state back.

    What ran runs again, what was paused is paused again, what was stopped or absent stays so, whatever happens to this
    process. Hold the installation's lock around it. Nothing is stopped before the journal is on the disk and the watchdog
    has answered. Raise Refused, with nothing touched, where a container vanished since the installation was read.

    with stopped(production, [production.application, production.postgres], reason="a cold copy") as loan:
        copy_files()
        loan.give_back()
    """
    former = _former_states(installation, services)
    journal, watchdog = watched_journal(
        KIND, _body(former, reason), installation_id=installation.id, installation_directory=installation.directory
    )
    timeouts_seconds = {service.name: other_stop_seconds for service in services}
    timeouts_seconds[installation.postgres.name] = installation.limits.postgres_stop_seconds
    loan = Loan(former, journal, watchdog, reason, timeouts_seconds)
    try:
        loan.stop_all()
        yield loan
    except BaseException as error:
        try:
            loan.give_back()
        except BackupError as second:
            error.add_note(f"Then giving back the services failed: {second}")
        raise
    else:
        loan.give_back()
    logger.info("Services of %s were down for %.1f s (%s)", installation.id, loan.downtime_seconds, reason)


def settle(journal: Journal) -> str:
    """Bring the containers of a dead run's loan back to their former states, and say what that took.

    One attempt, idempotent; raise BackupError where it did not succeed (the journal then stays for the next try).
    """
    engine = str(journal.body["docker_host"])
    if engine != client.engine_address():
        raise BackupError(
            f"the services in {journal.path.name} were stopped on the engine {engine}, we talk to "
            f"{client.engine_address()}",
            hint=f"run `DOCKER_HOST={engine} mailarchiver-backup recover`",
        )
    former = [FormerState(**each) for each in journal.body["containers"]]
    done = _bring_back(former, patience_seconds=0)
    if any(each.stop_of_run or each.started_by_us for each in former):
        time.sleep(_SETTLING_SECONDS)
        again = _bring_back(former, patience_seconds=0)
        return done if again == _AS_IT_WAS else f"{done}; then {again}"
    return done


def _bring_back(former: Sequence[FormerState], *, patience_seconds: float) -> str:
    """Take the way back, starting over after errors until patience ends; raise the first error then."""
    deadline = time.monotonic() + patience_seconds
    first: BackupError | None = None
    done: list[str] = []
    attempt = 0
    while True:
        try:
            missing = _take_way_back(former, done)
        except BackupError as error:
            first = first or error
        else:
            words = ", ".join(done) if done else _AS_IT_WAS
            return words + (f"; gone meanwhile: {', '.join(missing)}" if missing else "")
        pause = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
        if time.monotonic() + pause >= deadline:
            raise BackupError(
                f"services could not be brought back to their former state: {first.message}",
                hint=first.hint or "see `docker ps -a`, and start them by hand if the watchdog does not succeed",
                transient=True,
            ) from first
        time.sleep(pause)
        attempt += 1


def _take_way_back(former: Sequence[FormerState], done: list[str]) -> list[str]:
    """Take every step that is needed once, add it to `done`, and name the containers that are gone.

    A step that fails keeps none of the others from being taken; the first error is raised afterwards.
    """
    way = way_back(former, {each.container_id: _present(each.container_id) for each in former})
    first: BackupError | None = None
    for step in way.steps:
        try:
            for action in step.actions:
                _act(action, step.former)
                done.append(f"{action} {step.former.container_name}")
        except BackupError as error:
            first = first or error
    if first is not None:
        raise first
    return [each.container_name for each in way.missing]


def _act(action: Action, former: FormerState) -> None:
    match action:
        case "start":
            containers.start_container(former.container_id)
        case "pause":
            containers.pause_container(former.container_id)
        case "unpause":
            containers.unpause_container(former.container_id)
        case "stop":
            containers.stop_container(former.container_id, timeout_seconds=former.stop_timeout_seconds)


def _former_states(installation: Installation, services: Sequence[Service]) -> list[FormerState]:
    """Ask Docker for the states as they are now, in start order; a service without a container has none."""
    wanted = {service.name for service in services}
    former = []
    for service in installation.services:
        if service.name not in wanted or not service.container_id:
            continue
        found = containers.container(service.container_id)
        if found is None:
            raise Refused(
                f"container {service.container_name} of service {service.name} is gone; it was there when the installation "
                "was read",
                hint="is somebody running `docker compose up` or `down`? try again when they are done",
            )
        former.append(FormerState(service.name, found.id, found.name, found.state))
    return former


def _present(container_id: str) -> PresentState:
    found = containers.container(container_id)
    return PresentState(found.state, found.started_at) if found is not None else PresentState("absent", "")


def _body(former: Sequence[FormerState], reason: str) -> dict[str, object]:
    return {
        "reason": reason,
        "docker_host": client.engine_address(),
        "containers": [asdict(each) for each in former],
    }
