-- A materialized view of a table on another server, filled while that server was there; now nobody answers.
CREATE EXTENSION postgres_fdw;
CREATE SERVER directory FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', dbname 'postgres');
CREATE USER MAPPING FOR mailuser SERVER directory OPTIONS (user 'mailuser', password 'masterkey');
CREATE SCHEMA directory;
CREATE FOREIGN TABLE directory.role (rolname name) SERVER directory OPTIONS (schema_name 'pg_catalog', table_name 'pg_roles');
CREATE MATERIALIZED VIEW directory.role_copy AS SELECT rolname::text FROM directory.role;
ALTER SERVER directory OPTIONS (ADD port '1');
