-- What operators add over the years, and what a backup loses when it only thinks of tables.
-- Runs after the rows are loaded; roles are made by the seeder, for they belong to the whole server.
COMMENT ON TABLE mail_archiver."ArchivedEmails" IS 'Every mail; it''s a "quoted" comment with a \ and ünïcode';
COMMENT ON COLUMN mail_archiver."ArchivedEmails"."IsLocked" IS E'Line one\nline two';
GRANT USAGE ON SCHEMA mail_archiver TO mailreader, reporting;
GRANT SELECT ON mail_archiver."ArchivedEmails", mail_archiver."MailAccounts" TO mailreader;
GRANT SELECT ("Id", "Username"), UPDATE ("IsActive") ON mail_archiver."Users" TO reporting WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA mail_archiver GRANT SELECT ON TABLES TO mailreader;

CREATE VIEW mail_archiver.mails_by_account AS
    SELECT account."Name", count(mail."Id") AS mails, max(mail."SentDate") AS newest
    FROM mail_archiver."MailAccounts" account
    LEFT JOIN mail_archiver."ArchivedEmails" mail ON mail."MailAccountId" = account."Id"
    GROUP BY account."Name";
GRANT SELECT ON mail_archiver.mails_by_account TO reporting;

CREATE FUNCTION mail_archiver.greet(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $outer$
BEGIN
    -- A dollar-quoted body with another inside, and a line that a naive reader takes for the end of a COPY:
    RETURN $inner$Dear $inner$ || name || E'\\.\n' || '$$';
END
$outer$;
COMMENT ON FUNCTION mail_archiver.greet(text) IS 'Says hello';

CREATE FUNCTION mail_archiver.lower_email() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW."Email" := lower(NEW."Email"::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER users_lower_email BEFORE INSERT OR UPDATE ON mail_archiver."Users"
    FOR EACH ROW EXECUTE FUNCTION mail_archiver.lower_email();

CREATE SEQUENCE public.ticket_numbers START 1000 INCREMENT 7 MINVALUE -5 MAXVALUE 99999 CYCLE;
SELECT nextval('public.ticket_numbers') FROM generate_series(1, 5);
CREATE SEQUENCE public."Never Called";

CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy 😀');
CREATE DOMAIN public.short_text AS text CHECK (length(VALUE) < 1000);
CREATE TABLE public."Operator's ""notes"" – ünïcode" (
    id bigserial PRIMARY KEY,
    "select" public.short_text,
    mood public.mood DEFAULT 'ok',
    tags text[],
    facts jsonb,
    number numeric,
    ratio double precision,
    at timestamp with time zone,
    duration interval,
    doubled numeric GENERATED ALWAYS AS (number * 2) STORED,
    CONSTRAINT "number is not 13" CHECK (number <> 13)
);
INSERT INTO public."Operator's ""notes"" – ünïcode" ("select", mood, tags, facts, number, ratio, at, duration) VALUES
    (E'tab\there, newline\nhere, backslash \\ and \\. and \\N', 'happy 😀', ARRAY['a', 'b,c', NULL, '"'],
     '{"k": ["v", 1.50, null]}', 1.5000, 0.1, '2024-02-29 23:59:60+00', '1 mon 2 days'),
    (E'\\.', 'sad', '{}', 'null', 'NaN', '-Infinity', 'infinity', '0'),
    ('', NULL, NULL, NULL, NULL, 'NaN', '-infinity', NULL),
    (NULL, NULL, NULL, NULL, 123456789012345678901234567890.123456789, 1e-300, '0044-03-15 12:00:00+00 BC', '-1 year');

CREATE TABLE public.events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE public.events_2024 PARTITION OF public.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE public.events_rest PARTITION OF public.events DEFAULT;
INSERT INTO public.events SELECT DATE '2024-12-20' + day, 'day ' || day FROM generate_series(1, 40) day;
CREATE TABLE public.always_empty (id integer);

SELECT lo_from_bytea(900001, decode(repeat('00ff10', 3000), 'hex'));
SELECT lo_from_bytea(900002, '');
SELECT lo_from_bytea(900003, convert_to(repeat('A large object with ünïcode. ', 20000), 'UTF8'));
COMMENT ON LARGE OBJECT 900001 IS 'a scan';
GRANT SELECT ON LARGE OBJECT 900001 TO mailreader;
