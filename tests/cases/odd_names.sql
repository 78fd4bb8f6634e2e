-- Names and values with every character that a program may take for its own.
CREATE SCHEMA "a.b; (c) $$";
CREATE TABLE "a.b; (c) $$"."T ""q"", (x) FROM stdin;" ("id, (a" int GENERATED ALWAYS AS IDENTITY, "b "" c" text DEFAULT $q$a';--$q$, "%s" bytea);
INSERT INTO "a.b; (c) $$"."T ""q"", (x) FROM stdin;" ("b "" c") VALUES (E'\\.'), (E'\n\\.\n'), ('COPY x FROM stdin;'), (DEFAULT);
COMMENT ON TABLE "a.b; (c) $$"."T ""q"", (x) FROM stdin;" IS E'-- PostgreSQL database dump complete\n\\! touch x;\n';
CREATE SEQUENCE "a.b; (c) $$"."s'q" START 3;
CREATE TABLE public."ünïcödé 日本" ();
INSERT INTO public."ünïcödé 日本" DEFAULT VALUES;
CREATE VIEW public."view; of * %" AS SELECT 'E''\'::text AS "--", $a$/*$a$::text AS "/*";
