-- Objects that depend on a primary key come after the rows, with indexes of their own; so may a view over them, and a rule.
CREATE SCHEMA views;
CREATE TABLE views.person (id int PRIMARY KEY, name text NOT NULL, mails int DEFAULT 0);
INSERT INTO views.person SELECT i, 'person ' || i, i % 9 FROM generate_series(1, 60) AS i;
CREATE MATERIALIZED VIEW views.busy AS SELECT id, name, count(*) AS rows FROM views.person WHERE mails > 3 GROUP BY id;
CREATE UNIQUE INDEX busy_id ON views.busy (id);
CREATE INDEX busy_name ON views.busy (lower(name));
CREATE VIEW views.plain AS SELECT id, name FROM views.person GROUP BY id;
CREATE MATERIALIZED VIEW views.above AS SELECT plain.id, busy.rows FROM views.plain JOIN views.busy USING (id);
CREATE INDEX above_id ON views.above (id);
CREATE MATERIALIZED VIEW views.never_filled AS SELECT 1 AS one WITH NO DATA;
CREATE RULE keep_away AS ON DELETE TO views.plain DO INSTEAD NOTHING;
-- A constraint whose text speaks of other constraints is no index.
ALTER TABLE views.person ADD CONSTRAINT "no PRIMARY KEY here" CHECK (name <> ' UNIQUE ') NOT VALID;
