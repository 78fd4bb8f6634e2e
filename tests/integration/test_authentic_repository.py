"""A repository that others can write to (P4, P22): forged, foreign and future-dated files around genuine backups, and clocks that jump."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.adapters.archive.identity import read_identity
from tasks.adapters.archive.repository import list_backups, write_verification
from tasks.adapters.outbox.history_file import read_history
from tasks.core.archive.manifest import Record
from tasks.core.archive.names import backup_name
from tasks.core.policy.due import verification_due
from tasks.core.policy.settings import VerificationPolicy
from tasks.oversight.adopting import adopt, adoptable, dismiss
from tasks.oversight.pruning import plan_for, remove_planned
from tasks.oversight.status import read_status
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import choose_backup, look_at, own_records, resign
from tests.integration.archives import back_up, installation_in, verdict

FIRST = datetime(2026, 1, 5, 3, 30, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> InstallationConfig:
    return installation_in(tmp_path)


def prune(config: InstallationConfig, now: datetime) -> tuple[str, ...]:
    own = look_at(config, list_backups(config.repository), now=now)
    plan = plan_for(config, own, read_history(config.id), now=now)
    remove_planned(config, plan, now=now)
    return plan.paused


def forge(config: InstallationConfig, model: Record, at: datetime, **changes: object) -> Path:
    """Put 28 bytes with a record that says "verified" into the repository, made of a genuine one's."""
    name = backup_name(at, [path.name.removesuffix(".tar.gz") for path in config.repository.glob("*.tar.gz")])
    path = config.repository / f"{name}.tar.gz"
    path.write_bytes(b"twenty-eight bytes, no more.")
    value = json.loads(model.model_dump_json())
    value |= {"file": path.name, "bytes": 28, "verification": json.loads(verdict(at, model.sha256).model_dump_json())}
    value["manifest"] |= {"name": name, "created_at": at.isoformat(), **changes}
    path.with_name(f"{name}.manifest.json").write_text(json.dumps(value))
    return path


def names(config: InstallationConfig) -> set[str]:
    return {path.name for path in config.repository.glob("*.tar.gz")}


def test_fifty_small_files_that_say_verified_push_nothing_out(config: InstallationConfig) -> None:
    genuine = back_up(config, FIRST)
    for number in range(50):
        forge(config, genuine, FIRST + timedelta(hours=1 + number), origin=None)
    prune(config, FIRST + timedelta(days=3))

    assert len(names(config)) == 51
    assert choose_backup(config, "latest") == genuine.manifest.name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("each_night", [2, pytest.param(25, marks=pytest.mark.long)])
def test_a_thousand_files_around_ten_genuine_ones_over_forty_nights_with_two_jumps(
    config: InstallationConfig, each_night: int
) -> None:
    """Nothing genuine goes wrongly, `latest` is genuine, and the clock's alarm came the same night."""
    chance = random.Random(12)
    genuine: list[Record] = []
    put: set[str] = set()
    for night in range(40):
        wrong = timedelta(days=3650 if night == 13 else -1000 if night == 27 else 0)
        now = FIRST + timedelta(days=night) + wrong
        if night % 4 == 1 or wrong:
            genuine.append(back_up(config, now))
        model = genuine[-1] if genuine else back_up(config, now)
        if not genuine:
            genuine.append(model)
        for _ in range(each_night):
            at = FIRST + timedelta(days=chance.choice([night, night + 1, 4000, -30]), seconds=chance.randrange(10**5))
            put.add(forge(config, model, at, **chance.choice([{}, {"origin": None}, {"installation": "other"}])).name)
        before = {each.name for each in list_backups(config.repository) if f"{each.name}.tar.gz" not in put}
        paused = prune(config, now)
        status = read_status(config, now=now)
        left = {each.name for each in list_backups(config.repository)}

        assert ("clock" in {each.kind for each in status.problems}) == bool(wrong or night > 13), night
        assert any(each.kind == "authenticity" for each in status.problems)
        if wrong or night > 13:
            assert paused
            assert before <= left, night
        assert choose_backup_at(config, now) in {each.manifest.name for each in genuine}
    assert len(put) == 40 * each_night
    assert put <= names(config)

    # The clock is right again, and somebody says which date was wrong: pruning goes on.
    now = FIRST + timedelta(days=41)
    dismiss(config, [each.manifest.name for each in genuine if each.manifest.created_at > now])
    assert "clock" not in {each.kind for each in read_status(config, now=now).problems}
    assert prune(config, now) == ()
    assert put <= names(config)
    assert len(own_records(config, now=now)) == 3


def choose_backup_at(config: InstallationConfig, now: datetime) -> str:
    return own_records(config, now=now)[0].manifest.name if own_records(config, now=now) else first_ahead(config, now)


def first_ahead(config: InstallationConfig, now: datetime) -> str:
    """With a clock far behind everything is dated ahead."""
    return look_at(config, list_backups(config.repository), now=now).ahead[0]


def test_a_clock_ten_years_ahead_for_one_night(config: InstallationConfig) -> None:
    for night in range(4):
        back_up(config, FIRST + timedelta(days=night))
    before = names(config)
    ahead = FIRST + timedelta(days=3654)
    wrong = back_up(config, ahead)
    assert any("the clock jumped" in each for each in prune(config, ahead))
    assert before < names(config)
    assert "clock" in {each.kind for each in read_status(config, now=ahead).problems}

    now = FIRST + timedelta(days=5)
    right = back_up(config, now, verified=False)
    assert own_records(config, now=now)[0].manifest.name == right.manifest.name
    assert verification_due(own_records(config, now=now), VerificationPolicy())
    assert wrong.manifest.name in "".join(each.text for each in read_status(config, now=now).problems)
    assert prune(config, now)

    # Adopted, it gets the date of the backup before it.
    adopt(config, [wrong.manifest.name], now=now)
    assert "clock" not in {each.kind for each in read_status(config, now=now).problems}
    dated = {each.manifest.name: each.manifest.created_at for each in own_records(config, now=now)}
    assert dated[wrong.manifest.name] == FIRST + timedelta(days=3, seconds=1)
    assert prune(config, now) == ()


def test_two_hosts_with_one_id_on_one_share_leave_each_other_alone(
    config: InstallationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_host(name: str) -> InstallationConfig:
        state = tmp_path / f"state-{name}"
        state.mkdir(mode=0o700, exist_ok=True)
        monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(state))
        return config

    made: dict[str, list[str]] = {"a": [], "b": []}
    for night in range(6):
        for name in made:
            made[name].append(back_up(as_host(name), FIRST + timedelta(days=night)).manifest.name)
            prune(config, FIRST + timedelta(days=night))
    assert names(config) == {f"{each}.tar.gz" for host in made.values() for each in host[-3:]}
    assert choose_backup(as_host("a"), "latest") == made["a"][-1]
    assert "of others" in str(read_status(config, now=FIRST + timedelta(days=6)))


def test_a_replayed_a_rehashed_and_a_missing_backup_are_told(config: InstallationConfig) -> None:
    made = [back_up(config, FIRST + timedelta(days=night)) for night in range(4)]
    now = FIRST + timedelta(days=4)
    kept = config.repository.parent / "copy"
    shutil.copytree(config.repository, kept)
    prune(config, now)
    gone = made[0].manifest.name
    for path in kept.glob(f"{gone}*"):
        shutil.copy(path, config.repository)
    (config.repository / made[2].file).unlink()
    forge(config, made[1], now)
    judged = look_at(config, list_backups(config.repository), now=now).authenticity
    told = " ".join(each.text for each in read_status(config, now=now).problems if each.kind == "authenticity")

    assert str(judged[gone]) == "replayed"
    assert str(judged[made[3].manifest.name]) == "missing link"
    assert made[2].manifest.name in told
    assert "forged" in {str(each) for each in judged.values()}
    prune(config, now)
    assert made[0].file in names(config)
    assert choose_backup(config, "latest") == made[3].manifest.name


def test_an_older_verdict_in_place_of_a_newer_one_is_told_and_counts_for_nothing(config: InstallationConfig) -> None:
    """Its signature holds, as it did when it was written; what it says was refuted since."""
    made = [back_up(config, FIRST + timedelta(days=night)) for night in range(3)]
    now = FIRST + timedelta(days=3)
    path = config.repository / made[-1].file
    record = path.with_name(f"{made[-1].manifest.name}.manifest.json")
    former = record.read_bytes()
    refuted = verdict(now, made[-1].sha256).model_copy(update={"verdict": "different", "differences": ["a row"]})
    write_verification(path, refuted, resign(config))
    newest = record.read_bytes()
    record.write_bytes(former)

    judged = look_at(config, list_backups(config.repository), now=now).authenticity[made[-1].manifest.name]
    assert str(judged) == "outdated"
    assert f"verify {made[-1].manifest.name}" in judged.reason
    assert choose_backup(config, "latest") == made[-2].manifest.name
    problems = read_status(config, now=now).problems
    assert any("older record" in each.text for each in problems if each.kind == "authenticity")
    assert prune(config, now) == ()
    assert path.name in names(config)
    assert [each.refused for each in adopt(config, [made[-1].manifest.name], now=now)] == [True]

    # The newest is right again, and so is one that is judged anew.
    record.write_bytes(newest)
    assert choose_backup(config, "latest") == made[-1].manifest.name
    record.write_bytes(former)
    write_verification(path, verdict(now, made[-1].sha256), resign(config))
    assert own_records(config, now=now)[0].verified
    assert not [each for each in read_status(config, now=now).problems if each.kind == "authenticity"]


def test_archives_from_before_are_kept_told_and_adopted_by_one_command(config: InstallationConfig) -> None:
    old = [back_up(config, FIRST + timedelta(days=night), signed=False) for night in range(5)]
    now = FIRST + timedelta(days=6)
    prune(config, now)
    assert len(names(config)) == 5
    assert "mailarchiver-backup adopt" in str(read_status(config, now=now))
    damaged = config.repository / old[0].file
    damaged.write_bytes(damaged.read_bytes()[:-30] + bytes(30))

    done = {each.backup: each.refused for each in adopt(config, adoptable(config), now=now)}
    assert done == {each.manifest.name: each is old[0] for each in old}
    records = own_records(config, now=now)
    assert len(records) == 4
    # A verdict that nobody signed proves nothing.
    assert not any(each.verified for each in records)
    assert adoptable(config) == [old[0].manifest.name]


def break_key(key: Path) -> None:
    key.write_text("nonsense")


@pytest.mark.parametrize("lose", [Path.unlink, break_key])
def test_a_lost_key_fails_no_backup_and_the_former_ones_come_back(
    config: InstallationConfig, lose: Callable[[Path], None]
) -> None:
    first = back_up(config, FIRST)
    identity = read_identity(config.id, config.directory)
    assert identity.key_file.stat().st_mode & 0o777 == 0o600
    copy = identity.key_file.read_bytes()
    lose(identity.key_file)
    now = FIRST + timedelta(days=1)
    second = back_up(config, now)
    assert [each.file for each in own_records(config, now=now)] == [second.file]
    assert identity.public in "".join(each.text for each in read_status(config, now=now).problems)

    wanted = config.settings.model_copy(update={"trusted_keys": (identity.public,)})
    trusting = InstallationConfig("main", wanted)
    assert [each.file for each in own_records(trusting, now=now)] == [second.file, first.file]
    assert "authenticity" not in {each.kind for each in read_status(trusting, now=now).problems}
    identity.key_file.write_bytes(copy)
    assert [each.file for each in own_records(config, now=now)] == [first.file]
