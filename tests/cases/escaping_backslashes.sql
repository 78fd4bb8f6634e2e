-- A database of the time when a backslash in a string was an escape; with large objects, and backslashes wherever they may stand.
ALTER DATABASE "MailArchiver" SET standard_conforming_strings = off;
SELECT lo_from_bytea(880001, decode('00ff5c27100a', 'hex')), lo_create(880002);
CREATE TABLE public."back\slash" (id serial PRIMARY KEY, path text DEFAULT E'C:\\mail\\it''s', raw bytea);
INSERT INTO public."back\slash" (path, raw) VALUES (E'\\', decode('5c27', 'hex')), (DEFAULT, NULL);
COMMENT ON TABLE public."back\slash" IS E'ends with a backslash; \\';
CREATE FUNCTION public.slash() RETURNS text LANGUAGE sql AS $$SELECT '\\'::text || ';'$$;
CREATE SEQUENCE public."s\'q" START 12;
