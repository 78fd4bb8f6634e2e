"""The host around: what is backed up of it beside the database, and what may be restored of that."""
