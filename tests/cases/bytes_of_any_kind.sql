-- SQL_ASCII takes bytes as they come: LATIN1 and cut UTF-8 in rows, names, defaults and comments.
CREATE TABLE public.imported (id serial PRIMARY KEY, subject text DEFAULT E'\xe4', body bytea);
INSERT INTO public.imported (subject, body) VALUES (E'Sch\xf6ne Gr\xfc\xdfe', '\x00'), (E'cut: \xf0\x9f\x93', NULL), ('plain', '\xff');
INSERT INTO public.imported (subject) VALUES (DEFAULT), (E'\xc3\xa4 in UTF-8');
COMMENT ON TABLE public.imported IS E'alt: f\xfcr';
COMMENT ON DATABASE "MailArchiver" IS E'B\xfcro';
DO $do$ BEGIN
    -- A role's name is the cluster's: within one of another encoding only ASCII can be written.
    IF (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'postgres') = 'SQL_ASCII' THEN
        EXECUTE 'CREATE ROLE "b' || E'\xfc' || 'ro"';
        EXECUTE 'ALTER TABLE public.imported OWNER TO "b' || E'\xfc' || 'ro"';
    END IF;
    EXECUTE 'CREATE TABLE public."g' || E'\xfc' || 'ltig" (id int PRIMARY KEY, "m' || E'\xf6' || 'glich" text, data bytea)';
    EXECUTE 'INSERT INTO public."g' || E'\xfc' || 'ltig" VALUES (7, E''\xfe\xff'', ''\x01'')';
    EXECUTE 'CREATE SEQUENCE public."z' || E'\xe4' || 'hler" START 5';
END $do$;
