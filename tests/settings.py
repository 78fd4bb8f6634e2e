"""Settings files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml

from tasks.core.policy.settings import RiskKind

# For tests of other things than the posture: test stacks have the guide's passwords, and nothing of theirs goes off-site.
ALL_RISKS = list(get_args(RiskKind))


def write_settings(place: Path, installations: dict[str, dict[str, Any]]) -> Path:
    """Write a settings file that only its owner can read; paths may be given as such."""
    plain = {
        name: {key: str(value) if isinstance(value, Path) else value for key, value in one.items()}
        for name, one in installations.items()
    }
    place.write_text(yaml.safe_dump({"installations": plain}))
    place.chmod(0o600)
    return place
