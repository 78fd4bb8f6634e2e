"""Another major version of PostgreSQL: rehearsed on staging, made beside the current data, and taken back until `commit`."""
