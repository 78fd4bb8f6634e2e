-- Rows of partitions whose place depends on a hash of an enum go through the partitioned table, so one COPY target comes several times.
CREATE SCHEMA traffic;
CREATE TYPE traffic.kind AS ENUM ('mail', 'calendar', 'contact');
CREATE TABLE traffic.event (at timestamptz NOT NULL, kind traffic.kind, note text) PARTITION BY HASH (kind);
CREATE TABLE traffic.event_a PARTITION OF traffic.event FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE traffic.event_b PARTITION OF traffic.event FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY HASH (kind);
CREATE TABLE traffic.event_b0 PARTITION OF traffic.event_b FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE traffic.event_b1 PARTITION OF traffic.event_b FOR VALUES WITH (MODULUS 4, REMAINDER 3);
INSERT INTO traffic.event SELECT timestamptz '2023-05-01 12:00+00' + i * interval '1 hour',
    (ARRAY['mail', 'calendar', 'contact', NULL])[1 + i % 4]::traffic.kind, 'event ' || i FROM generate_series(1, 333) AS i;
-- Rows of inheriting tables belong to their own table alone.
CREATE TABLE traffic.note (id int, body text);
CREATE TABLE traffic.note_signed (signature bytea) INHERITS (traffic.note);
INSERT INTO traffic.note VALUES (1, 'plain'), (2, 'plain');
INSERT INTO traffic.note_signed VALUES (3, 'signed', '\x00ff');
