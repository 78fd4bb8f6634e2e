"""What belongs to a database itself and stands in no dump of it: settings, grants, limits, labels.

`pg_dump --create` (src/bin/pg_dump/pg_dump.c, dumpDatabase; dumputils.c) is the yardstick for how they are given again.
Everything here only writes statements or compares; the order of things is the caller's: a database's own settings come
last, so that none acts on its restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.core.archive.manifest import DatabaseFacts, Grant
from tasks.core.quoting import quoted

# PostgreSQL keeps these as lists of quoted names (GUC_LIST_QUOTE; an extension cannot define such a setting): see
# variable_is_guc_list_quote().
LISTS_OF_NAMES = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
PRIVILEGES = frozenset({"CREATE", "CONNECT", "TEMPORARY"})
EVERYBODY = ""
DEFAULT_TABLESPACE = "pg_default"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing to give a database: in words, and the statements that do it together."""

    words: str
    statements: tuple[str, ...]


def attributes(facts: DatabaseFacts, name: str, *, owner: str, roles: Iterable[str]) -> list[Attribute]:
    """List what makes the database `name`, owned by `owner`, what the facts say; whatever needs one of the missing roles is left out.

    Each attribute stands for itself, so that one that a server refuses does not cost the others.
    """
    known = frozenset(roles)
    found = [
        *_grants(facts, name, owner, known),
        *_labels(facts, name),
        *_settings(facts, name, known),
    ]
    if facts.connection_limit != -1:
        found.append(
            Attribute(
                f"connection limit {facts.connection_limit}",
                (f"ALTER DATABASE {quoted(name)} CONNECTION LIMIT {facts.connection_limit}",),
            )
        )
    if facts.is_template:
        found.append(Attribute("IS_TEMPLATE", (f"ALTER DATABASE {quoted(name)} IS_TEMPLATE true",)))
    return found


def _grants(facts: DatabaseFacts, name: str, owner: str, known: frozenset[str]) -> Iterator[Attribute]:
    """Give the statements of one transaction: revoke all, then grant in PostgreSQL's own order, each by its grantor."""
    grants = grants_of(facts)
    if grants is None:
        return
    on = f"ON DATABASE {quoted(name)}"
    statements = [f"REVOKE ALL {on} FROM PUBLIC", f"REVOKE ALL {on} FROM {quoted(owner)}"]
    for grant in grants:
        grantor, grantee = (owner if role == facts.owner else role for role in (grant.grantor, grant.grantee))
        if grant.privilege not in PRIVILEGES or not {grantor, grantee} - {EVERYBODY} <= known:
            continue
        to = "PUBLIC" if grantee == EVERYBODY else quoted(grantee)
        option = " WITH GRANT OPTION" if grant.grantable else ""
        said = f"GRANT {grant.privilege} {on} TO {to}{option}"
        if grantor == owner:  # what a superuser grants is granted by the owner
            statements.append(said)
        else:
            statements += [f"SET LOCAL SESSION AUTHORIZATION {quoted(grantor)}", said]
            statements.append("SET LOCAL SESSION AUTHORIZATION DEFAULT")
    yield Attribute("grants", tuple(statements))


def grants_of(facts: DatabaseFacts) -> list[Grant] | None:
    """Give the grants in their order, None for PostgreSQL's defaults; manifests before `grants` knew neither grantor nor option."""
    if facts.grants is not None or facts.privileges is None:
        return facts.grants
    found = []
    for line in facts.privileges:
        grantee, _, privilege = line.rpartition(" ")
        grantee = EVERYBODY if grantee == "PUBLIC" else grantee
        found.append(Grant(grantor=facts.owner, grantee=grantee, privilege=privilege))
    return found


def _labels(facts: DatabaseFacts, name: str) -> Iterator[Attribute]:
    for provider, label in facts.security_labels.items():
        yield Attribute(
            f"security label of {provider}",
            (f"SECURITY LABEL FOR {quoted(provider)} ON DATABASE {quoted(name)} IS {literal(label)}",),
        )


def _settings(facts: DatabaseFacts, name: str, known: frozenset[str]) -> Iterator[Attribute]:
    for role, lines in facts.settings.items():
        if role and role not in known:
            continue
        whose = f"ROLE {quoted(role)} IN DATABASE {quoted(name)}" if role else f"DATABASE {quoted(name)}"
        for line in lines:
            setting, _, value = line.partition("=")
            words = f"setting {line}" + (f" of {role}" if role else "")
            yield Attribute(words, setting_statements(whose, setting, value))


def setting_statements(whose: str, setting: str, value: str) -> tuple[str, ...]:
    """Write what makes PostgreSQL keep exactly this value again: as a list of names where it keeps one, else as a string.

    >>> print(setting_statements("DATABASE a", "search_path", 'mail, "odd, name", ""')[0])
    ALTER DATABASE a SET "search_path" TO 'mail', 'odd, name', ''
    """
    if setting.lower() not in LISTS_OF_NAMES:
        return (f"ALTER {whose} SET {quoted(setting)} TO {literal(value)}",)
    names = split_names(value)
    if names is None:
        return (f"ALTER {whose} SET {quoted(setting)} TO {literal(value)}",)
    if not names:
        # No list of literals stands for the empty value (SET ... TO '' is one empty name); the session's own value does.
        return (
            f"SELECT pg_catalog.set_config({literal(setting)}, '', true)",
            f"ALTER {whose} SET {quoted(setting)} FROM CURRENT",
        )
    return (f"ALTER {whose} SET {quoted(setting)} TO {', '.join(literal(each) for each in names)}",)


def split_names(value: str) -> list[str] | None:
    """Split a list of names as PostgreSQL's SplitGUCList does; None where it is no such list.

    >>> split_names('"$user", public,"a b"'), split_names('""'), split_names(' '), split_names('a,')
    (['$user', 'public', 'a b'], [''], [], None)
    """
    names: list[str] = []
    at, end = _skip_space(value, 0), len(value)
    if at == end:
        return names
    while True:
        if value[at : at + 1] == '"':
            name, at = _quoted_name(value, at + 1)
            if name is None:
                return None
        else:
            start = at
            while at < end and value[at] != "," and not value[at].isspace():
                at += 1
            name = value[start:at]
            if not name:
                return None
        names.append(name)
        at = _skip_space(value, at)
        if at == end:
            return names
        if value[at] != ",":
            return None
        at = _skip_space(value, at + 1)


def _quoted_name(value: str, at: int) -> tuple[str | None, int]:
    name = ""
    while (closing := value.find('"', at)) >= 0:
        name += value[at:closing]
        if value[closing + 1 : closing + 2] != '"':
            return name, closing + 1
        name += '"'
        at = closing + 2
    return None, len(value)


def _skip_space(value: str, at: int) -> int:
    while at < len(value) and value[at].isspace():
        at += 1
    return at


def attribute_differences(expected: DatabaseFacts, found: DatabaseFacts) -> list[str]:
    """List in words what of a database itself is not as it was; the comment is set when the database gets its name."""
    words = [
        f"the database's {what} is {_shown(after)}, it was {_shown(before)}"
        for what, before, after in (
            ("owner", expected.owner, found.owner),
            ("encoding", expected.encoding, found.encoding),
            ("collation", expected.collation, found.collation),
            ("character type", expected.character_type, found.character_type),
            ("locale provider", expected.locale_provider, found.locale_provider),
            ("locale", expected.icu_locale, found.icu_locale),
            ("ICU rules", expected.icu_rules, found.icu_rules),
            ("tablespace", expected.tablespace, found.tablespace),
            ("connection limit", expected.connection_limit, found.connection_limit),
            ("IS_TEMPLATE", expected.is_template, found.is_template),
        )
        if before != after
    ]
    words += _named("setting", _flat(expected.settings), _flat(found.settings))
    words += _named("security label", expected.security_labels, found.security_labels)
    before, after = _said(grants_of(expected)), _said(grants_of(found))
    if expected.grants is None and expected.privileges is not None:  # of an older manifest, without grantor and option
        before, after = _said_old(expected.privileges), _said_old(found.privileges)
    if before != after:
        lost, added = sorted(set(before) - set(after)), sorted(set(after) - set(before))
        words.append(f"the database's grants differ: missing {lost or 'none'}, not there before {added or 'none'}")
    return words


def _named(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"the database's {what} {name} is {_shown(after.get(name))}, it was {_shown(before.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(settings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Key settings by role and name.

    >>> _flat({"": ["a=1"], "reader": ["a=2"]})
    {'a': '1', 'a of reader': '2'}
    """
    flat = {}
    for role, lines in settings.items():
        for line in lines:
            name, _, value = line.partition("=")
            flat[f"{name} of {role}" if role else name] = value
    return flat


def _said(grants: Sequence[Grant] | None) -> list[str]:
    if grants is None:
        return ["PostgreSQL's defaults"]
    return sorted(
        f"{each.privilege} to {each.grantee or 'PUBLIC'}{' with grant option' if each.grantable else ''} by {each.grantor}"
        for each in grants
    )


def _said_old(privileges: Sequence[str] | None) -> list[str]:
    return ["PostgreSQL's defaults"] if privileges is None else sorted(set(privileges))


def _shown(value: object) -> str:
    return "none" if value is None else repr(value)


def literal(value: str) -> str:
    """Quote a string, for sessions with standard_conforming_strings (all of ours)."""
    return "'" + value.replace("'", "''") + "'"
