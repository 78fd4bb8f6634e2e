CREATE TABLE rule (name text PRIMARY KEY, own bool NOT NULL DEFAULT true);
INSERT INTO rule VALUES ('always', false), ('on Sundays', false), ('never', false);
CREATE TABLE schedule (id serial, job text);
SELECT pg_extension_config_dump('rule', 'WHERE own');
SELECT pg_extension_config_dump('schedule', '');
SELECT pg_extension_config_dump('schedule_id_seq', '');
