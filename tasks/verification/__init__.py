"""The proof of a backup by restoring it on staging."""
