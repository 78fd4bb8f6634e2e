"""An image is known by its name and pinned by the digest of the repository it came from, however the name is written."""

from __future__ import annotations

import pytest

from tasks.core.stack.identify import Candidate, choose_application, choose_postgres, digest_of


@pytest.mark.parametrize(
    ("image", "digests", "expected"),
    [
        ("postgres:17-alpine", ["postgres@sha256:a"], "sha256:a"),
        ("postgres:17", ["example/postgres@sha256:a", "postgres@sha256:b"], "sha256:b"),
        ("docker.io/library/postgres:17", ["example/postgres@sha256:a", "postgres@sha256:b"], "sha256:b"),
        ("postgres", ["example/postgres@sha256:a", "docker.io/library/postgres@sha256:b"], "sha256:b"),
        ("docker.io/s1t5/mailarchiver", ["s1t5/mailarchiver@sha256:a"], "sha256:a"),
        ("registry.example:5000/mailarchiver", ["s1t5/mailarchiver@sha256:a", "registry.example:5000/mailarchiver@sha256:b"], "sha256:b"),
        ("postgres:17@sha256:c", ["example/postgres@sha256:a", "postgres@sha256:c"], "sha256:c"),
        ("tagged-anew:latest", ["s1t5/mailarchiver@sha256:a"], "sha256:a"),
        ("made-here", [], None),
    ],
)  # fmt: skip
def test_the_digest_is_that_of_the_repository_asked_for(image: str, digests: list[str], expected: str | None) -> None:
    """Of several names of one image the digest is its own; where no name fits, any of them still finds the same bytes."""
    assert expected == digest_of(image, digests)


@pytest.mark.parametrize(
    ("application", "postgres"),
    [
        ("s1t5/mailarchiver", "postgres:14-alpine"),
        ("s1t5/mailarchiver:latest@sha256:0123", "postgres@sha256:0123"),
        ("registry.example/somebody/mail-archiver:2608.1", "docker.io/library/postgres:18"),
        ("localhost:5000/mailarchiver", "localhost:5000/postgres:17"),
        ("registry.example:5000/mail/MailArchiver:1", "registry.example/pgvector/pgvector:pg17"),
        ("s1t5/mailarchiver", "bitnami/postgresql:17"),
    ],
)
def test_both_services_are_known_by_their_images(application: str, postgres: str) -> None:
    """Registry, port, tag and digest may be there or not; what merely belongs to a database is not taken for one."""
    images = {
        "a": "registry.example:5000/postgres-exporter:1", "b": application, "c": "prodrigestivill/postgres-backup-local",
        "d": postgres, "e": "dpage/pgadmin4", "f": "redis:7",
    }  # fmt: skip
    candidates = [Candidate(name, image, frozenset({name}), {}, ()) for name, image in images.items()]

    found = choose_application(candidates, project="mail")

    assert found.name == "b"
    assert choose_postgres(candidates, found, None, project="mail").name == "d"
