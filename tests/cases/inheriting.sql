-- A table may inherit from one that came later: restored, its columns stand in its parent's order. And sequences may be unlogged.
CREATE SCHEMA heirs;
CREATE TABLE heirs.child ("c, (d" numeric, b text NOT NULL, a int);
CREATE TABLE heirs.parent (a int, b text NOT NULL);
ALTER TABLE heirs.child INHERIT heirs.parent;
CREATE TABLE heirs.grandchild (e int, "c, (d" numeric, a int, b text NOT NULL);
ALTER TABLE heirs.grandchild INHERIT heirs.child;
INSERT INTO heirs.parent SELECT i, 'parent ' || i FROM generate_series(1, 50) AS i;
INSERT INTO heirs.child SELECT i / 7.0, 'child ' || i, i FROM generate_series(1, 50) AS i;
INSERT INTO heirs.grandchild SELECT i, i / 3.0, -i, 'grandchild ' || i FROM generate_series(1, 50) AS i;
CREATE UNLOGGED TABLE heirs.passing (id int GENERATED ALWAYS AS IDENTITY);
CREATE UNLOGGED SEQUENCE heirs.counted AS integer;
