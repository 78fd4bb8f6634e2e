"""The value a flow starts from: which installation, and what its settings want."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tasks.core.policy.chains import ChainRules
from tasks.core.policy.limits import DumpLimits, ServiceLimits, StagingLimits
from tasks.core.policy.settings import InstallationSettings


@dataclass(frozen=True, slots=True)
class InstallationConfig:
    """What a run needs to know of an installation before it looks at it.

    `fresh` marks a host that is being set up from an archive: its application is started although it never ran.
    `elsewhere` is what stands for a target of copies, where archives are read from one.
    """

    id: str
    settings: InstallationSettings
    fresh: bool = False
    elsewhere: Path | None = None

    @property
    def directory(self) -> Path:
        """Where the compose file is."""
        return self.settings.directory

    @property
    def repository(self) -> Path:
        """Where the archives are."""
        return self.settings.repository

    @property
    def archives(self) -> Path:
        """Where archives are read from: the repository, or what stands for a target of copies."""
        return self.elsewhere or self.repository

    @property
    def at_home(self) -> InstallationConfig:
        """Give the same with the repository as the place of the archives."""
        return replace(self, elsewhere=None)

    @property
    def project(self) -> str | None:
        """The compose project, where the settings name one."""
        return self.settings.project

    @property
    def dump_limits(self) -> DumpLimits:
        """Give the limits of a dump and of its load."""
        wanted = self.settings.timeouts
        return DumpLimits(lock_wait_seconds=wanted.lock_wait_seconds, total_seconds=wanted.dump_seconds)

    @property
    def chain_rules(self) -> ChainRules:
        """Give when a full backup is due among incremental ones."""
        wanted = self.settings.incremental
        return ChainRules(wanted.full_after_days, wanted.full_after_links, wanted.synthetic)

    @property
    def staging_limits(self) -> StagingLimits:
        """Give the limits of a staging stack."""
        return StagingLimits(memory_bytes=self.settings.staging.memory_bytes)

    @property
    def service_limits(self) -> ServiceLimits:
        """Give how long the services may take to stop and to start."""
        wanted = self.settings.timeouts
        return ServiceLimits(
            postgres_stop_seconds=wanted.postgres_stop_seconds,
            application_start_seconds=wanted.application_start_seconds,
        )

    @property
    def limit_seconds(self) -> float:
        """Give how long a whole run may take: time for a dump and for its load, and for what may be waited for before it.

        Each queue in Prefect has one place; a run that never ended would keep all others from ever beginning.
        """
        wanted = self.settings.timeouts
        guests = max(
            (each.limit_seconds for each in (self.settings.proxmox, self.settings.lxc, self.settings.vm) if each),
            default=0.0,
        )
        return max(2 * wanted.dump_seconds + wanted.defer_seconds + wanted.approval_seconds, guests)


def config_at(
    installation_id: str,
    directory: Path,
    repository: Path,
    *,
    project: str | None = None,
    fresh: bool = False,
    trusted_keys: tuple[str, ...] = (),
) -> InstallationConfig:
    """Give the configuration of an installation that no settings file names: all other settings are the defaults.

    The paths and the name are the caller's own, and are taken as they are.
    """
    settings = InstallationSettings.model_construct(
        directory=directory, repository=repository, project=project, trusted_keys=trusted_keys
    )
    return InstallationConfig(installation_id, settings, fresh)
