-- A database in LATIN1: names, rows and comments are other bytes than in UTF-8.
SET client_encoding = 'UTF8';
CREATE SCHEMA "Büro";
CREATE TABLE "Büro"."Größen" (id int PRIMARY KEY, "Maß" text DEFAULT 'groß', bild bytea);
INSERT INTO "Büro"."Größen" VALUES (1, 'Grüße', '\x00ff'), (2, DEFAULT, NULL), (3, 'ÿ', (SELECT string_agg(sha512(i::text::bytea), '') FROM generate_series(1, 2000) AS i));
CREATE INDEX "Maße" ON "Büro"."Größen" (lower("Maß"));
CREATE SEQUENCE "Büro"."Zähler" START 7;
COMMENT ON TABLE "Büro"."Größen" IS 'für später';
SELECT lo_from_bytea(990001, 'ä'::bytea);
-- A role's name is the bytes of the database that it was made in.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'Büro') THEN CREATE ROLE "Büro" NOLOGIN; END IF;
END $$;
ALTER TABLE "Büro"."Größen" OWNER TO "Büro";
