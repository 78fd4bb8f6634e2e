-- Rows that name objects which a dump makes only after the rows.
CREATE SCHEMA upkeep;
CREATE TABLE upkeep.subject (id int CONSTRAINT subject_key PRIMARY KEY);
INSERT INTO upkeep.subject VALUES (1);
CREATE TABLE upkeep.reindex (what regclass, since date);
INSERT INTO upkeep.reindex VALUES ('upkeep.subject', '2024-01-01'), ('upkeep.subject_key', '2024-01-02');
