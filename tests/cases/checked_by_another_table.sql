-- A constraint that looks into a table which is dumped after its own.
CREATE SCHEMA policy;
CREATE TABLE policy.known_kind (kind text PRIMARY KEY);
INSERT INTO policy.known_kind VALUES ('spam'), ('ham');
CREATE FUNCTION policy.is_known(text) RETURNS bool LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN EXISTS (SELECT FROM policy.known_kind WHERE kind = $1); END$$;
CREATE TABLE policy.decision (id int PRIMARY KEY, kind text CONSTRAINT kind_is_known CHECK (policy.is_known(kind)));
INSERT INTO policy.decision SELECT i, 'ham' FROM generate_series(1, 12) AS i;
