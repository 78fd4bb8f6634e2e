"""Backups copied to other places: sent, read back, and removed again."""
