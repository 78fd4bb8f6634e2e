"""The program as an operator installs it: a wheel in a virtual environment of its own, with no checkout in sight."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("flows", "tasks", "deployments", "prefect.yaml", "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
STRANGERS = ("tasks", "flows", "deployments")


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, and a directory elsewhere with somebody's own `tasks` and `flows`."""

    venv: Path
    elsewhere: Path

    @property
    def program(self) -> str:
        """Give the program's path."""
        return str(self.venv / "bin" / "mailarchiver-backup")

    def environment(self, **more: str) -> dict[str, str]:
        """Give an environment in which nothing leads to the checkout."""
        plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return {**plain, "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}", **more}

    def run(self, *command: str, timeout_seconds: float = 180, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, elsewhere."""
        return subprocess.run(
            command, cwd=self.elsewhere, env=self.environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_seconds, check=False,
        )  # fmt: skip


def built_wheel(place: Path) -> Path:
    """Build the wheel from a copy of the sources in `place`, or give the one that another test has built from the same."""
    sources = place / "sources"
    sources.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, sources / name)
    whole = hashlib.sha256(sys.version.encode())
    for path in sorted(each for each in sources.rglob("*") if each.is_file()):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(sources)}\0{path.is_symlink()}\0{len(content)}\0".encode() + content)
    shared = Path(tempfile.gettempdir()) / f"mailarchiver-backup-wheels-{os.getuid()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    assert shared.stat().st_uid == os.getuid(), f"{shared} is somebody else's"
    kept = shared / whole.hexdigest()[:16]
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _run([*PIP, "wheel", "--no-deps", "--wheel-dir", str(place / "built"), str(sources)])
            for former in (each for each in shared.iterdir() if each.is_dir()):
                shutil.rmtree(former)
            shutil.move(place / "built", kept)
        shutil.rmtree(sources)
        (wheel,) = kept.glob("mailarchiver_backup-*.whl")
        return Path(shutil.copy2(wheel, place))


def install_wheel(place: Path) -> Installed:
    """Build the wheel and install it, as `pip install .` does, into `place`/venv.

    What the program depends on is not fetched again: a .pth file shows the test environment's packages, but, as those
    .pth files are not followed, not the checkout that is installed there for editing.
    """
    venv, elsewhere = place / "venv", place / "elsewhere"
    wheel = built_wheel(place)
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    (packages / "what-it-depends-on.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run([*PIP, "--python", str(venv / "bin" / "python"), "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)])  # fmt: skip
    # Beside our program pip would have put Prefect's, for the same Python.
    script = Path(sys.executable).with_name("prefect").read_text().split("\n", 1)[1]
    (venv / "bin" / "prefect").write_text(f"#!{venv / 'bin' / 'python'}\n{script}")
    (venv / "bin" / "prefect").chmod(0o755)
    for name in STRANGERS:
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "__init__.py").write_text('raise ImportError("this is somebody else\'s")\n')
    return Installed(venv, elsewhere)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
