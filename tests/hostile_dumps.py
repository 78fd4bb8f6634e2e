"""Dumps that a stranger might hand over: each holds what would do harm if it ran with more rights than it needs.

`BRINGS` only adds code to the new database, which needs `--with-code`; `REFUSED` cannot be loaded without rights, or is
no dump's statement.
"""

from __future__ import annotations

TOUCH = "touch /tmp/canary/touched"
_RUNS = f"EXECUTE $x$COPY (SELECT 1) TO PROGRAM '{TOUCH}'$x$"
_DROPS = "PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> CURRENT_USER; EXECUTE 'ALTER ROLE CURRENT_USER SUPERUSER'"


def function(body: str, *, returns: str = "integer", ends: str = "RETURN 1;", volatility: str = "IMMUTABLE") -> str:
    """Write a function evil() of some body."""
    return f"CREATE FUNCTION public.evil() RETURNS {returns} LANGUAGE plpgsql {volatility} AS $f$ BEGIN {body}; {ends} END $f$;"


def hidden(body: str) -> str:
    """Write a function whose harm only happens where it has the rights: an error there is swallowed.

    What an index or a check calls must claim to be IMMUTABLE, and may then change nothing by itself; what it calls may.
    """
    worker = function(f"BEGIN {body}; EXCEPTION WHEN OTHERS THEN NULL; END", volatility="VOLATILE")
    return f"{worker.replace('evil()', 'worker()')} {function('PERFORM public.worker()')}"


_TABLE = "CREATE TABLE public.bait (a integer);"
_TRIGGER = (
    function("BEGIN {0}; EXCEPTION WHEN OTHERS THEN NULL; END", returns="trigger", ends="RETURN NEW;", volatility="")
    .replace("{0}", _RUNS)
)  # fmt: skip
_ACCOUNTS = 'mail_archiver."MailAccounts"'
_INDEXED = 'public.evil() + "Id"'
_WRAPPED = 'ALTER TABLE mail_archiver."AttachmentContents" ALTER COLUMN "Content" TYPE public.c USING ROW("Content")::public.c;'

BRINGS = {
    "program in a default": f"{hidden(_RUNS)} CREATE TABLE public.bait (a integer DEFAULT public.evil());",
    "program in an inserted default": f"{hidden(_RUNS)} CREATE TABLE public.bait (a integer DEFAULT public.evil()); INSERT INTO public.bait DEFAULT VALUES;",
    "program in a check": f"{hidden(_RUNS)} CREATE TABLE public.bait (a integer, CHECK (public.evil() > 0)); INSERT INTO public.bait VALUES (1);",
    "program in an index": f"{hidden(_RUNS)} {_TABLE} INSERT INTO public.bait VALUES (1); CREATE INDEX bait_i ON public.bait ((public.evil() + a));",
    "program in an index's condition": f"{hidden(_RUNS)} {_TABLE} INSERT INTO public.bait VALUES (1); CREATE INDEX bait_i ON public.bait (a) WHERE public.evil() > a;",
    "program in a trigger": f"{_TRIGGER} {_TABLE} CREATE TRIGGER t BEFORE INSERT ON public.bait FOR EACH ROW EXECUTE FUNCTION public.evil(); INSERT INTO public.bait VALUES (1);",
    "program in a generated column": f"{hidden(_RUNS)} CREATE TABLE public.bait (a integer, b integer GENERATED ALWAYS AS (public.evil()) STORED); INSERT INTO public.bait (a) VALUES (1);",
    "program in a domain": f"{hidden(_RUNS)} CREATE DOMAIN public.d AS integer CHECK (public.evil() > VALUE); CREATE TABLE public.bait (a public.d); INSERT INTO public.bait VALUES (0);",
    "program in a materialized view": f"{hidden(_RUNS)} CREATE MATERIALIZED VIEW public.m AS SELECT public.evil() WITH NO DATA; REFRESH MATERIALIZED VIEW public.m;",
    "file written by a function": hidden("PERFORM lo_export(lo_from_bytea(0, 'x'), '/tmp/canary/written')") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "file read into a table": hidden("CREATE TABLE IF NOT EXISTS public.loot AS SELECT pg_read_file('/tmp/canary/secret')") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "role made by a function": hidden("EXECUTE 'CREATE ROLE evil SUPERUSER LOGIN'") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "password changed by a function": hidden("EXECUTE $x$ALTER ROLE mailuser PASSWORD 'x'$x$") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "rights taken by a function": hidden(_DROPS) + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "server's settings changed": hidden("PERFORM set_config('log_statement', 'all', false)") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "membership taken by a function": hidden("EXECUTE 'GRANT pg_execute_server_program TO CURRENT_USER'") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "a rule": f"{_TABLE} CREATE RULE r AS ON INSERT TO public.bait DO ALSO SELECT pg_reload_conf();",
    "a policy": f"{_TABLE} CREATE POLICY p ON public.bait USING (pg_read_file('/tmp/canary/secret') <> '');",
    "an operator": f"{hidden(_RUNS)} CREATE FUNCTION public.eq(integer, text) RETURNS boolean LANGUAGE sql AS 'SELECT public.evil() > 0'; CREATE OPERATOR public.=== (LEFTARG = integer, RIGHTARG = text, FUNCTION = public.eq);",
    "a cast": "CREATE TYPE public.c AS (a integer); CREATE FUNCTION public.cast_it(text) RETURNS public.c LANGUAGE sql AS 'SELECT ROW(1)::public.c'; CREATE CAST (text AS public.c) WITH FUNCTION public.cast_it(text) AS ASSIGNMENT;",
    "an aggregate": "CREATE AGGREGATE public.longest(text) (SFUNC = textcat, STYPE = text);",
    "built-in that runs SQL": f"CREATE TABLE public.bait (a integer, b xml DEFAULT query_to_xml($x$COPY (SELECT 1) TO PROGRAM '{TOUCH}'$x$, true, true, ''));",
    "built-in in a view": "CREATE VIEW public.v AS SELECT pg_read_file('/tmp/canary/secret');",
    "built-in that writes": "CREATE TABLE public.bait (a integer DEFAULT lo_export(1, '/tmp/canary/written'));",
    "program where the accounts are disabled": f"{_TRIGGER} CREATE TRIGGER t BEFORE UPDATE ON {_ACCOUNTS} FOR EACH ROW EXECUTE FUNCTION public.evil(); ALTER TABLE {_ACCOUNTS} ENABLE ALWAYS TRIGGER t;",
    "program in an index of the accounts": f"{hidden(_RUNS)} CREATE INDEX bait_i ON {_ACCOUNTS} (({_INDEXED}));",
    "program in a cast of the attachments": f"{hidden(_RUNS)} CREATE TYPE public.c AS (a bytea); CREATE FUNCTION public.cast_it(public.c) RETURNS bytea LANGUAGE sql AS 'SELECT ($1).a FROM (SELECT public.evil()) x'; CREATE CAST (public.c AS bytea) WITH FUNCTION public.cast_it(public.c) AS IMPLICIT; {_WRAPPED}",
    "a sleeping function without a body of words": "CREATE FUNCTION public.evil() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT pg_reload_conf(); END;",
}  # fmt: skip
REFUSED = {
    "another server's link": "CREATE EXTENSION dblink WITH SCHEMA public;",
    "files as tables": "CREATE EXTENSION file_fdw WITH SCHEMA public;",
    "other server's tables": "CREATE EXTENSION postgres_fdw WITH SCHEMA public;",
    "role in lower case": "ALTER role mailuser PASSWORD 'x';",
    "role behind a comment": "ALTER/* harmless */ROLE mailuser PASSWORD 'x';",
    "role behind a comment in a comment": "CREATE /* a /* b */ c */ ROLE evil SUPERUSER;",
    "user behind a line comment": "ALTER -- x\n USER mailuser PASSWORD 'x';",
    "system": "ALTER SYSTEM SET shared_preload_libraries = 'evil';",
    "setval of a query": "SELECT pg_catalog.setval((SELECT pg_read_file('/tmp/canary/secret')), 1);",
    "set_config of a query": "SELECT pg_catalog.set_config('a.b', (SELECT pg_read_file('/tmp/canary/secret')), false);",
    "table of a query": "CREATE TABLE public.loot AS SELECT pg_read_file('/tmp/canary/secret');",
    "view that reads a file": "CREATE MATERIALIZED VIEW public.m AS SELECT pg_read_file('/tmp/canary/secret');",
    "membership": "GRANT pg_execute_server_program TO mailuser;",
    "right to a built-in": "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO PUBLIC;",
    "a default that runs while the owner is set": f"{hidden(_RUNS)} {_TABLE} ALTER TABLE public.bait ADD COLUMN b integer DEFAULT public.evil(), OWNER TO mailuser;",
    "two statements as one grant": f"{_TABLE} GRANT SELECT ON TABLE public.bait TO PUBLIC; DO $$ BEGIN {_RUNS}; END $$;",
    "event trigger": "CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.e();",
    "function in C": "CREATE FUNCTION public.c() RETURNS integer LANGUAGE c AS '/tmp/canary/evil.so', 'evil';",
    "settings of the database": function("EXECUTE format('ALTER DATABASE %I SET search_path = evil', current_database())") + " CREATE MATERIALIZED VIEW public.m AS SELECT public.evil();",
    "subscription": "CREATE SUBSCRIPTION s CONNECTION 'host=evil' PUBLICATION p WITH (connect = false);",
    "program": f"COPY (SELECT 1) TO PROGRAM '{TOUCH}';",
}  # fmt: skip

# A trigger whose table nobody touches, for a database to be dumped from.
CODE = (
    _TRIGGER,
    _TABLE,
    "CREATE TRIGGER t BEFORE INSERT ON public.bait FOR EACH ROW EXECUTE FUNCTION public.evil()",
)
# What makes or changes the database itself is passed over: the new one is made by us.
PASSED_OVER = 'ALTER DATABASE "MailArchiver" RENAME TO gone;'
