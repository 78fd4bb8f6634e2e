"""Code that a database holds: what PostgreSQL would run for any user of its tables."""

from __future__ import annotations

from tasks.adapters.postgres.session import Session

FIRST_OWN_OID = 16384
# Built-in functions whose results vary and that do nothing else; every other volatile one (files, other SQL, settings) counts as code.
HARMLESS = (
    "nextval", "currval", "lastval", "random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday",
)  # fmt: skip
# An extension's members come with the extension; which ones may be made without rights is PostgreSQL's own list of trusted ones.
_CODE = f"""
    WITH member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
    expression(classid, oid, tree, text) AS (
        SELECT 'pg_attrdef'::regclass::oid, oid, adbin::text, pg_get_expr(adbin, adrelid) FROM pg_attrdef
        UNION ALL SELECT 'pg_constraint'::regclass, oid, conbin::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conbin IS NOT NULL
        UNION ALL SELECT 'pg_class'::regclass, indexrelid, concat(indexprs::text, indpred::text), pg_get_indexdef(indexrelid) FROM pg_index
            WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
        UNION ALL SELECT 'pg_class'::regclass, ev_class, ev_action::text, pg_get_viewdef(ev_class) FROM pg_rewrite WHERE rulename = '_RETURN'
        UNION ALL SELECT 'pg_type'::regclass, oid, typdefaultbin::text, typdefault FROM pg_type WHERE typdefaultbin IS NOT NULL
        UNION ALL SELECT 'pg_class'::regclass, partrelid, partexprs::text, pg_get_partkeydef(partrelid) FROM pg_partitioned_table
            WHERE partexprs IS NOT NULL
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxexprs::text, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
            WHERE stxexprs IS NOT NULL),
    called AS (
        SELECT e.classid, e.oid, e.text, m[1]::oid AS called FROM expression e,
            regexp_matches(e.tree, ':(?:funcid|aggfnoid|winfnoid|opfuncid) (\\d+)', 'g') m
        UNION SELECT e.classid, e.oid, e.text, o.oprcode FROM expression e, regexp_matches(e.tree, ':opno (\\d+)', 'g') m
            JOIN pg_operator o ON o.oid = m[1]::oid),
    code(classid, oid, text) AS (
        SELECT 'pg_proc'::regclass::oid, oid, CASE prokind WHEN 'a' THEN p::text ELSE pg_get_functiondef(oid) END FROM pg_proc p
        UNION ALL SELECT 'pg_trigger'::regclass, oid, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'pg_rewrite'::regclass, oid, pg_get_ruledef(oid) FROM pg_rewrite WHERE rulename <> '_RETURN'
        UNION ALL SELECT 'pg_event_trigger'::regclass, oid, concat(evtname, evtfoid::regprocedure) FROM pg_event_trigger
        UNION ALL SELECT 'pg_operator'::regclass, oid, concat(oprcode::regprocedure, oprrest::regprocedure, oprjoin::regprocedure)
            FROM pg_operator
        UNION ALL SELECT 'pg_cast'::regclass, oid, concat(castfunc::regprocedure, castcontext, castmethod) FROM pg_cast
        UNION ALL SELECT 'pg_policy'::regclass, oid,
            concat(polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
        UNION ALL SELECT 'pg_opclass'::regclass, oid, opcname FROM pg_opclass
        UNION ALL SELECT 'pg_language'::regclass, oid, lanname FROM pg_language
        UNION ALL SELECT 'pg_transform'::regclass, oid, concat(trffromsql, trftosql) FROM pg_transform
        UNION ALL SELECT 'pg_conversion'::regclass, oid, conproc::text FROM pg_conversion
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwname FROM pg_foreign_data_wrapper
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvname FROM pg_foreign_server
        UNION ALL SELECT 'pg_subscription'::regclass, oid, subname FROM pg_subscription
            WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL SELECT c.classid, c.oid, c.text FROM called c JOIN pg_proc f ON f.oid = c.called
            WHERE CASE WHEN f.oid < {FIRST_OWN_OID} THEN f.provolatile = 'v' AND f.proname <> ALL (%(harmless)s)
                ELSE NOT EXISTS (SELECT FROM member WHERE classid = 'pg_proc'::regclass AND objid = f.oid) END)
    SELECT DISTINCT i.type || ' ' || i.identity, md5(text) FROM code, pg_identify_object(classid, code.oid, 0) i
    WHERE code.oid >= {FIRST_OWN_OID}
        AND NOT EXISTS (SELECT FROM member WHERE member.classid = code.classid AND member.objid = code.oid)
    ORDER BY 1
"""


def code_of(session: Session) -> dict[str, str]:
    """Name the code that the session's database holds besides PostgreSQL's and its extensions' own, each with a digest of what it says.

    Functions, triggers, rules, operators, casts and policies; and defaults, checks, indexes and views that call functions which do more
    than give a value. Read from the catalogue: it is what PostgreSQL made of a dump, whatever its words were.
    """
    return dict(session.execute(_CODE, {"harmless": list(HARMLESS)}))
